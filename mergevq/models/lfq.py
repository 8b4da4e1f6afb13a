"""`entropies` under the name that scripts outside call; it lives in `mergevq.models.tokenizer.lfq`."""

from mergevq.models.tokenizer.lfq import entropies

__all__ = ["entropies"]
