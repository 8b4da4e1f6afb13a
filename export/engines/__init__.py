"""Exported graphs as TensorRT engines: built ahead of time, each with a file that says what it is.

NVIDIA has two libraries with one interface, TensorRT for data centres and TensorRT-RTX, here called flavours. There
is one path for both: what one of them lacks is seen by its names, never by its version. Needs no PyTorch.
"""
