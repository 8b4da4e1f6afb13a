"""`mergevq evaluate`: one kind a file, and the pictures that they look at."""
