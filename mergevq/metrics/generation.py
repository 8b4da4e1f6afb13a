"""Evaluation of generated pictures against a reference set, and how the result is written down.

A judging network, the reference's features and uint8 batches in, a `GenerationReport` out. Every number is
over the 8-bit pictures that a user would save. The Frechet distance and the class score have the names that
the network allows; precision, recall and class consistency are over the same network.

Legend: B batch, C classes of the network.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import PIL
import torch

from mergevq.errors import UsageError
from mergevq.metrics.features.class_score import SPLITS, class_score
from mergevq.metrics.features.frechet import frechet_distance
from mergevq.metrics.features.judge import JudgingNetwork
from mergevq.metrics.features.precision_recall import NEIGHBOURS, precision_recall
from mergevq.metrics.features.statistics import FeatureSet

FEWEST = NEIGHBOURS + 1
"""Pictures that each side needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationReport:
    """How a set of generated pictures compares with a set of real ones."""

    frechet_metric: str
    """What the Frechet distance may be called."""
    frechet: float
    """Over all pictures of both sets; lower is better."""
    score_metric: str
    """What the class score may be called."""
    score: float
    """Mean over splits, between 1 and C; higher is better."""
    score_deviation: float
    """Standard deviation over the splits."""
    precision: float
    """Share of the generated pictures within the real manifold."""
    recall: float
    """Share of the real pictures within the generated manifold."""
    class_consistency: float | None
    """Share of the generated pictures that the network gives the class asked for, where it knows the classes."""
    consistency_by_class: dict[str, float]
    """The same for the pictures of each class."""
    seconds_per_image: float | None
    """Generating, without the first of several batches; None for pictures that were there already."""
    images: int
    """Generated pictures."""
    references: int
    """Real pictures."""
    protocol: dict[str, str]
    """How the numbers were measured."""


