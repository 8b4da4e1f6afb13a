"""Accumulated passes are one larger pass, but for what the documentation names."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from mergevq.config import override
from mergevq.models.tokenizer.lfq import entropies
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.generator.run import train_generator
from mergevq.training.tokenizer.run import train_tokenizer

ADVERSARY = {"loss.adversarial": 0.8, "loss.discriminator_layers": 1, "loss.adversarial_start": 0}
TEACHER = {
    "loss.alignment": 1.0,
    "alignment.kind": "self",
    "alignment.view": 24,
    "alignment.prototypes": 16,
    "alignment.head_layers": 2,
}


def difference(train, config, cpu, folder, prefix):
    """The largest difference of a trained weight between one pass of 8 and two of 4."""
    states = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        pace = {"train.batch_size": batch_size, "train.accumulate": accumulate, "train.precision": "32"}
        out = train(override(config, pace), folder / str(accumulate), cpu)
        states.append(torch.load(out / LAST, weights_only=True)["state_dict"])
    names = [name for name in states[0] if name.startswith(prefix)]
    return max(float((states[0][name] - states[1][name]).abs().max()) for name in names)


@pytest.mark.parametrize("more", [{}, TEACHER], ids=["pixels, codes and source", "self-teacher"])
def test_without_entropy_and_adversary_passes_are_one_larger_pass(small_run, cpu, tmp_path, more, caplog):
    with caplog.at_level(logging.INFO, logger="mergevq"):
        config = override(small_run, {"loss.entropy": 0.0, **more})
        assert difference(train_tokenizer, config, cpu, tmp_path, "tokenizer.") < 1e-6
    assert "passes a step" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"loss.entropy": 0.1}, "codebook entropy"),
        ({"loss.entropy": 0.0, **ADVERSARY}, "discriminator statistics"),
        ({"loss.entropy": 0.1, **ADVERSARY}, "codebook entropy and discriminator statistics"),
    ],
)
def test_entropy_and_adversary_are_of_each_pass_and_the_log_says_so(
    small_run, cpu, tmp_path, caplog, settings, named
):
    with caplog.at_level(logging.INFO, logger="mergevq"):
        config = override(small_run, settings)
        assert difference(train_tokenizer, config, cpu, tmp_path, "tokenizer.") > 1e-5
    said = f"2 passes a step, each with its own {named}: not the same run as one pass of as many images"
    assert [record.getMessage() for record in caplog.records].count(said) == 1  # not of the one pass of 8


def test_generator_whose_draws_are_off_is_the_same(generator_run, cpu, tmp_path):
    calm = generator_run("merge_ar", **{"model.dropout": 0.0, "model.class_dropout": 0.0, "train.steps": 4})
    assert difference(train_generator, calm, cpu, tmp_path, "model.") < 1e-5


def test_entropy_of_passes_is_at_most_that_of_the_whole():
    z = torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0))
    whole = entropies(z, 0.5)
    parts = [entropies(part, 0.5) for part in z]
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, whole[0])
    assert (parts[0][1] + parts[1][1]) / 2 < whole[1]


def test_documentation_does_not_call_them_the_same():
    text = (Path(__file__).parents[3] / "docs/clusters/README.md").read_text()
    assert (
        "| **not the same run** |" in text
        and "codebook entropy H(E[p]) is that of the codes of one pass" in text
    )
