"""Ways to damage a file, each a function of a source of randomness and a path, which says what it did."""
