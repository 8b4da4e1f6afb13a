"""`mergevq demo`: the tokenizer's half and the generators'."""
