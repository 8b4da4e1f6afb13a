"""The evaluator of generated pictures: its numbers, its names, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from mergevq.errors import UsageError
from mergevq.metrics.features.class_score import class_score
from mergevq.metrics.features.frechet import FeatureStatistics, frechet_distance
from mergevq.metrics.features.judge import JudgingNetwork
from mergevq.metrics.features.precision_recall import precision_recall
from mergevq.metrics.features.statistics import FeatureSet
from mergevq.metrics.generation import GenerationEvaluator, as_json, as_table


def tiny_judge(classes: tuple[str, ...] = ("red", "green", "blue"), **names: str) -> JudgingNetwork:
    """Features are the mean colour and its square, classes the three colours."""

    def extract(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        colour = images.float().mean((2, 3)) / 255
        return torch.cat([colour, colour**2], 1), 4 * colour

    settings = {"name": "colours", "frechet": "Frechet distance (c)", "score": "class score (c)", **names}
    return JudgingNetwork(**settings, digest="00", classes=classes, extract=extract)


def pictures(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 1, 1), generator=generator, dtype=torch.uint8).expand(
        -1, -1, 4, 4
    )


def reference(judge: JudgingNetwork, count: int = 40) -> FeatureSet:
    found = FeatureSet(count)
    found.update(judge(pictures(count, 1))[0])
    return found


def evaluator(judge: JudgingNetwork, expected: int = 30, **settings: Any) -> GenerationEvaluator:
    return GenerationEvaluator(judge, reference(judge), expected=expected, **settings)


def test_numbers_are_those_of_all_pictures_at_once() -> None:
    judge = tiny_judge()
    gathering, images = evaluator(judge, protocol={"generator": "dice"}), pictures(30, 2)
    for number, part in enumerate(images.split(8)):
        gathering.update(part, seconds=10.0 if number == 0 else 0.5 * len(part))
    report = gathering.compute()
    features, logits = judge(images)
    everything = FeatureStatistics()
    everything.update(features)
    assert report.frechet == pytest.approx(
        frechet_distance(everything, gathering.reference.statistics), rel=1e-9
    )
    assert (report.precision, report.recall) == precision_recall(features, gathering.reference.sample)
    assert (report.score, report.score_deviation) == pytest.approx(class_score(logits))
    assert (report.images, report.references) == (30, 40)
    assert report.seconds_per_image == pytest.approx(0.5)  # the first batch does not count
    assert report.class_consistency is None and report.consistency_by_class == {}
    assert report.protocol["generator"] == "dice" and report.protocol["network"] == "colours"


def test_class_consistency_counts_each_class() -> None:
    gathering = evaluator(tiny_judge(), expected=6)
    pure = torch.zeros(6, 3, 4, 4, dtype=torch.uint8)
    for row, colour in enumerate((0, 0, 0, 0, 1, 1)):
        pure[row, colour] = 200 + row
    gathering.update(pure[:3], torch.tensor([0, 0, 1]))
    gathering.update(pure[3:], torch.tensor([1, 1, 1]))
    report = gathering.compute()
    assert report.class_consistency == pytest.approx(4 / 6)
    assert report.consistency_by_class == {"red": 1.0, "green": 0.5}
    assert "class consistency     66.67%" in as_table(report)


def test_names_are_those_of_the_network() -> None:
    for names in ({}, {"frechet": "FID", "score": "IS"}):
        judge = tiny_judge((), **names)
        gathering = evaluator(judge)
        gathering.update(pictures(30, 3), seconds=3.0)
        table = as_table(gathering.compute())
        assert table.splitlines()[0].startswith(names.get("frechet", "Frechet distance (c)") + " ")
        assert table.splitlines()[1].startswith(names.get("score", "class score (c)") + " ")
        assert ("FID" in table) == bool(names) and "time per image" in table and "100 ms" in table
        assert "class consistency" not in table


def test_json_holds_numbers_and_protocol() -> None:
    gathering = evaluator(tiny_judge())
    gathering.update(pictures(30, 3), torch.zeros(30, dtype=torch.int64))
    report = gathering.compute()
    values = json.loads(json.dumps(as_json(report)))
    assert values["frechet"] == report.frechet and values["protocol"] == report.protocol
    assert values["protocol"]["samples"] == "30 generated against 40 reference pictures"


def test_a_set_smaller_than_the_features_says_so() -> None:
    for count, biased in ((6, True), (7, False)):
        gathering = evaluator(tiny_judge(), expected=count)
        gathering.update(pictures(count, 4))
        assert ("biased upwards" in gathering.compute().protocol["Frechet distance (c)"]) == biased


def test_what_cannot_be_evaluated() -> None:
    judge = tiny_judge()
    with pytest.raises(UsageError, match="1 generated picture cannot be evaluated; at least 4"):
        evaluator(judge, expected=1)
    with pytest.raises(UsageError, match="3 reference pictures cannot"):
        GenerationEvaluator(judge, reference(judge, 3), expected=9)
    gathering = evaluator(judge)
    with pytest.raises(UsageError, match="0 generated pictures cannot"):
        gathering.compute()
    with pytest.raises(UsageError, match="must be uint8"):
        gathering.update(torch.zeros(1, 3, 4, 4))
    for wrong in (3, -1):
        with pytest.raises(UsageError, match=f"classes run from {wrong} to {wrong}; the network knows 3"):
            gathering.update(pictures(1, 0), torch.tensor([wrong]))
