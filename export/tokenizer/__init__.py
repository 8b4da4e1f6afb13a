"""The tokenizer as graphs, and the proof that they do what it does."""
