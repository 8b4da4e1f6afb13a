"""The weighted sum: which weight each term has, and how that of the source loss falls."""

from __future__ import annotations

import pytest
import torch

from mergevq.errors import ConfigError
from mergevq.training.tokenizer.config import LossConfig
from mergevq.training.tokenizer.objective import Objective, source_weight

TERMS = ("reconstruction", "commitment", "sample_entropy", "codebook_entropy", "source")


@pytest.mark.parametrize(
    ("term", "weight"),
    [
        ("reconstruction", 2.0),
        ("commitment", 3.0),
        ("sample_entropy", 5.0),
        ("codebook_entropy", -5.0),
        ("source", 7.0),
    ],
)
def test_each_term_has_its_weight(term: str, weight: float) -> None:
    config = LossConfig(perceptual=0.0, reconstruction=2.0, commitment=3.0, entropy=5.0, source=7.0)
    terms = {name: torch.tensor(float(name == term)) for name in TERMS}
    assert Objective(config).total(terms, 0.5).item() == weight


def test_the_source_weight_falls_by_equal_factors() -> None:
    config = LossConfig(source=0.08, source_end=0.005)
    weights = [source_weight(config, progress) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert weights == pytest.approx([0.08, 0.04, 0.02, 0.01, 0.005])
    assert source_weight(LossConfig(source=0.08), 0.9) == 0.08


@pytest.mark.parametrize(("source", "end"), [(0.0, 0.1), (0.1, 0.0), (0.1, -0.1)])
def test_an_end_that_no_factor_leads_to(source: float, end: float) -> None:
    with pytest.raises(ConfigError, match="source_end"):
        LossConfig(source=source, source_end=end)
