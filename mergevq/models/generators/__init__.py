"""Generators over the codes of a tokenizer: what they read, who sees whom, the Transformer. No loop over a sequence."""