class GenerationEvaluator:
    """Gathers what a `GenerationReport` says; `update` with batches, then `compute`.

    Args:
        judge: the network, on the device where the pictures will be.
        reference: its features of the real pictures.
        expected: how many pictures there will be.
        protocol: what the caller knows: generator, settings, rounding, reference, crop.

    Raises:
        UsageError: there are too few real pictures, or too few are expected.
    """

    def __init__(
        self,
        judge: JudgingNetwork,
        reference: FeatureSet,
        *,
        expected: int,
        protocol: Mapping[str, str] | None = None,
    ) -> None:
        _check_count("generated", expected)
        _check_count("reference", len(reference))
        self.judge = judge
        self.reference = reference
        self.protocol = dict(protocol or {})
        self._features = FeatureSet(expected)
        self._logits: list[torch.Tensor] = []
        self._asked = torch.zeros(len(judge.classes), dtype=torch.int64)  # (C,)
        self._right = torch.zeros(len(judge.classes), dtype=torch.int64)  # (C,)
        self._laps: list[tuple[int, float]] = []

    def update(
        self, images: torch.Tensor, labels: torch.Tensor | None = None, seconds: float | None = None
    ) -> None:
        """Judge a batch.

        Args:
            images: (B, 3, H, W) uint8.
            labels: (B,) the classes asked for, as positions in the network's `classes`; None: unknown.
            seconds: what generating the batch took.

        Raises:
            UsageError: the pictures are not uint8, or a class is out of range.
        """
        if images.dtype != torch.uint8:
            raise UsageError(f"pictures must be uint8, not {images.dtype}; round and clamp them first")
        features, logits = self.judge(images)
        self._features.update(features)
        self._logits.append(logits.float().cpu())
        if labels is not None:
            self._count(labels.cpu(), self._logits[-1].argmax(1))
        if seconds is not None:
            self._laps.append((len(images), seconds))

    def _count(self, asked: torch.Tensor, found: torch.Tensor) -> None:
        classes = len(self.judge.classes)
        if len(asked) and not 0 <= int(asked.min()) <= int(asked.max()) < classes:
            raise UsageError(
                f"classes run from {int(asked.min())} to {int(asked.max())}; the network knows {classes}"
            )
        self._asked += asked.bincount(minlength=classes)
        self._right += asked[asked == found].bincount(minlength=classes)

    def compute(self) -> GenerationReport:
        """The report over everything seen.

        Raises:
            UsageError: too few pictures were seen.
        """
        generated, reference = self._features, self.reference
        _check_count("generated", len(generated))
        precision, recall = precision_recall(generated.sample, reference.sample)
        score, deviation = class_score(torch.cat(self._logits))
        by_class = {
            name: right / asked
            for name, asked, right in zip(
                self.judge.classes, self._asked.tolist(), self._right.tolist(), strict=True
            )
            if asked
        }
        return GenerationReport(
            frechet_metric=self.judge.frechet,
            frechet=frechet_distance(generated.statistics, reference.statistics),
            score_metric=self.judge.score,
            score=score,
            score_deviation=deviation,
            precision=precision,
            recall=recall,
            class_consistency=int(self._right.sum()) / int(self._asked.sum()) if by_class else None,
            consistency_by_class=by_class,
            seconds_per_image=self._seconds_per_image(),
            images=len(generated),
            references=len(reference),
            protocol={**self.protocol, **self._measured()},
        )

    def _seconds_per_image(self) -> float | None:
        """The first batch pays for allocation and compilation, so it counts only where it is alone."""
        laps = self._laps[1:] or self._laps
        return sum(seconds for _, seconds in laps) / sum(count for count, _ in laps) if laps else None

    def _measured(self) -> dict[str, str]:
        """The part of the protocol that is decided here."""
        generated, reference, width = self._features, self.reference, self.reference.sample.shape[1]
        few = min(len(generated), len(reference)) <= width
        lines = {
            "network": self.judge.name,
            "samples": f"{len(generated)} generated against {len(reference)} reference pictures",
            self.judge.frechet: f"mean and covariance of {width} features, float64"
            + ("; biased upwards, as a set has fewer pictures than features" if few else ""),
            self.judge.score: f"{min(SPLITS, len(generated))} splits after a fixed shuffle, "
            "mean and population standard deviation",
            "precision, recall": f"k = {NEIGHBOURS} neighbours, the same features, {len(generated.sample)} "
            f"generated and {len(reference.sample)} reference pictures",
        }
        if int(self._asked.sum()):
            lines["class consistency"] = "share of the generated pictures that the network gives their class"
        lines["versions"] = f"torch {torch.__version__}, Pillow {PIL.__version__}"
        return lines


def _check_count(kind: str, count: int) -> None:
    if count < FEWEST:
        raise UsageError(
            f"{count} {kind} picture{'' if count == 1 else 's'} cannot be evaluated; "
            f"at least {FEWEST} are wanted, thousands for a figure that means something"
        )


def as_json(report: GenerationReport) -> dict[str, Any]:
    """The report as plain JSON values."""
    return dataclasses.asdict(report)


def as_table(report: GenerationReport) -> str:
    """Aligned text: a line a number, then the protocol."""
    numbers = {
        report.frechet_metric: f"{report.frechet:.3f}",
        report.score_metric: f"{report.score:.3f} +- {report.score_deviation:.3f}",
        "precision": f"{report.precision:.4f}",
        "recall": f"{report.recall:.4f}",
    }
    if report.class_consistency is not None:
        numbers["class consistency"] = f"{report.class_consistency:.2%}"
    if report.seconds_per_image is not None:
        numbers["time per image"] = _duration(report.seconds_per_image)
    return "\n".join([*_aligned(numbers), "", *_aligned(report.protocol)])


def _duration(seconds: float) -> str:
    """Three significant digits, in seconds or milliseconds."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    milliseconds = 1000 * seconds
    return f"{milliseconds:.{max(0, 2 - math.floor(math.log10(max(milliseconds, 0.01))))}f} ms"


def _aligned(values: Mapping[str, str]) -> list[str]:
    width = max(map(len, values))
    return [f"{name.ljust(width)}  {value}" for name, value in values.items()]
