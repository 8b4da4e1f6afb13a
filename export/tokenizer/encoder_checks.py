"""Encoder graphs against the tokenizer, in the units that matter: partitions, bits, pictures.

Legend: B batch, L positions, K kept tokens, d code bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from mergevq.export.checking.limits import LIMITS, Limits
from mergevq.export.checking.measures import psnr, shared_pairs
from mergevq.export.checking.report import Check, at_most, mean_at_least
from mergevq.export.checking.samples import Pictures, picture_batches
from mergevq.export.checking.sessions import Sessions
from mergevq.export.manifest import GraphSpec, Manifest
from mergevq.models.tokenizer.merge import fewest, merge_schedule
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import Tokens

_ROOM = 0.2
"""By how much a graph may share fewer pairs than the model itself does in float16: of nine samples, each all or nothing
as a rule, one or two more may turn over."""

_ROOM_DB = 6.0
"""The same for PSNR."""

_LEAST = replace(LIMITS["fp16"], partition=0.3, psnr=10.0, flat=10.0)
"""What is asked of a graph however far the model itself drifts: one that misses it does not survive float16."""

Encode = Callable[[torch.Tensor], tuple[dict[str, np.ndarray], np.ndarray]]
"""From (B, 3, S, S) images to indices, source and sizes by name, and the pictures decoded from them."""


class _Wanted(NamedTuple):
    """What a batch should come to."""

    tokens: Tokens
    logits: np.ndarray
    """(B, K, d), of the bits."""
    pictures: np.ndarray
    """Decoded from the tokens: (B, 3, S, S)."""


@dataclass
class _Found:
    """What was measured of an encoder, by sample."""

    structure: dict[str, str] = field(default_factory=dict)
    partition: dict[str, float] = field(default_factory=dict)
    bits: dict[str, float] = field(default_factory=dict)
    psnr: dict[str, dict[str, float]] = field(default_factory=lambda: {"photo": {}, "noise": {}, "flat": {}})

    def settled(self) -> _Found:
        """Without the pictures whose partition is another."""
        kept = {
            kind: {name: value for name, value in values.items() if self.partition.get(name, 1.0) == 1}
            for kind, values in self.psnr.items()
        }
        return replace(self, psnr={kind: values for kind, values in kept.items() if values})

    @property
    def has_pictures(self) -> bool:
        """Whether there are any but flat ones."""
        return bool(self.psnr.keys() - {"flat"})


def encoder_checks(manifest: Manifest, tokenizer: Tokenizer, sessions: Sessions) -> Iterator[Check]:
    """Every encoder at every kept count; one that takes any count at several, odd and even."""
    batches = picture_batches(tokenizer.config.image_size)
    for spec in manifest.graphs:
        if spec.role != "encoder":
            continue
        for keep in [spec.keep] if spec.keep else some_keeps(tokenizer):
            encoded = _Encoded(manifest, spec, tokenizer, sessions, keep)
            yield from _checks_of(encoded, batches, LIMITS[manifest.precision])


def some_keeps(tokenizer: Tokenizer) -> list[int]:
    """Kept counts with odd and even numbers of merges, from the fewest to all."""
    config = tokenizer.config
    least = fewest(config.length, config.encoder.depth)
    wanted = (config.merge.keep, config.merge.keep - 1, least, least + 1, config.length - 1, config.length)
    return sorted({keep for keep in wanted if least <= keep <= config.length})


def tokens_left(tokenizer: Tokenizer, keep: int) -> np.ndarray:
    """(N,) what an encoder for any kept count is told: the tokens after each block."""
    config = tokenizer.config
    plan = merge_schedule(config.length, keep, config.encoder.depth, config.merge.schedule)
    return config.length - np.cumsum(plan)


class _Encoded:
    """A batch through an encoder graph and through the tokenizer."""

    def __init__(
        self, manifest: Manifest, spec: GraphSpec, tokenizer: Tokenizer, sessions: Sessions, keep: int
    ):
        self.manifest, self.spec, self.tokenizer, self.sessions = manifest, spec, tokenizer, sessions
        self.keep = keep

    def by_graph(self, images: torch.Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Indices, source and sizes by name, and the pictures decoded from them."""
        inputs = {"image": images.numpy()}
        if self.spec.keep is None:
            inputs["left"] = tokens_left(self.tokenizer, self.keep)
        tokens = self.sessions.run(self.spec, inputs)
        decoder = self.manifest.graph("decoder")
        painted = self.sessions.run(decoder, {name: tokens[name] for name in ("indices", "source")})
        return tokens, painted["image"]

    def by_model_in_half(self, images: torch.Tensor) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The same from the model under float16 autocast, which is what graphs of float16 are made from."""
        with torch.autocast("cpu", torch.float16):
            tokens = self.tokenizer.encode(images, self.keep)
            painted = self.tokenizer.decode(tokens).float()
        return {
            name: getattr(tokens, name).numpy() for name in ("indices", "source", "sizes")
        }, painted.numpy()

    def by_model(self, images: torch.Tensor) -> _Wanted:
        """What the model makes of a batch in float32."""
        encoding = self.tokenizer.encoder(images, self.keep)
        quantized = self.tokenizer.quantizer(encoding.tokens)
        tokens = Tokens(quantized.indices, encoding.source, encoding.sizes, encoding.grid)
        return _Wanted(tokens, quantized.z.numpy(), self.tokenizer.decode(tokens).numpy())


def _checks_of(encoded: _Encoded, batches: Sequence[Pictures], limits: Limits) -> list[Check]:
    """The checks of an encoder at a kept count.

    In float16 merging decisions of a model may turn over whatever computes them. Where the limits are missed, the
    question is whether they do so more often in the graph than in the model.
    """
    wanted = [encoded.by_model(pictures.images) for pictures in batches]
    found = _measured(encoded, encoded.by_graph, batches, wanted)
    checks = list(_encoder_verdict(encoded.spec.file, encoded.keep, found, limits))
    if encoded.manifest.precision != "fp16" or all(check.passed for check in checks):
        return checks
    own = _measured(encoded, encoded.by_model_in_half, batches, wanted)
    return list(_encoder_verdict(encoded.spec.file, encoded.keep, *_in_half(found, own, limits)))


def _in_half(found: _Found, own: _Found, limits: Limits) -> tuple[_Found, Limits]:
    """What to look at in a graph of float16, and its limits, beside the model in float16.

    Of pictures those whose partition did not turn over; where it did in all of them, all.
    """
    settled = found.settled(), own.settled()
    if all(each.has_pictures for each in settled):
        found, own = settled
    return found, _loosened(limits, own)


def _loosened(limits: Limits, own: _Found) -> Limits:
    """Limits that the model itself would keep in float16, with some room."""
    shared = np.mean(list(own.partition.values())) - _ROOM
    decibels = {kind: np.mean(list(values.values())) - _ROOM_DB for kind, values in own.psnr.items()}
    flat = decibels.pop("flat")
    return replace(
        limits,
        partition=max(_LEAST.partition, float(min(limits.partition, shared))),
        psnr=max(_LEAST.psnr, float(min([limits.psnr, *decibels.values()]))),
        flat=max(_LEAST.flat, float(min(limits.flat, flat))),
    )


def _measured(
    encoded: _Encoded, encode: Encode, batches: Sequence[Pictures], wanted: Sequence[_Wanted]
) -> _Found:
    found = _Found()
    for pictures, model in zip(batches, wanted, strict=True):
        _compare(encoded, encode, pictures, model, found)
    return found


def _compare(encoded: _Encoded, encode: Encode, pictures: Pictures, wanted: _Wanted, found: _Found) -> None:
    config = encoded.tokenizer.config
    margin = LIMITS[encoded.manifest.precision].margin
    ours, our_pictures = encode(pictures.images)
    tokens, logits, their_pictures = wanted
    theirs = tokens.source.numpy()
    for row, (name, kind) in enumerate(zip(pictures.names, pictures.kinds, strict=True)):
        indices, source, sizes = (ours[part][row] for part in ("indices", "source", "sizes"))
        found.structure[name] = _structure(indices, source, sizes, encoded.keep, config.quantizer.bits)
        found.psnr[kind][name] = psnr(our_pictures[row], their_pictures[row])
        if kind == "flat":  # all of it ties, and no two matrix products break them alike
            continue
        found.partition[name] = shared_pairs(source, theirs[row])
        if (source == theirs[row]).all():
            found.bits[name] = _wrong_bits(indices, tokens.indices[row].numpy(), logits[row], margin)


def _encoder_verdict(file: str, keep: int, found: _Found, limits: Limits) -> Iterator[Check]:
    at = f" at {keep} kept"
    broken = [f"{problem}: {name}" for name, problem in found.structure.items() if problem]
    yield Check(graph=file, name=f"structure{at}", passed=not broken, worst=broken[0] if broken else "")
    yield mean_at_least(file, f"shared pairs of the partition{at}", found.partition, limits.partition)
    if found.bits:
        yield at_most(file, f"bits that differ beyond the margin{at}", found.bits, 0.0)
    for kind, values in found.psnr.items():
        limit = limits.flat if kind == "flat" else limits.psnr
        yield mean_at_least(file, f"PSNR end to end, {kind}{at}", values, limit)


def _structure(indices: np.ndarray, source: np.ndarray, sizes: np.ndarray, keep: int, bits: int) -> str:
    """What is wrong with the tokens of an image, or nothing."""
    if indices.shape != (keep,) or indices.min() < 0 or indices.max() >= 2**bits:
        return "an index is out of range"
    if source.min() < 0 or source.max() >= keep:
        return "a source is out of range"
    if (np.bincount(source, minlength=keep) != sizes).any():
        return "sizes are not those of the source"
    if sizes.min() < 1:
        return "a token covers nothing"
    starts = np.array([np.argmax(source == token) for token in range(keep)])
    return "" if (np.diff(starts) > 0).all() else "tokens are not in the order of their first positions"


def _wrong_bits(found: np.ndarray, wanted: np.ndarray, logits: np.ndarray, margin: float) -> float:
    """How many bits differ whose logits are not within the margin of 0."""
    differ = (found ^ wanted)[:, None] >> np.arange(logits.shape[1]) & 1  # (K, d)
    sure = np.abs(logits) > margin * np.sqrt(np.mean(logits**2))
    return float((differ.astype(bool) & sure).sum())
