"""`mergevq doctor`: what it looks at, and how it says so."""
