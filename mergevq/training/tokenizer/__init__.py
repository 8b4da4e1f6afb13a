"""Stage 1: a tokenizer on pictures."""
