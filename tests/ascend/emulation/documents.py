"""What the vendor's documents allow: a call that a card would refuse must not pass on the emulation."""

from __future__ import annotations

import torch

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def require(holds: bool, what: str) -> None:
    """Raises where a documented condition does not hold."""
    if not holds:
        raise RuntimeError(f"the vendor's documents forbid it: {what}")
