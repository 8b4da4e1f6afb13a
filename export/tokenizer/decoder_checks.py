"""Decoder and source recovery graphs against the tokenizer, on the same random tokens.

Legend: B batch, L positions, K kept tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from mergevq.export.checking.limits import LIMITS, Limits
from mergevq.export.checking.measures import relative_difference
from mergevq.export.checking.report import Check, at_most
from mergevq.export.checking.samples import BATCHES, random_tokens
from mergevq.export.checking.sessions import Sessions
from mergevq.export.manifest import Manifest
from mergevq.export.tokenizer.source_map import most_likely_source
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import Tokens

_ROOM = 2.0
"""How many times as far from float32 as the model itself in float16 a graph of float16 may be."""

_MOST = 10.0
"""How many times a limit that makes it at most: a model that is further off does not survive float16."""

Decode = Callable[[Tokens], tuple[np.ndarray, np.ndarray]]
"""From tokens to pictures and the logits of source recovery."""


@dataclass
class _Found:
    """What was measured, by sample."""

    pixels: dict[str, float] = field(default_factory=dict)
    logits: dict[str, float] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)


def decoder_checks(manifest: Manifest, tokenizer: Tokenizer, sessions: Sessions) -> Iterator[Check]:
    """Decoder and recovery from 1 to L kept.

    How far float16 is from float32 is a matter of the model: where the limits are missed, the question is whether the
    graphs are much further from it than the model itself under float16 autocast.
    """
    limits = LIMITS[manifest.precision]
    found = _measured(tokenizer, _by_graphs(manifest, sessions))
    checks = list(_verdict(manifest, found, limits))
    if manifest.precision == "fp16" and not all(check.passed for check in checks):
        own = _measured(tokenizer, _by_model_in_half(tokenizer))
        checks = list(_verdict(manifest, found, _loosened(limits, own)))
    yield from checks


def _by_graphs(manifest: Manifest, sessions: Sessions) -> Decode:
    decoder, recovery = manifest.graph("decoder"), manifest.graph("recovery")

    def decode(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
        indices, source = tokens.indices.numpy(), tokens.source.numpy()
        painted = sessions.run(decoder, {"indices": indices, "source": source})["image"]
        return painted, sessions.run(recovery, {"indices": indices})["logits"]

    return decode


def _by_model(tokenizer: Tokenizer, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    return tokenizer.decode(tokens), tokenizer.recovery(
        tokenizer.quantizer.codes(tokens.indices), tokens.grid
    )


def _by_model_in_half(tokenizer: Tokenizer) -> Decode:
    def decode(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
        with torch.autocast("cpu", torch.float16):
            painted, logits = _by_model(tokenizer, tokens)
        return painted.float().numpy(), logits.float().numpy()

    return decode


def _measured(tokenizer: Tokenizer, decode: Decode) -> _Found:
    config, found = tokenizer.config, _Found()
    for seed, keep in enumerate((config.merge.keep, 1, config.length // 3, config.length)):
        batch = len(BATCHES[seed % len(BATCHES)])
        sample = f"random tokens of seed {seed} (batch {batch}, {keep} kept)"
        numbers = random_tokens(batch, keep, config.length, config.quantizer.bits, seed)
        indices, source = map(torch.from_numpy, numbers)
        tokens = Tokens(indices, source, torch.ones_like(indices), (config.grid, config.grid))
        painted, logits = decode(tokens)
        wanted, wanted_logits = _by_model(tokenizer, tokens)
        found.pixels[sample] = float(np.abs(painted - wanted.numpy()).max())
        found.logits[sample] = relative_difference(logits, wanted_logits.numpy())
        found.lost[sample] = _likelihood_lost(most_likely_source(logits), wanted_logits, tokenizer, indices)
    return found


def _verdict(manifest: Manifest, found: _Found, limits: Limits) -> Iterator[Check]:
    decoder, recovery = manifest.graph("decoder").file, manifest.graph("recovery").file
    yield at_most(decoder, "greatest difference of a pixel", found.pixels, limits.pixel)
    yield at_most(recovery, "greatest difference of a logit", found.logits, limits.logit)
    yield at_most(recovery, "log-likelihood lost by the source map, a position", found.lost, limits.lost)


def _loosened(limits: Limits, own: _Found) -> Limits:
    """Limits that the model itself would keep in float16, with room."""
    return replace(
        limits,
        pixel=_with_room(limits.pixel, own.pixels.values()),
        logit=_with_room(limits.logit, own.logits.values()),
        lost=_with_room(limits.lost, own.lost.values()),
    )


def _with_room(limit: float, own: Iterable[float]) -> float:
    """The limit as it is where the model's own values are not finite."""
    values = list(own)
    return min(max(limit, _ROOM * max(values)), _MOST * limit) if np.isfinite(values).all() else limit


def _likelihood_lost(
    source: np.ndarray, logits: torch.Tensor, tokenizer: Tokenizer, indices: torch.Tensor
) -> float:
    """How much less likely a source map is than the model's own, in nats a position, in the worst row."""
    scores = logits.log_softmax(dim=-1)
    own = tokenizer.recover_source(indices)
    ours = scores.gather(2, torch.from_numpy(source).unsqueeze(-1)).sum(dim=(1, 2))
    best = scores.gather(2, own.unsqueeze(-1)).sum(dim=(1, 2))
    return float((best - ours).max()) / source.shape[1]
