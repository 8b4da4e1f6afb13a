"""What Pillow leaves open between a file's bytes and its pixels: opening, limits, PNG's chunks, deep pixels."""
