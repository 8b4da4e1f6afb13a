"""Token merging: who merges with whom, the merge itself, and its inverse.

Everything that happened is one integer vector, `assign` (B, T): the slot that each token takes in the
shorter sequence. Tokens keep raster order: a cluster stands where its first member stood. The
references use comparisons, gathers and matrix products only, so that they run on an NPU without a
host round trip and parse in TensorRT; no scatter with reduction, no sort, no data-dependent shape.

Legend: B batch, T tokens (the first `protected` of them never merge), D width, K kept, L positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mergevq.backends.registry import op

_EPS = 1e-6


def _metric_example(device: torch.device) -> tuple:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 12, 8, generator=generator).to(device), 4, 1


@op("bipartite_match", example=_metric_example)
def bipartite_match(metric: torch.Tensor, merges: int, protected: int = 0) -> torch.Tensor:
    """Merges the most similar pairs between the even and the odd tokens.

    Every even token proposes its most similar odd token (cosine; the lowest position on a tie); the
    `merges` most similar proposals are carried out (again the lowest position on a tie). Several
    even tokens may join one odd token.

    Args:
        metric: (B, T, E) with T >= protected + 2, what similarity is measured on; the cosine with a zero
            vector, or with one that is not finite, is 0.
        merges: how many tokens disappear, at most floor((T - protected) / 2).
        protected: leading tokens that take no part.

    Returns:
        assign: (B, T) int64 in [0, T - merges), each token's slot afterwards, in raster order of the
        clusters' first members; the protected tokens keep theirs.

    Source: MergeVQ (arXiv:2504.00999), Appendix A.1; ToMe (arXiv:2210.09461), Section 3.
    Differs: parity leaves out the protected tokens, and the order is canonical after every merge.
    """
    even, odd, scores = similarities(metric, protected)
    best = scores.amax(dim=-1)  # (B, even)
    candidates = torch.where(scores == best.unsqueeze(-1), odd, odd[-1] + 1)
    partner = candidates.amin(dim=-1)  # (B, even), as positions
    # The rank of each proposal, by counting: stable on every device, where a sort need not be.
    ahead = best.unsqueeze(-2) > best.unsqueeze(-1)
    level = (best.unsqueeze(-2) == best.unsqueeze(-1)) & (even.unsqueeze(-2) < even.unsqueeze(-1))
    merged = (ahead | level).sum(dim=-1) < merges  # (B, even)

    joins = merged.unsqueeze(-1) & (partner.unsqueeze(-1) == odd)  # (B, even, odd)
    first_joiner = torch.where(joins, even.unsqueeze(-1), metric.shape[1]).amin(dim=1)
    odd_leader = torch.minimum(first_joiner, odd)  # (B, odd)
    even_leader = torch.where(merged, odd_leader.gather(1, partner // 2), even)
    return slots(even_leader, odd_leader, protected)


def similarities(metric: torch.Tensor, protected: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions of the even and of the odd tokens, and the cosine between each pair.

    Returns:
        even: (ceil(T'/2),) and odd: (floor(T'/2),) int64 with T' = T - protected.
        scores: (B, even, odd) float32.
    """
    # Merge decisions are discontinuous: they are always taken in float32.
    with torch.autocast(metric.device.type, enabled=False):
        # A key that overflowed must not lead a gather out of bounds: the losses will report it.
        unit = F.normalize(metric[:, protected:].float(), dim=-1, eps=_EPS).nan_to_num(0.0)
        scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    positions = torch.arange(unit.shape[1], device=metric.device)
    return positions[::2], positions[1::2], scores


def slots(even_leader: torch.Tensor, odd_leader: torch.Tensor, protected: int) -> torch.Tensor:
    """Slots in raster order from each token's leader, the first member of its cluster.

    Args:
        even_leader: (B, even) int64 positions.
        odd_leader: (B, odd) int64 positions.
        protected: leading tokens that keep their slots.

    Returns:
        (B, protected + even + odd) int64.
    """
    batch, evens = even_leader.shape
    total = evens + odd_leader.shape[1]
    odd_leader = F.pad(odd_leader, (0, 2 * evens - total))  # an odd count has one even token more
    leader = torch.stack([even_leader, odd_leader], dim=-1).flatten(1)[:, :total]
    positions = torch.arange(total, device=leader.device)
    order = (leader == positions).long().cumsum(dim=1) - 1
    kept = torch.arange(protected, device=leader.device).expand(batch, protected)
    return torch.cat([kept, order.gather(1, leader) + protected], dim=1)


def _merge_example(device: torch.device) -> tuple:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 8, generator=generator).to(device)
    assign = torch.tensor([[0, 1, 2, 1, 3, 3], [0, 1, 1, 1, 2, 3]], device=device)
    return x, torch.tensor([[1.0, 2, 1, 1, 3, 1]], device=device).expand(2, 6), assign, 4


@op("merge", example=_merge_example)
def merge(
    x: torch.Tensor, size: torch.Tensor, assign: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The size-weighted mean of the tokens that share a slot.

    Args:
        x: (B, T, D).
        size: (B, T), how many positions each token stands for.
        assign: (B, T) int64 in [0, length), as `bipartite_match` gives it.
        length: the number of slots.

    Returns:
        merged: (B, length, D) in the dtype of `x`, and its sizes (B, length) float32.

    Source: ToMe (arXiv:2210.09461), Section 3, in sum form: sum(x s) / sum(s).
    """
    with torch.autocast(x.device.type, enabled=False):
        slot = torch.arange(length, device=x.device).unsqueeze(-1)
        member = (assign.unsqueeze(1) == slot).float()  # (B, length, T)
        size = size.float().unsqueeze(-1)
        total = member @ size  # (B, length, 1)
        merged = member @ (x.float() * size) / total
    return merged.to(x.dtype), total.squeeze(-1)


def _recover_example(device: torch.device) -> tuple:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 3, 8, generator=generator).to(device)
    return tokens, torch.tensor([[0, 1, 0, 2], [0, 0, 1, 2]], device=device)


@op("recover", example=_recover_example)
def recover(tokens: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Every position takes the token that covers it: S^T Z.

    Args:
        tokens: (B, K, D).
        source: (B, L) int64 in [0, K).

    Returns:
        (B, L, D).

    Source: MergeVQ (arXiv:2504.00999), Eq. 11.
    """
    return tokens.gather(1, source.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
