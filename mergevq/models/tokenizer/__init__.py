"""The tokenizer's parts in the order of the data, and the tokenizer itself. What generators use too is one floor up."""
