"""The proof that graphs do what their model does: what is looked at, how far it may be off, and the report."""
