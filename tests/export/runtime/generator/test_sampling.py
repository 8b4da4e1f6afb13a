"""The run time's choices and cache, against those of PyTorch's side."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.errors import UsageError
from mergevq.export.runtime.generator import sampling as ours
from mergevq.export.runtime.generator.cache import SlotCache, WindowedSlots
from mergevq.export.runtime.generator.layouts import draw_layouts
from mergevq.generation import cache as torch_cache
from mergevq.generation import layout_bank
from mergevq.generation import sampling as theirs
from mergevq.generation.settings import Sampling, row_uniform

SETTINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.integers(0, 20),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
)
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=30)
@given(SETTINGS, SEEDS, st.sampled_from([None, 0.0, 1.5]))
def test_draws_are_pytorchs(sampling, seed, guidance):
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(64 if guidance is None else 128, 16)) * 3).astype(np.float32)
    uniform = rng.random((64, 2), dtype=np.float32)
    found = ours.chooser(uniform, sampling, guidance)(logits, 1)
    wanted = theirs.chooser(torch.from_numpy(uniform), sampling, guidance)(torch.from_numpy(logits), 1)
    assert (found != wanted.numpy()).mean() <= 2 / 64  # where rounding decides


@settings(deadline=None, max_examples=30)
@given(SETTINGS, SEEDS)
def test_what_may_be_drawn_is_pytorchs(sampling, seed):
    logits = np.random.default_rng(seed).integers(-4, 5, (20, 16)).astype(np.float32)  # with ties
    found = ours.filtered(logits, sampling) > -np.inf
    wanted = torch.isfinite(theirs.filtered(torch.from_numpy(logits), sampling)).numpy()
    if sampling.top_p == 1:
        assert np.array_equal(found, wanted)
    assert found.any(axis=1).all() and (found != wanted).mean() < 0.05


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_what_has_no_probability_is_never_drawn(uniform):
    logits = np.array([[-np.inf, 0.1, 0.3, -np.inf]], dtype=np.float32)
    chosen = ours.draw(logits, np.array([uniform], dtype=np.float32), Sampling())
    assert chosen in (1, 2)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 6), st.integers(1, 3))
def test_slots_are_pytorchs(seed, window, lead):
    duplicates = np.random.default_rng(seed).random((40, 3)) < 0.5
    found = WindowedSlots(3, lead, window)
    wanted = torch_cache.WindowedSlots(3, lead, window, torch.device("cpu"))
    for number, duplicate in enumerate(duplicates):
        place = wanted.place(number, torch.from_numpy(duplicate))
        assert np.array_equal(found.place(number, duplicate), place.numpy())


def test_a_cache_holds_what_it_was_given():
    rng = np.random.default_rng(0)

    def tokens(number):
        return {f"present.{name}": rng.normal(size=(2, 3, number, 4)) for name in ("0.key", "0.value")}

    lead, several, one = tokens(2), tokens(70), tokens(1)
    cache = SlotCache({"context": np.zeros((2, 5)), **lead})
    cache.append(several, 60)
    cache.put(one, np.array([62, 5]))
    assert cache.used.tolist() == [63, 62] and cache.bytes == 2 * 2 * 3 * cache.capacity * 4 * 8
    for name, buffer in cache.past.items():
        first, then, new = (each[name.replace("past", "present")] for each in (lead, several, one))
        wanted = np.concatenate([first, then], axis=2)
        assert np.array_equal(buffer[0, :, :62], wanted[0, :, :62])
        assert np.array_equal(buffer[0, :, 62], new[0, :, 0])
        assert np.array_equal(buffer[1, :, 5], new[1, :, 0])
        assert np.array_equal(buffer[1, :, 6:62], wanted[1, :, 6:62])
    mask = cache.visible(2)
    assert mask.shape == (2, 1, cache.capacity + 2) and mask.sum(axis=2).tolist() == [[65], [64]]


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 8))
def test_layouts_are_pytorchs(seed, sets):
    rng = np.random.default_rng(seed)
    bank = rng.random((sets, 9)) < 0.5
    bank[0, :2] = True
    theirs_, labels = rng.integers(0, 3, sets), rng.integers(0, 3, 5)
    keep = np.where(rng.random(5) < 0.5, 0, bank.sum(axis=1)[0])
    seeds = [int(each) for each in rng.integers(0, 2**40, 5)]

    class Model:
        layout_positions, layout_labels = torch.from_numpy(bank), torch.from_numpy(theirs_)

    wanted = layout_bank.draw_layouts(Model, torch.from_numpy(labels), torch.from_numpy(keep), seeds)
    assert np.array_equal(draw_layouts(bank, theirs_, labels, keep, seeds), wanted.numpy())


def test_an_empty_bank_of_layouts():
    nothing = np.zeros((0, 9), dtype=bool), np.zeros(0, dtype=np.int64)
    with pytest.raises(UsageError, match="remembers no training image"):
        draw_layouts(*nothing, np.array([0]), np.array([0]), [1])


def test_noise_is_the_same_on_both_sides():
    seeds = [0, 7, 2**65 + 3]
    assert np.array_equal(row_uniform(seeds, 3, 2), theirs.row_noise(seeds, 3, 2).numpy())
