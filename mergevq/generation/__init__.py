"""Generators at work: caches, sampling, guidance, the two ways through a sequence, and images in the end."""
