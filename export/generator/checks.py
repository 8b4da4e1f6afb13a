"""The graphs of a generator against the generator: tokens chosen one at a time, against one pass over all of them.

The graphs read some tokens at once, with a mask, then choose 16 more by themselves, each from a cache out of which
what may not be seen any more was physically taken. The model reads the result as in training, where the whole
sequence and the mask are seen at once. So two ways that share no code beside the layers must give the same logits.

Legend: B batch, N tokens, T items read at once, P items read before, S items (a token, or a question and a token).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from mergevq.export.checking.limits import LIMITS
from mergevq.export.checking.measures import relative_difference
from mergevq.export.checking.report import Check, at_least, at_most
from mergevq.export.checking.samples import BATCHES
from mergevq.export.checking.sessions import Sessions
from mergevq.export.manifest import Manifest
from mergevq.models.generators.autoregressive import Generator, Sequence
from mergevq.models.generators.layouts import first_occurrences

CHOSEN = 16
"""Tokens that the graphs choose."""
_CODES = 5
"""Different codes among the tokens that they are given: duplicates must leave MergeAR's context."""


def generator_checks(manifest: Manifest, model: Generator, sessions: Sessions) -> Iterator[Check]:
    """Roll-outs of 1, 3 and 8 images."""
    limits = LIMITS[manifest.precision]
    contexts, logits, lost, agreement = {}, {}, {}, {}
    for kinds in BATCHES:
        sample = f"roll-out of seed {len(kinds)} (batch {len(kinds)})"
        rollout = _Rollout(manifest, model, sessions, len(kinds))
        rollout.run()
        sequence, labels, keep = rollout.sequence(), rollout.labels, rollout.keep
        wanted = [part.numpy() for part in model(labels, keep, sequence)]
        contexts[sample] = relative_difference(
            rollout.contexts, model.contexts(labels, keep, sequence).numpy()
        )
        found = rollout.logits(rollout.contexts, rollout.codes)
        logits[sample] = max(map(relative_difference, found, wanted))
        lost[sample] = sum(map(_divergence, found, wanted))
        agreement[sample] = _agreement(rollout, wanted, limits.tie)
    yield at_most("step.onnx", "greatest difference of an output", contexts, limits.step)
    yield at_most("head_0.onnx", "greatest difference of a logit of any sub-code", logits, limits.step)
    yield at_most("all", "likelihood lost, nats a token", lost, limits.divergence)
    yield at_least("all", "tokens on which graphs and model agree", agreement, limits.rollout)


