"""Evaluation of a tokenizer's reconstructions at several numbers of kept tokens.

A tokenizer and uint8 batches in, a `ReconstructionReport` out, in one pass over the data. Each batch is
encoded at every K and decoded from the true and from the recovered source; every comparison is made on
pictures rounded to 8 bits, one image at a time.

Legend: B batch, L positions, K kept tokens, d code bits.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, get_args

import PIL
import torch

from mergevq.data.images.transforms import to_float, to_uint8
from mergevq.errors import NonFiniteError, UsageError, unknown_name
from mergevq.metrics.baselines import jpegs_at_bits, mean_colour
from mergevq.metrics.codebook import CodebookUsage
from mergevq.metrics.features.frechet import FeatureStatistics, frechet_distance
from mergevq.metrics.features.networks import FeatureNetwork
from mergevq.metrics.image import PSNR_CAP, WINDOW, psnr, ssim
from mergevq.metrics.perceptual import PerceptualDistance
from mergevq.metrics.report import JpegBaseline, Reconstruction, ReconstructionReport, Source
from mergevq.tokens import Tokens

SOURCES: tuple[Source, ...] = get_args(Source)

ResultT = TypeVar("ResultT")


class TokenizerLike(Protocol):
    """What is evaluated."""

    def encode(self, images: torch.Tensor, keep: int | None = None) -> Tokens:
        """(B, 3, H, W) float in [-1, 1] to K tokens an image."""

    def decode(self, tokens: Tokens | torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """Tokens with their source, or (B, K) indices alone, to (B, 3, H, W) in [-1, 1]."""

    def recover_source(self, indices: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        """(B, K) indices to the (B, L) source that `decode` would use for them."""


@dataclass(slots=True)
class _Row:
    """Sums over the images seen, for one K and one source."""

    psnr: float = 0.0
    ssim: float = 0.0
    perceptual: float = 0.0
    correct: int = 0
    positions: int = 0
    jpegs: list[float | None] = field(default_factory=list)
    laps: list[tuple[int, float]] = field(default_factory=list)
    features: FeatureStatistics = field(default_factory=FeatureStatistics)

    @property
    def images_per_second(self) -> float:
        """The first batch pays for allocation and compilation, so it counts only where it is alone."""
        laps = self.laps[1:] or self.laps
        return sum(images for images, _ in laps) / max(sum(seconds for _, seconds in laps), 1e-9)

    @property
    def jpeg(self) -> JpegBaseline | None:
        """The baseline's summary."""
        if not self.jpegs:
            return None
        fits = [value for value in self.jpegs if value is not None]
        total = len(self.jpegs)
        mean = sum(fits) / total if len(fits) == total else None
        return JpegBaseline(psnr=mean, fits=len(fits) / total, images=total)


