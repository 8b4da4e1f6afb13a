"""The generator as graphs: what stands before the tokens, a step, and a head for each sub-code.

Keys and values of the new tokens alone come out of a step, already turned by their positions. Where they are kept,
which of them leave, and who may see whom (the mask) is the caller's: so MergeAR's compressed cache, in which a new
token takes the slot of a duplicate that left, is the same few lines outside PyTorch as inside.

Legend: B batch, T new tokens, P earlier tokens, M heads, E head width, D width, p tokens of the prefix.
"""

from __future__ import annotations

import torch
from torch import nn

from mergevq.export.specs import head_spec, prefill_spec, step_spec
from mergevq.export.tracing import Plan
from mergevq.models.generators.autoregressive import Generator


class _Past:
    """A layer's cache within a graph: earlier keys and values come in, new ones are kept to go out."""

    def __init__(self, past: tuple[torch.Tensor, ...] = ()):
        self.past = past
        self.new: tuple[torch.Tensor, torch.Tensor] | tuple[()] = ()

    def store(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, M, T, E) new ones to all, the earlier ones first."""
        self.new = key, value
        if not self.past:
            return key, value
        before = [past.to(key.dtype) for past in self.past]
        return torch.cat([before[0], key], dim=2), torch.cat([before[1], value], dim=2)


class PrefillGraph(nn.Module):
    """Class and kept count to the output from which the first token is drawn, and the prefix's keys and values."""

    def __init__(self, model: Generator):
        super().__init__()
        self.model = model

    def forward(self, label: torch.Tensor, keep: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """(B,), and (B,) where the kind is told it, to (B, D), then keys and values of each layer, (B, M, p, E)."""
        x = self.model.prefix(label, label if keep is None else keep)  # (B, p, D)
        lead = x.shape[1]
        caches = [_Past() for _ in self.model.transformer.blocks]
        causal = torch.ones(1, lead, lead, dtype=torch.bool).tril()
        rotation = self.model.rotation(torch.full((1, lead), self.model.config.length))
        hidden = self.model.transformer(x, rotation, causal, caches)
        return hidden[:, -1], *(new for cache in caches for new in cache.new)


class StepGraph(nn.Module):
    """New tokens, among the earlier ones that they may see, to their outputs and their keys and values."""

    def __init__(self, model: Generator):
        super().__init__()
        self.model = model

    def forward(
        self, code: torch.Tensor, position: torch.Tensor, mask: torch.Tensor, *rest: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """(B, T), (B, T), (B, T, P + T), then for rand_ar (B, T) question, then keys and values of each layer,
        (B, M, P, E), to (B, T, D), then keys and values of the new tokens, (B, M, T, E).

        Where `question` is true the code counts for nothing: the position is asked about.
        """
        x = self.model.codes(code)  # (B, T, D)
        if self.model.config.kind == "rand_ar":
            question, *past = rest
            x = torch.where(question.unsqueeze(-1), self.model.questions(position), x)
        else:
            past = list(rest)
        caches = [_Past((key, value)) for key, value in zip(past[::2], past[1::2], strict=True)]
        hidden = self.model.transformer(x, self.model.rotation(position), mask, caches)
        return hidden, *(new for cache in caches for new in cache.new)


class HeadGraph(nn.Module):
    """A token's output and the sub-codes known of it to the logits of the next sub-code."""

    def __init__(self, model: Generator, part: int):
        super().__init__()
        self.model = model
        self.part = part

    def forward(self, context: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
        """(N, D) and (N, part), which the first part does without, to (N, 2^bits)."""
        parts = [] if known is None else known.unbind(1)
        read = [table(part) for table, part in zip(self.model.codes.tables, parts, strict=False)]
        sequence = torch.stack([context, *read], dim=1)  # (N, 1 + part, D)
        return self.model.head.logits(self.model.head.transform(sequence)[:, -1], self.part)


def generator_plans(model: Generator) -> list[Plan]:
    """Prefill, step and heads."""
    config = model.config
    heads = [Plan(head_spec(config, part), HeadGraph(model, part)) for part in range(len(config.split))]
    return [
        Plan(prefill_spec(config), PrefillGraph(model)),
        Plan(step_spec(config), StepGraph(model)),
        *heads,
    ]
