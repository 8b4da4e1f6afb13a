"""The result of evaluating reconstructions, and how it is written down: a table, JSON, curves.

Numbers and the protocol that they were measured under travel together, as no figure of this kind can be
compared without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from mergevq.metrics.codebook import Usage

Source = Literal["true", "recovered"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegBaseline:
    """JPEG with as many bits an image as the tokens of a row."""

    psnr: float | None
    """Mean PSNR; None where some image has no JPEG within the budget."""
    fits: float
    """Share of the images that have a JPEG within the budget."""
    images: int
    """Images compressed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconstruction:
    """The quality at one number of kept tokens, decoded from one kind of source."""

    keep: int
    """K, tokens an image."""
    source: Source
    """Whether the source map came from the encoder or was recovered from the codes."""
    images: int
    """Images that every mean is taken over."""
    psnr: float
    """Decibels, the mean over images."""
    ssim: float | None
    """The mean over images; None for pictures smaller than its window."""
    perceptual: float | None
    """The perceptual distance, if one was asked for; the mean over images."""
    frechet: float | None
    """The Frechet distance to the originals, if a feature network was given."""
    source_accuracy: float | None
    """Share of the positions whose recovered source is the true one; None for the true source."""
    usage: Usage
    """Codes used at this K."""
    code_bits: int
    """K * d bits an image."""
    source_bits: int
    """Bits an image for the source map, sent raw; 0 where it is recovered or nothing was merged."""
    images_per_second: float
    """Encoding and decoding."""
    jpeg: JpegBaseline | None
    """JPEG at equal bits, if it was asked for."""

    @property
    def bits(self) -> int:
        """All bits an image."""
        return self.code_bits + self.source_bits


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionReport:
    """Every row of an evaluation."""

    results: tuple[Reconstruction, ...]
    """By K in the order asked for, then by source."""
    mean_colour_psnr: float
    """Decibels of painting each image in its mean colour."""
    frechet_metric: str | None
    """What the Frechet distance may be called: FID, or a distance on another network."""
    protocol: dict[str, str]
    """How the numbers were measured."""


def as_json(report: ReconstructionReport) -> dict[str, Any]:
    """The report as plain JSON values."""
    values = dataclasses.asdict(report)
    values["results"] = [{**dataclasses.asdict(result), "bits": result.bits} for result in report.results]
    return values


def psnr_curves(report: ReconstructionReport) -> dict[str, list[tuple[float, float]]]:
    """PSNR against K, sorted by K: one curve a source, and JPEG at the bits of the first source."""
    curves: dict[str, list[tuple[float, float]]] = {}
    rows = sorted(report.results, key=lambda row: row.keep)
    for row in rows:
        curves.setdefault(f"{row.source} source", []).append((row.keep, row.psnr))
    for row in rows:
        if row.source == report.results[0].source and row.jpeg is not None and row.jpeg.psnr is not None:
            curves.setdefault("JPEG at equal bits", []).append((row.keep, row.jpeg.psnr))
    return curves


def as_table(report: ReconstructionReport) -> str:
    """Aligned text: a line a result, the baseline, the protocol; columns without a value are left out."""
    rows = [[_cell(value(row), form) for _, form, value in _columns(report)] for row in report.results]
    heads = [head for head, _, _ in _columns(report)]
    filled = [i for i in range(len(heads)) if any(row[i] != "-" for row in rows)]
    lines = _align([[line[i] for i in filled] for line in [heads, *rows]])
    lines.append(f"mean colour of each image: PSNR {report.mean_colour_psnr:.2f} dB")
    lines.append("")
    lines += _align_left(report.protocol)
    return "\n".join(lines)


_Column = tuple[str, str, Callable[[Reconstruction], Any]]


def _columns(report: ReconstructionReport) -> list[_Column]:
    """Heading, format and value of each column."""
    frechet = report.frechet_metric or "Frechet"
    return [
        ("tokens", "d", lambda row: row.keep),
        ("source", "s", lambda row: row.source),
        ("bits", "d", lambda row: row.bits),
        ("PSNR", ".2f", lambda row: row.psnr),
        ("SSIM", ".4f", lambda row: row.ssim),
        ("LPIPS", ".4f", lambda row: row.perceptual),
        ("rFID" if frechet == "FID" else frechet, ".3f", lambda row: row.frechet),
        ("source accuracy", ".1%", lambda row: row.source_accuracy),
        ("codes used", "d", lambda row: row.usage.distinct),
        ("usage", ".2%", lambda row: row.usage.fraction),
        ("perplexity", ".1f", lambda row: row.usage.perplexity),
        ("images", "d", lambda row: row.usage.images),
        ("img/s", ".1f", lambda row: row.images_per_second),
        ("JPEG PSNR", ".2f", lambda row: row.jpeg and row.jpeg.psnr),
        ("JPEG fits", ".1%", lambda row: row.jpeg and row.jpeg.fits),
    ]


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def _align(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _align_left(values: dict[str, str]) -> list[str]:
    width = max((len(name) for name in values), default=0)
    return [f"{name.ljust(width)}  {value}" for name, value in values.items()]