def split(codes: np.ndarray, bits: tuple[int, ...]) -> list[np.ndarray]:
    """Codes to sub-codes, the lowest bits first."""
    offsets = np.cumsum([0, *bits[:-1]])
    return [codes // 2**offset % 2**each for offset, each in zip(offsets, bits, strict=True)]


@dataclass(frozen=True)
class _Items:
    """What is read after the prefix.

    Attributes:
        codes: (B, S) int64; anything where a question stands.
        positions: (B, S) int64.
        questions: (B, S) bool.
        visible: (B, S, S) bool, which items each item sees.
    """

    codes: np.ndarray
    positions: np.ndarray
    questions: np.ndarray
    visible: np.ndarray


class _Rollout:
    """Some given tokens, then as many chosen ones, through the graphs."""

    def __init__(self, manifest: Manifest, model: Generator, sessions: Sessions, batch: int):
        config = model.config
        rng = np.random.default_rng(batch)
        self.manifest, self.config, self.sessions = manifest, config, sessions
        self.labels = torch.from_numpy(rng.integers(0, config.classes + 1, batch))  # the last one is no class
        self.keep = torch.from_numpy(rng.choice(config.counts, batch))
        chosen = min(CHOSEN, config.length // 2)
        self.given = min(config.window + 1, config.length - chosen)
        tokens = self.given + chosen
        self.codes = np.zeros((batch, tokens), dtype=np.int64)
        pool = rng.integers(0, 2**config.bits, _CODES)
        self.codes[:, : self.given] = pool[rng.integers(0, _CODES, (batch, self.given))]
        self.positions = np.tile(np.arange(tokens), (batch, 1))
        if config.kind == "rand_ar":
            self.positions = np.stack([rng.permutation(config.length)[:tokens] for _ in range(batch)])
        self.contexts = np.zeros((batch, tokens, config.width), dtype=np.float32)
        self.read = 0
        self.past: list[np.ndarray] = []

    def sequence(self) -> Sequence:
        """The tokens as the model reads them."""
        indices = torch.from_numpy(self.codes)
        valid = torch.ones_like(indices, dtype=torch.bool)
        return Sequence(indices, torch.from_numpy(self.positions), valid)

    def run(self) -> None:
        """Fills in `codes` and `contexts`."""
        spec = self.manifest.graph("prefill")
        conditions = {"label": self.labels.numpy(), "keep": self.keep.numpy()}
        found = self.sessions.run(spec, {tensor.name: conditions[tensor.name] for tensor in spec.inputs})
        self.contexts[:, 0] = found.pop("context")
        self.past = list(found.values())
        for token in range(self.given, self.codes.shape[1]):
            self._read_until(token)
            self.codes[:, token] = self._choose(self.contexts[:, token])

    def logits(self, contexts: np.ndarray, codes: np.ndarray) -> list[np.ndarray]:
        """The heads on (B, N, D) outputs, given the true sub-codes of (B, N) codes: (B, N, 2^bits) each."""
        flat, known = contexts.reshape(-1, contexts.shape[-1]), split(codes.reshape(-1), self.config.split)
        return [
            self._head(flat, known[:part]).reshape(*codes.shape, -1) for part in range(len(self.config.split))
        ]

    def _choose(self, context: np.ndarray) -> np.ndarray:
        """(B, D) to the likeliest codes, (B,)."""
        parts: list[np.ndarray] = []
        for _ in self.config.split:
            parts.append(self._head(context, parts).argmax(axis=-1))
        offsets = np.cumsum([0, *self.config.split[:-1]])
        return np.sum([part << offset for part, offset in zip(parts, offsets, strict=True)], axis=0)

    def _head(self, context: np.ndarray, known: list[np.ndarray]) -> np.ndarray:
        inputs = {"context": context} | ({"known": np.stack(known, axis=1)} if known else {})
        return self.sessions.run(self.manifest.graph("head", part=len(known)), inputs)["logits"]

    def _read_until(self, token: int) -> None:
        """Reads what stands before the output for a token."""
        items = self._items()
        asks = self.config.kind == "rand_ar"
        end = 2 * token + 1 if asks else token
        outputs = self._step(items, slice(self.read, end))
        for item in range(self.read, end):
            if asks and item % 2 == 0:
                self.contexts[:, item // 2] = outputs[:, item - self.read]
            elif not asks:
                self.contexts[:, item + 1] = outputs[:, item - self.read]
        self.read = end

    def _items(self) -> _Items:
        """All items so far, and who sees whom: as `mergevq.models.generators.layouts` has it, item for item."""
        codes, positions = self.codes, self.positions
        questions = np.zeros_like(codes, dtype=bool)
        if self.config.kind == "rand_ar":
            codes, positions = np.repeat(codes, 2, axis=1), np.repeat(positions, 2, axis=1)
            questions = np.tile([True, False], (len(codes), codes.shape[1] // 2))
        order = np.arange(codes.shape[1])
        age = order[:, None] - order
        visible = np.broadcast_to(age >= 0, (len(codes), *age.shape))
        if self.config.kind == "merge_ar":
            first = first_occurrences(torch.from_numpy(codes)).numpy()
            visible = visible & (first[:, None] | (age < self.config.window))
        return _Items(codes, positions, questions, visible)

    def _step(self, items: _Items, span: slice) -> np.ndarray:
        """Reads some items: (B, T, D)."""
        lead = self.past[0].shape[2] - span.start
        mask = items.visible[:, span, : span.stop]
        mask = np.concatenate([np.ones((*mask.shape[:2], lead), dtype=bool), mask], axis=2)
        past, mask = _compacted(self.past, mask)
        spec = self.manifest.graph("step")
        fed = {"code": items.codes, "position": items.positions, "question": items.questions}
        inputs = {name: values[:, span] for name, values in fed.items()} | {"mask": mask}
        inputs |= dict(
            zip([each.name for each in spec.inputs if each.name.startswith("past.")], past, strict=True)
        )
        found = self.sessions.run(spec, {tensor.name: inputs[tensor.name] for tensor in spec.inputs})
        outputs = found.pop("context")
        self.past = [np.concatenate(pair, axis=2) for pair in zip(self.past, found.values(), strict=True)]
        return outputs


def _compacted(past: list[np.ndarray], mask: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Takes out of each row's (B, M, P, E) cache what none of its new items sees, (B, T, P + T).

    Rows that keep fewer are filled up with what the mask hides.
    """
    before = past[0].shape[2]
    seen = mask[:, :, :before].any(axis=1)  # (B, P)
    order = np.argsort(~seen, axis=1, kind="stable")[:, : seen.sum(axis=1).max()]
    kept = [np.take_along_axis(each, order[:, None, :, None], axis=2) for each in past]
    hidden = np.take_along_axis(mask[:, :, :before], order[:, None], axis=2)
    return kept, np.concatenate([hidden, mask[:, :, before:]], axis=2)


def _divergence(found: np.ndarray, wanted: np.ndarray) -> float:
    """From (B, N, 2^bits) logits to the mean Kullback-Leibler divergence of the first from the second, in nats."""
    graphs, model = (torch.from_numpy(each).double().log_softmax(dim=-1) for each in (found, wanted))
    return float((model.exp() * (model - graphs)).sum(dim=-1).mean())


def _agreement(rollout: _Rollout, wanted: list[np.ndarray], tie: float) -> float:
    """The share of chosen tokens that the model would have chosen, or held for as good within `tie`."""
    right = np.ones(rollout.codes.shape, dtype=bool)
    for logits, part in zip(wanted, split(rollout.codes, rollout.config.split), strict=True):
        scale = max(1.0, float(np.sqrt(np.mean(logits**2))))
        taken = np.take_along_axis(logits, part[..., None], axis=-1)[..., 0]
        right &= taken >= logits.max(axis=-1) - 2 * tie * scale
    return float(right[:, rollout.given :].mean())