class ReconstructionEvaluator:
    """Gathers what a `ReconstructionReport` says; `update` with batches, then `compute`.

    Args:
        tokenizer: what is evaluated, in evaluation mode.
        keeps: the numbers of kept tokens.
        code_bits: d of the tokenizer.
        sources: decode from the true source, the recovered one, or both.
        perceptual: a perceptual distance, or none.
        features: a network for the Frechet distance, or none.
        jpeg_images: compress at most so many of the first images as a baseline; None: all, 0: none.
        device: where the tokenizer and the networks are.
        protocol: what the caller knows of the data: name, split, crop.

    Raises:
        UsageError: no K or no source is given, or a source is unknown.
    """

    def __init__(
        self,
        tokenizer: TokenizerLike,
        *,
        keeps: Sequence[int],
        code_bits: int,
        sources: Sequence[Source] = SOURCES,
        perceptual: PerceptualDistance | None = None,
        features: FeatureNetwork | None = None,
        jpeg_images: int | None = None,
        device: torch.device | str = "cpu",
        protocol: Mapping[str, str] | None = None,
    ) -> None:
        if not keeps or not sources:
            raise UsageError("an evaluation needs one number of kept tokens and one source at least")
        for source in sources:
            if source not in SOURCES:
                raise UsageError(unknown_name("source", source, SOURCES))
        self.tokenizer = tokenizer
        self.code_bits = code_bits
        self.perceptual = perceptual
        self.features = features
        self.jpeg_images = jpeg_images
        self.device = torch.device(device)
        self.protocol = dict(protocol or {})
        self._usage = {keep: CodebookUsage(code_bits) for keep in keeps}
        self._rows: dict[tuple[int, Source], _Row] = {
            (keep, source): _Row() for keep, source in itertools.product(self._usage, dict.fromkeys(sources))
        }
        self._originals = FeatureStatistics()
        self._mean_colour = 0.0
        self._images = 0
        self._length = 0  # L
        self._size = (0, 0)

    def run(self, batches: Iterable[torch.Tensor]) -> ReconstructionReport:
        """The report over all of an iterable of uint8 batches."""
        for images in batches:
            self.update(images)
        return self.compute()

    @torch.inference_mode()
    def update(self, images: torch.Tensor) -> None:
        """Evaluate a batch.

        Args:
            images: (B, 3, H, W) uint8, of one size throughout.

        Raises:
            UsageError: the size changed, or the tokenizer cannot encode it at one of the numbers.
            NonFiniteError: a reconstruction holds NaN or infinity.
        """
        images = images.to(self.device)
        size = (images.shape[-2], images.shape[-1])
        if self._images and size != self._size:
            raise UsageError(
                f"pictures are {size} after pictures of {self._size}; evaluate one size at a time"
            )
        self._size = size
        for keep, usage in self._usage.items():
            tokens, seconds = self._timed(lambda: self.tokenizer.encode(to_float(images), keep))  # noqa: B023
            usage.update(tokens.indices)
            self._length = tokens.source.shape[1]
            for (row_keep, source), row in self._rows.items():
                if row_keep == keep:
                    self._decode(images, tokens, source, row, seconds)
        self._baselines(images)
        self._images += images.shape[0]

    def _decode(
        self, images: torch.Tensor, tokens: Tokens, source: Source, row: _Row, encoding: float
    ) -> None:
        """Reconstruct a batch from one kind of source and add up how close it came."""
        decode = self.tokenizer.decode
        if source == "true":
            painted, seconds = self._timed(lambda: decode(tokens))
        else:
            painted, seconds = self._timed(lambda: decode(tokens.indices, tokens.grid))
            recovered = self.tokenizer.recover_source(tokens.indices, tokens.grid)
            row.correct += int((recovered == tokens.source).sum())
            row.positions += recovered.numel()
        row.laps.append((images.shape[0], encoding + seconds))
        if not bool(torch.isfinite(painted).all()):
            raise NonFiniteError(
                f"reconstructions at {tokens.keep} tokens ({source} source) hold NaN or infinity; "
                "check the weights"
            )
        self._compare(to_uint8(painted), images, row)

    def _compare(self, painted: torch.Tensor, images: torch.Tensor, row: _Row) -> None:
        row.psnr += float(psnr(painted, images).sum())
        if min(self._size) >= WINDOW:
            row.ssim += float(ssim(painted, images).sum())
        if self.perceptual is not None:
            row.perceptual += float(self.perceptual(painted, images).sum())
        if self.features is not None:
            row.features.update(self.features(painted))

    def _baselines(self, images: torch.Tensor) -> None:
        self._mean_colour += float(psnr(mean_colour(images), images).sum())
        if self.features is not None:
            self._originals.update(self.features(images))
        wanted = images.shape[0] if self.jpeg_images is None else max(self.jpeg_images - self._images, 0)
        budgets = [self._code_bits(keep) + self._source_bits(keep, source) for keep, source in self._rows]
        for image in images[:wanted].cpu():
            for row, jpeg in zip(self._rows.values(), jpegs_at_bits(image, budgets), strict=True):
                row.jpegs.append(None if jpeg is None else jpeg.psnr)

    def compute(self) -> ReconstructionReport:
        """The report over everything seen.

        Raises:
            UsageError: no images were seen.
        """
        if not self._images:
            raise UsageError("no images were evaluated; the data set is empty")
        return ReconstructionReport(
            results=tuple(self._result(keep, source, row) for (keep, source), row in self._rows.items()),
            mean_colour_psnr=self._mean_colour / self._images,
            frechet_metric=self.features.metric if self.features is not None else None,
            protocol={**self.protocol, **self._measured()},
        )

    def _result(self, keep: int, source: Source, row: _Row) -> Reconstruction:
        images = self._images
        return Reconstruction(
            keep=keep,
            source=source,
            images=images,
            psnr=row.psnr / images,
            ssim=row.ssim / images if min(self._size) >= WINDOW else None,
            perceptual=row.perceptual / images if self.perceptual is not None else None,
            frechet=frechet_distance(row.features, self._originals) if self.features is not None else None,
            source_accuracy=row.correct / row.positions if row.positions else None,
            usage=self._usage[keep].compute(),
            code_bits=self._code_bits(keep),
            source_bits=self._source_bits(keep, source),
            images_per_second=row.images_per_second,
            jpeg=row.jpeg,
        )

    def _code_bits(self, keep: int) -> int:
        return keep * self.code_bits

    def _source_bits(self, keep: int, source: Source) -> int:
        """ceil(log2 K) bits a position; none where the map is recovered or, at K = L, known."""
        if source == "recovered" or keep == self._length:
            return 0
        return (keep - 1).bit_length() * self._length

    def _timed(self, step: Callable[[], ResultT]) -> tuple[ResultT, float]:
        """The result of a step and the seconds until its device had finished."""
        self._wait()
        start = time.perf_counter()
        result = step()
        self._wait()
        return result, time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def _measured(self) -> dict[str, str]:
        """The part of the protocol that is decided here."""
        lines = {
            "images": f"{self._images} of {self._size[0]} x {self._size[1]} px",
            "rounding": "reconstructions rounded to the nearest of 256 levels and clamped",
            "PSNR": f"per image over pixels and RGB, peak 255, at most {PSNR_CAP:.0f} dB, then averaged",
            "SSIM": "per image over RGB, Gaussian 11 x 11 window, sigma 1.5, whole windows, then averaged",
            "bits": f"{self.code_bits} a token; a true source adds ceil(log2 K) a position (0 at K = L)",
            "usage": "distinct codes over 2^d at each K; grows with the number of images",
            "speed": f"encode and decode on {self.device.type}, without the first of several batches",
            "versions": f"torch {torch.__version__}, Pillow {PIL.__version__}",
        }
        if self.perceptual is not None:
            lines["LPIPS"] = self.perceptual.name
        if self.features is not None:
            lines[self.features.metric] = f"{self.features.name}; against the {self._images} originals"
        if self.jpeg_images != 0:
            count = self._images if self.jpeg_images is None else min(self.jpeg_images, self._images)
            lines["JPEG"] = (
                f"first {count} images; best of 4:4:4 and 4:2:0, optimised; the budget is held against the "
                "entropy-coded scan alone, without headers and tables"
            )
        return lines
