"""From logits to codes: temperature, top-k, top-p, and draws that depend on the row's seed alone.

Every row brings its own uniform numbers, drawn on the CPU before generation begins, and a code is the
inverse of the cumulative distribution at such a number. So a seed gives the same image in whatever
batch it stands, and nothing reads or changes the global random state.

Legend: R rows, V entries of a vocabulary, P sub-codes of a code, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mergevq.generation.settings import Sampling, row_uniform
from mergevq.generation.settings import row_seeds as row_seeds
from mergevq.models.generators.subcodes import Choose


def row_noise(seeds: Sequence[int], *shape: int) -> torch.Tensor:
    """(R, *shape) uniform numbers in [0, 1), each row from its own seed, of which 64 bits count.

    They are NumPy's: PyTorch's generator on the CPU heeds only 32 bits of a seed.
    """
    return torch.from_numpy(row_uniform(seeds, *shape))


def filtered(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """(R, V) logits with minus infinity where temperature, top-k and top-p allow no draw."""
    logits = logits / max(sampling.temperature, 1e-5)
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        # The one that crosses the threshold stays, so that there is always one.
        removed = torch.empty_like(before, dtype=torch.bool).scatter(1, order, before >= sampling.top_p)
        logits = logits.masked_fill(removed, float("-inf"))
    return logits


def draw(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Chooses an entry in each row.

    Args:
        logits: (R, V) float32.
        uniform: (R,) numbers in [0, 1).
        sampling: what may be drawn.

    Returns:
        (R,) int64 in [0, V).
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    reached = filtered(logits, sampling).softmax(dim=-1).cumsum(dim=-1)
    total = reached[:, -1:]
    chosen = (reached <= uniform.unsqueeze(-1) * total).sum(dim=-1)
    # Rounding may carry a number to the very end, behind which entries of no probability can stand.
    last = (reached < total).sum(dim=-1)
    return torch.minimum(chosen, last)


def chooser(uniform: torch.Tensor, sampling: Sampling, guidance: float | None) -> Choose:
    """The choice that `SubcodeHead.sample` asks for.

    Args:
        uniform: (R, P), a number for each sub-code.
        sampling: what may be drawn.
        guidance: None where there are R rows of logits. A scale s where there are 2 R, the second half without
            class: u + s (c - u) is drawn from, and both halves get the same code.

    Source: classifier-free guidance (arXiv:2207.12598), Eq. 6.
    """

    def choose(logits: torch.Tensor, part: int) -> torch.Tensor:
        if guidance is None:
            return draw(logits, uniform[:, part], sampling)
        given, free = logits.chunk(2)
        codes = draw(free + guidance * (given - free), uniform[:, part], sampling)
        return codes.repeat(2)

    return choose
