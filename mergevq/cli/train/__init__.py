"""`mergevq train`: one stage a file."""
