"""Sets of features and what is measured between them; the networks that they come from."""
