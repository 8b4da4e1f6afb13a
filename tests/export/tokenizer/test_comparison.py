"""The measures of verification: what they are of known inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mergevq.errors import ExportError
from mergevq.export.checking.limits import LIMITS
from mergevq.export.checking.measures import psnr, relative_difference, shared_pairs
from mergevq.export.checking.report import Check, VerifyReport, at_least, at_most, mean_at_least
from mergevq.export.checking.samples import BATCHES, picture_batches, random_tokens
from mergevq.export.tokenizer import decoder_checks, encoder_checks
from mergevq.export.tokenizer.encoder_checks import some_keeps, tokens_left


def test_shared_pairs_of_equal_partitions_are_all_whatever_their_numbers():
    first = np.array([0, 1, 0, 2, 1, 1])
    assert shared_pairs(first, first) == 1
    assert shared_pairs(first, np.array([2, 0, 2, 1, 0, 0])) == 1
    assert shared_pairs(np.arange(4), np.arange(4)) == 1  # no pairs at all


def test_shared_pairs_are_those_counted_one_by_one():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (2, 12))
    pairs = [(i, j) for i in range(12) for j in range(i)]
    ours = {pair for pair in pairs if first[pair[0]] == first[pair[1]]}
    theirs = {pair for pair in pairs if second[pair[0]] == second[pair[1]]}
    assert shared_pairs(first, second) == pytest.approx(len(ours & theirs) / len(ours | theirs))


def test_psnr_is_that_of_its_definition():
    picture = np.zeros((3, 4, 4), dtype=np.float32)
    assert psnr(picture, picture) == 100
    assert psnr(picture, picture + 0.2) == pytest.approx(20.0, abs=1e-4)  # a tenth of the range
    for broken in (np.nan, np.inf):
        assert psnr(np.full_like(picture, broken), picture) == -math.inf


def test_relative_difference():
    wanted = np.array([3.0, -4.0, -np.inf])
    assert relative_difference(wanted, wanted) == 0
    assert relative_difference(wanted + np.array([0, 0.5, 0]), wanted) == pytest.approx(0.5 / math.sqrt(12.5))
    assert relative_difference(np.array([3.0, -np.inf, -np.inf]), wanted) == np.inf
    for broken in (np.array([3.0, np.nan, -np.inf]), np.full(3, np.nan), np.full(3, -np.inf)):
        assert relative_difference(broken, broken) == np.inf


def test_limits_are_not_loosened_beyond_measure():
    limits = LIMITS["fp16"]
    for far in (1e9, math.inf, math.nan):
        own = decoder_checks._Found(*({"a": 0.0, "b": far} for _ in range(3)))
        found = decoder_checks._loosened(limits, own)
        assert found.pixel <= 10 * limits.pixel and found.logit <= 10 * limits.logit
        assert found.lost <= 10 * limits.lost
    own = encoder_checks._Found(
        partition={"a": 0.1, "b": 1.0},
        psnr={"photo": {"a": 50.0}, "noise": {"b": -math.inf}, "flat": {"c": math.nan}},
    )
    found = encoder_checks._loosened(limits, own)
    assert (found.partition, found.psnr) == (pytest.approx(0.35), 10.0) and found.flat >= 10


def test_pictures_are_compared_where_the_partition_is_the_models_or_it_is_so_nowhere():
    def found(same, others):
        pictures = {"photo": {"a": 50.0, "b": others}, "noise": {"c": others}, "flat": {"d": 40.0}}
        return encoder_checks._Found(partition={"a": same, "b": 0.9, "c": 0.8}, psnr=pictures)

    limits = LIMITS["fp16"]
    ours, settled = encoder_checks._in_half(found(1.0, 15.0), found(1.0, 20.0), limits)
    assert ours.psnr == {"photo": {"a": 50.0}, "flat": {"d": 40.0}} and settled.psnr == 44
    for same in ((0.9, 1.0), (1.0, 0.9), (0.9, 0.9)):
        turned = [found(each, 20.0) for each in same]
        ours, loosened = encoder_checks._in_half(*turned, limits)
        assert ours.psnr == turned[0].psnr and loosened.psnr == 14


def test_limits_hold_for_the_worst_sample_and_refuse_nan():
    assert at_most("g", "n", {"a": 1.0, "b": 3.0}, 2.0) == Check(
        graph="g", name="n", passed=False, value=3.0, limit=2.0, worst="b"
    )
    assert at_most("g", "n", {"a": 1.0, "b": 2.0}, 2.0).passed
    least = at_least("g", "n", {"a": 1.0, "b": 3.0}, 2.0)
    assert (least.passed, least.worst, least.value) == (False, "a", 1.0)
    mean = mean_at_least("g", "n", {"a": 1.0, "b": 3.0}, 2.0)
    assert (mean.passed, mean.value, mean.worst) == (True, 2.0, "a (1)")
    for make in (at_most, at_least, mean_at_least):
        check = make("g", "n", {"a": 1.0, "b": math.nan, "c": 3.0}, 2.0)
        assert not check.passed and check.worst.startswith("b")


def test_no_checks_are_no_success():
    report = VerifyReport(manifest="", provider="", versions={}, checks=(), seconds=0)
    assert not report.passed
    with pytest.raises(ExportError, match="nothing was checked"):
        report.raise_if_failed()


def test_pictures_are_of_every_kind_and_the_same_each_time():
    batches = picture_batches(32)
    assert [len(batch.images) for batch in batches] == [1, 3, 8]
    assert {kind for batch in batches for kind in batch.kinds} == {"photo", "noise", "flat"}
    assert [batch.kinds for batch in batches] == list(BATCHES)
    names = [name for batch in batches for name in batch.names]
    assert len(set(names)) == len(names)
    for batch, again in zip(batches, picture_batches(32), strict=True):
        assert torch.equal(batch.images, again.images)
        assert batch.images.abs().max() <= 1
        for image, kind in zip(batch.images, batch.kinds, strict=True):
            assert image.std() > 0.1 or kind == "flat"


@pytest.mark.parametrize("keep", [1, 5, 63, 64])
def test_random_tokens_are_what_an_encoder_could_give(keep):
    indices, source = random_tokens(4, keep, 64, 8, seed=keep)
    assert indices.shape == (4, keep) and indices.min() >= 0 and indices.max() < 256
    for row in source:
        starts = [int(np.argmax(row == token)) for token in range(keep)]
        assert set(row) == set(range(keep)) and starts == sorted(starts) and starts[0] == 0


def test_counts_for_an_encoder_of_any_are_odd_and_even(tiny_tokenizer):
    keeps = some_keeps(tiny_tokenizer)
    assert {keep % 2 for keep in keeps} == {0, 1}
    assert min(keeps) == 16 and max(keeps) == 64
    left = tokens_left(tiny_tokenizer, 33)
    assert left[-1] == 33 and (np.diff(np.r_[64, left]) <= 0).all()
