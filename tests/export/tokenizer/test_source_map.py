"""The programme in NumPy finds what the one in PyTorch finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.export.tokenizer import source_map
from mergevq.models.tokenizer import source_map as model


def recovery_logits(seed: int, batch: int, length: int, keep: int, coarse: bool) -> np.ndarray:
    """Logits with the zeros of recovery; coarse ones tie often."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, length, keep)).astype(np.float32) * 3
    if coarse:
        logits = np.round(logits)
    logits[:, np.arange(length)[:, None] < np.arange(keep)] = -np.inf
    return logits


shapes = st.integers(1, 24).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), shapes, st.booleans())
def test_the_map_is_the_model_s(seed, batch, shape, coarse):
    logits = recovery_logits(seed, batch, *shape, coarse)
    found = source_map.most_likely_source(logits)
    wanted = model.most_likely_source(torch.from_numpy(logits)).numpy()
    assert found.dtype == np.int64
    # Equal, or as likely: the two log-softmaxes differ in the last place.
    scores = torch.from_numpy(logits).double().log_softmax(dim=-1).numpy()
    ours, theirs = (
        np.take_along_axis(scores, each[..., None], axis=-1).sum((1, 2)) for each in (found, wanted)
    )
    assert ours == pytest.approx(theirs, abs=1e-4)
    if not coarse:
        assert (found == wanted).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), shapes)
def test_every_token_appears_in_order(seed, shape):
    length, keep = shape
    for row in source_map.most_likely_source(recovery_logits(seed, 2, length, keep, False)):
        starts = [int(np.argmax(row == token)) for token in range(keep)]
        assert set(row) == set(range(keep))
        assert starts == sorted(starts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), shapes)
def test_known_starts_are_kept(seed, shape):
    length, keep = shape
    logits = recovery_logits(seed, 2, length, keep, True)
    rng = np.random.default_rng(seed)
    starts = np.stack([np.sort(np.r_[0, 1 + rng.permutation(length - 1)[: keep - 1]]) for _ in range(2)])
    found = source_map.source_with_starts(logits, starts)
    wanted = model.source_with_starts(torch.from_numpy(logits), torch.from_numpy(starts)).numpy()
    assert (found == wanted).all()
