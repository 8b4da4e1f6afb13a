"""`merge_schedule` under the name that scripts outside call; it lives in `mergevq.models.tokenizer.merge`."""

from mergevq.models.tokenizer.merge import fewest, merge_schedule

__all__ = ["fewest", "merge_schedule"]
