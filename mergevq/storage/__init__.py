"""Files: whole or not there, one writer a folder, and what others wrote read within bounds. Needs no PyTorch."""
