"""Generation with exported graphs, for NumPy arrays. Imports no PyTorch."""
