"""A class-conditional generator over the codes of a tokenizer: embeddings, Transformer, sub-code head.

Legend: B batch, N tokens generated (L of raster and merge_ar, K of rand_ar), L positions, K kept tokens,
D width, T length of a sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from mergevq.backends import rope
from mergevq.generator_config import HEAD_WIDTH, GeneratorConfig
from mergevq.models.generators import layouts
from mergevq.models.generators.subcodes import SubcodeEmbedding, SubcodeHead, split_code
from mergevq.models.generators.transformer import Rotation, Transformer, grid_rotation
from mergevq.models.tokenizer.position import sincos
from mergevq.tokens import TokenBatch

_COUNT_FEATURES = 64


class Sequence(NamedTuple):
    """The tokens of a batch in the order in which they are generated."""

    indices: torch.Tensor
    """(B, N) int64."""
    positions: torch.Tensor
    """(B, N) int64 raster positions."""
    valid: torch.Tensor
    """(B, N) bool; false where a row has fewer tokens than the longest."""


class Generator(nn.Module):
    """p(tokens | class), one token at a time.

    Source: MergeVQ (arXiv:2504.00999), Section 4; LlamaGen (arXiv:2406.06525) for the backbone.
    """

    layout_positions: torch.Tensor
    layout_labels: torch.Tensor

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.classes = nn.Embedding(config.classes + 1, width)
        self.instruction = nn.Linear(_COUNT_FEATURES, width) if config.kind == "merge_ar" else None
        self.question = nn.Parameter(torch.empty(width)) if config.kind == "rand_ar" else None
        self.codes = SubcodeEmbedding(config.split, width)
        self.transformer = Transformer(config.depth, width, config.heads, config.hidden, config.dropout)
        self.head = SubcodeHead(
            config.split,
            width,
            config.heads,
            config.hidden,
            config.head_depth,
            config.dropout,
            config.head_rotation,
        )
        if config.kind == "rand_ar":
            self.register_buffer("layout_positions", torch.zeros(0, config.length, dtype=torch.bool))
            self.register_buffer("layout_labels", torch.zeros(0, dtype=torch.int64))
        self.apply(_initialise)
        if self.question is not None:
            nn.init.normal_(self.question, std=0.02)
        for weight in self.head.outputs.parameters():
            nn.init.zeros_(weight)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.classes.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are."""
        return self.classes.weight.dtype

    def prefix(self, labels: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """What stands before the first token.

        Args:
            labels: (B,) int64 in [0, C]; C is no class.
            keep: (B,) int64 kept counts, which merge_ar is told.

        Returns:
            (B, 1, D), or (B, 2, D) for merge_ar.
        """
        conditions = [self.classes(labels)]
        if self.instruction is not None:
            share = 1000.0 * keep / self.config.length
            conditions.append(self.instruction(sincos(share, _COUNT_FEATURES).to(self.dtype)))
        return torch.stack(conditions, dim=1)

    def rotation(self, positions: torch.Tensor) -> Rotation:
        """(B, T) raster positions, L for the prefix, to the rotation of queries and keys."""
        return grid_rotation(positions, self.config.grid, HEAD_WIDTH, self.config.prefix_rotation)

    def questions(self, positions: torch.Tensor) -> torch.Tensor:
        """rand_ar's position instructions: (B, N) raster positions to (B, N, D).

        One learned vector, rotated head by head, so that values too know the position.
        """
        assert self.question is not None
        heads = self.question.view(1, -1, 1, HEAD_WIDTH).expand(
            positions.shape[0], -1, positions.shape[1], -1
        )
        return rope(heads, *self.rotation(positions)).transpose(1, 2).flatten(2)

    def contexts(self, labels: torch.Tensor, keep: torch.Tensor, sequence: Sequence) -> torch.Tensor:
        """The Transformer's output where each token is predicted, from the true tokens before it: (B, N, D)."""
        layout = self._layout(self.prefix(labels, keep), sequence)
        x = F.dropout(layout.x, self.config.dropout, self.training)
        x = self.transformer(x, self.rotation(layout.positions), layout.mask)
        return x[:, layout.outputs]

    def _layout(self, prefix: torch.Tensor, sequence: Sequence) -> layouts.Layout:
        tokens = self.codes(sequence.indices)
        length = self.config.length
        if self.config.kind == "rand_ar":
            return layouts.rand_ar(
                prefix, self.questions(sequence.positions), tokens, sequence.positions, length
            )
        if self.config.kind == "merge_ar":
            return layouts.merge_ar(prefix, tokens, sequence.indices, length, self.config.window)
        return layouts.raster(prefix, tokens, length)

    def forward(self, labels: torch.Tensor, keep: torch.Tensor, sequence: Sequence) -> list[torch.Tensor]:
        """Teacher-forced logits: P tensors of float32, (B, N, 2^bits)."""
        return self.head(self.contexts(labels, keep, sequence), sequence.indices, self.codes)

    def loss(
        self, batch: TokenBatch, rng: torch.Generator | None = None, label_smoothing: float = 0.0
    ) -> dict[str, torch.Tensor]:
        """Cross-entropy of the next token.

        Args:
            batch: on the model's device.
            rng: draws the orders of rand_ar, on the CPU; None draws them anew from seed 0.
            label_smoothing: share of the target spread over all sub-codes.

        Returns:
            loss: mean over tokens of the sum over sub-codes, in nats; accuracy: the share of tokens all of
            whose sub-codes are the likeliest.
        """
        sequence = self.sequence(batch, rng)
        labels = self._drop_classes(batch.labels)
        scores = self(labels, batch.keep, sequence)
        targets = split_code(sequence.indices, self.config.split)
        weight = sequence.valid / sequence.valid.sum()
        loss = torch.zeros((), device=weight.device)
        right = sequence.valid
        for logits, target in zip(scores, targets, strict=True):
            each = F.cross_entropy(
                logits.transpose(1, 2), target, reduction="none", label_smoothing=label_smoothing
            )
            loss = loss + (each * weight).sum()
            right = right & (logits.argmax(dim=-1) == target)
        return {"loss": loss, "accuracy": (right * weight).sum().detach()}

    def _drop_classes(self, labels: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return labels
        dropped = torch.rand(labels.shape, device=labels.device) < self.config.class_dropout
        return torch.where(dropped, self.config.classes, labels)

    def sequence(self, batch: TokenBatch, rng: torch.Generator | None = None) -> Sequence:
        """A batch in the order in which this kind generates."""
        if self.config.kind == "rand_ar":
            return _random_order(batch, rng)
        indices = batch.indices.gather(1, batch.source)  # (B, L)
        positions = torch.arange(indices.shape[1], device=indices.device).expand_as(indices)
        return Sequence(indices, positions, torch.ones_like(indices, dtype=torch.bool))

    @torch.no_grad()
    def predict(self, batch: TokenBatch, rng: torch.Generator) -> torch.Tensor:
        """Samples every token given the true ones before it, in one pass of rand_ar.

        Args:
            batch: on the model's device.
            rng: draws orders and samples, on the CPU.

        Returns:
            (B, Kmax) int64 in canonical order; past a row's kept count its values mean nothing.
        """
        order = _order(batch, rng)
        sequence = _ordered(batch, order)
        contexts = self.contexts(batch.labels, batch.keep, sequence).flatten(0, 1)

        def choose(logits: torch.Tensor, part: int) -> torch.Tensor:
            uniform = torch.rand(logits.shape, generator=rng).to(logits.device)
            return (logits - (-uniform.clamp_min(1e-20).log()).log()).argmax(dim=-1)  # Gumbel's trick

        sampled = self.head.sample(contexts, self.codes, choose).view_as(order)
        return torch.empty_like(sampled).scatter(1, order, sampled)

    def remember_layouts(self, positions: torch.Tensor, labels: torch.Tensor) -> None:
        """Gives rand_ar the sets of positions that it draws from when it generates.

        Args:
            positions: (n, L) bool, the positions at which the kept tokens of a training image begin.
            labels: (n,) int64, its class.
        """
        self.layout_positions = positions.to(self.device)
        self.layout_labels = labels.to(self.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes as many layouts as the file has."""
        for name in ("layout_positions", "layout_labels"):
            if self.config.kind == "rand_ar" and prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def first_positions(source: torch.Tensor, most: int) -> torch.Tensor:
    """The raster position at which each token begins.

    Args:
        source: (B, L) int64.
        most: Kmax, at least as many as any row keeps.

    Returns:
        (B, Kmax) int64; 0 where the row has no such token.
    """
    tokens = torch.arange(most, device=source.device).unsqueeze(1)  # (Kmax, 1)
    return (source.unsqueeze(1) == tokens).int().argmax(dim=-1)


def _order(batch: TokenBatch, rng: torch.Generator | None) -> torch.Tensor:
    """(B, Kmax) a random order of each row's tokens, those that it lacks at the end."""
    rng = torch.Generator().manual_seed(0) if rng is None else rng
    keys = torch.rand(batch.indices.shape, generator=rng).to(batch.indices.device)
    missing = torch.arange(keys.shape[1], device=keys.device) >= batch.keep.unsqueeze(1)
    return keys.masked_fill(missing, 2.0).argsort(dim=1, stable=True)


def _ordered(batch: TokenBatch, order: torch.Tensor) -> Sequence:
    positions = first_positions(batch.source, order.shape[1])
    valid = torch.arange(order.shape[1], device=order.device) < batch.keep.unsqueeze(1)
    return Sequence(batch.indices.gather(1, order), positions.gather(1, order), valid)


def _random_order(batch: TokenBatch, rng: torch.Generator | None) -> Sequence:
    return _ordered(batch, _order(batch, rng))


def _initialise(module: nn.Module) -> None:
    """Normal weights of 0.02; biases zero."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
