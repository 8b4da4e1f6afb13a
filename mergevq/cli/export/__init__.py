"""`mergevq export`: one kind a file."""
