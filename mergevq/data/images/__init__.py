"""Pictures: where they are, how they are decoded and cropped, and in which order they come."""
