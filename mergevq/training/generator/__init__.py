"""Stage 2: a generator on the tokens of a frozen tokenizer."""
