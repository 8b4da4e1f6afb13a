"""The graphs of a tokenizer against the tokenizer, in the units that matter: partitions, bits, pictures.

Legend: B batch, L positions, K kept tokens, d code bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mergevq.export.limits import LIMITS, Limits
from mergevq.export.manifest import GraphSpec, Manifest
from mergevq.export.report import Check, at_most, mean_at_least
from mergevq.export.samples import BATCHES, Pictures, picture_batches, random_tokens
from mergevq.export.sessions import Sessions
from mergevq.export.source_map import most_likely_source
from mergevq.models.merge import fewest, merge_schedule
from mergevq.models.tokenizer import Tokenizer
from mergevq.tokens import Tokens

_HIGHEST = 100.0
"""dB given to pictures that are equal."""

_ROOM = 0.2
"""By how much a graph may share fewer pairs than the model itself does in float16: of nine samples, each all or nothing
as a rule, one or two more may turn over."""

_ROOM_DB = 6.0
"""The same for the PSNR of those that did not."""

Encode = Callable[[torch.Tensor], tuple[dict[str, np.ndarray], np.ndarray]]
"""From (B, 3, S, S) images to indices, source and sizes by name, and the pictures decoded from them."""


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


def encoder_checks(manifest: Manifest, tokenizer: Tokenizer, sessions: Sessions) -> Iterator[Check]:
    """Every encoder at every kept count; one that takes any count at several, odd and even."""
    batches = picture_batches(tokenizer.config.image_size)
    for spec in manifest.graphs:
        if spec.role != "encoder":
            continue
        for keep in [spec.keep] if spec.keep else some_keeps(tokenizer):
            encoded = _Encoded(manifest, spec, tokenizer, sessions, keep)
            yield from _checks_of(encoded, batches, LIMITS[manifest.precision])


def decoder_checks(manifest: Manifest, tokenizer: Tokenizer, sessions: Sessions) -> Iterator[Check]:
    """Decoder and recovery on the same random tokens as the tokenizer."""
    limits = LIMITS[manifest.precision]
    decoder, recovery = manifest.graph("decoder"), manifest.graph("recovery")
    pixels, logits, likely = {}, {}, {}
    length, bits = tokenizer.config.length, tokenizer.config.quantizer.bits
    for seed, keep in enumerate((tokenizer.config.merge.keep, 1, length // 3, length)):
        batch = len(BATCHES[seed % len(BATCHES)])
        indices, source = random_tokens(batch, keep, length, bits, seed)
        sample = f"random tokens of seed {seed} (batch {batch}, {keep} kept)"
        tokens = Tokens(
            torch.from_numpy(indices), torch.from_numpy(source), torch.from_numpy(indices), _grid(tokenizer)
        )
        painted = sessions.run(decoder, {"indices": indices, "source": source})["image"]
        pixels[sample] = float(np.abs(painted - tokenizer.decode(tokens).numpy()).max())
        found = sessions.run(recovery, {"indices": indices})["logits"]
        wanted = tokenizer.recovery(tokenizer.quantizer.codes(tokens.indices), _grid(tokenizer))
        logits[sample] = relative_difference(found, wanted.numpy())
        likely[sample] = _likelihood_lost(most_likely_source(found), wanted, tokenizer, tokens.indices)
    yield at_most(decoder.file, "greatest difference of a pixel", pixels, limits.pixel)
    yield at_most(recovery.file, "greatest difference of a logit", logits, limits.logit)
    yield at_most(recovery.file, "log-likelihood lost by the source map, a position", likely, limits.logit)


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


def shared_pairs(first: np.ndarray, second: np.ndarray) -> float:
    """Pairs of positions that share a token in both maps / in either; (L,) each, any numbering. 1 without pairs."""
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both = pairs(joint)
    either = pairs(joint.sum(axis=1)) + pairs(joint.sum(axis=0)) - both
    return both / either if either else 1.0


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """dB between two pictures in [-1, 1]."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2)) / 4
    return min(_HIGHEST, -10 * np.log10(error)) if error else _HIGHEST


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The greatest difference in units of the root mean square, at least 1; infinite where the infinities differ."""
    finite = np.isfinite(wanted)
    if (finite != np.isfinite(found)).any():
        return float("inf")
    scale = max(1.0, float(np.sqrt(np.mean(wanted[finite].astype(np.float64) ** 2))))
    return float(np.abs(found[finite] - wanted[finite]).max()) / scale


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

    def by_model(self, images: torch.Tensor) -> tuple[Tokens, np.ndarray, np.ndarray]:
        """Tokens, (B, K, d) logits of their bits, and the pictures decoded from them."""
        encoding = self.tokenizer.encoder(images, self.keep)
        quantized = self.tokenizer.quantizer(encoding.tokens)
        tokens = Tokens(quantized.indices, encoding.source, encoding.sizes, encoding.grid)
        return tokens, quantized.z.numpy(), self.tokenizer.decode(tokens).numpy()


def _checks_of(encoded: _Encoded, batches: Sequence[Pictures], limits: Limits) -> list[Check]:
    """The checks of an encoder at a kept count.

    In float16 merging decisions of a model may turn over whatever computes them. Where the limits are missed, the
    question is whether they do so more often in the graph than in the model.
    """
    found = _measured(encoded, encoded.by_graph, batches)
    checks = list(_encoder_verdict(encoded.spec.file, encoded.keep, found, limits))
    if encoded.manifest.precision != "fp16" or all(check.passed for check in checks):
        return checks
    own = _measured(encoded, encoded.by_model_in_half, batches)
    return list(_encoder_verdict(encoded.spec.file, encoded.keep, found.settled(), _loosened(limits, own)))


def _loosened(limits: Limits, own: _Found) -> Limits:
    """Limits that the model itself would keep in float16, with some room."""
    shared = np.mean(list(own.partition.values())) - _ROOM
    settled = [values for kind, values in own.settled().psnr.items() if kind != "flat"]
    decibels = [np.mean(list(values.values())) - _ROOM_DB for values in settled]
    return replace(
        limits,
        partition=float(min(limits.partition, shared)),
        psnr=float(min([limits.psnr, *decibels])),
    )


def _measured(encoded: _Encoded, encode: Encode, batches: Sequence[Pictures]) -> _Found:
    found = _Found()
    for pictures in batches:
        _compare(encoded, encode, pictures, found)
    return found


def _compare(encoded: _Encoded, encode: Encode, pictures: Pictures, found: _Found) -> None:
    config = encoded.tokenizer.config
    margin = LIMITS[encoded.manifest.precision].margin
    ours, our_pictures = encode(pictures.images)
    tokens, logits, their_pictures = encoded.by_model(pictures.images)
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


def _likelihood_lost(
    source: np.ndarray, logits: torch.Tensor, tokenizer: Tokenizer, indices: torch.Tensor
) -> float:
    """How much less likely a source map is than the model's own, in nats a position, in the worst row."""
    scores = logits.log_softmax(dim=-1)
    own = tokenizer.recover_source(indices)
    ours = scores.gather(2, torch.from_numpy(source).unsqueeze(-1)).sum(dim=(1, 2))
    best = scores.gather(2, own.unsqueeze(-1)).sum(dim=(1, 2))
    return float((best - ours).max()) / source.shape[1]


def _grid(tokenizer: Tokenizer) -> tuple[int, int]:
    return tokenizer.config.grid, tokenizer.config.grid
