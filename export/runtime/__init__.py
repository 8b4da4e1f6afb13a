"""Exported folders at work: NumPy and ONNX Runtime, never PyTorch.

`mergevq.load(folder, runtime="onnx")` opens one. Arrays go in and come out; methods, arguments and errors are those of
the PyTorch objects.
"""
