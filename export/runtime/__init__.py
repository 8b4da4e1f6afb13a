"""Exported folders at work: NumPy with ONNX Runtime or TensorRT, never PyTorch.

`mergevq.load(folder, runtime="onnx")`, or "tensorrt", opens one. Arrays go in and come out; methods, arguments and
errors are those of the PyTorch objects.
"""
