"""The evaluator, on a tokenizer whose every answer is known."""

from __future__ import annotations

import json
import math

import pytest
import torch

from mergevq.data.images.transforms import to_float, to_uint8
from mergevq.errors import NonFiniteError, UsageError
from mergevq.metrics.baselines import jpeg_at_bits, mean_colour
from mergevq.metrics.features.frechet import FeatureStatistics, frechet_distance
from mergevq.metrics.features.networks import FeatureNetwork
from mergevq.metrics.image import psnr, ssim
from mergevq.metrics.perceptual import PerceptualDistance
from mergevq.metrics.reconstruction import ReconstructionEvaluator
from mergevq.metrics.report import (
    JpegBaseline,
    Reconstruction,
    ReconstructionReport,
    as_json,
    as_table,
    psnr_curves,
)
from mergevq.tokens import Tokens

SIDE, GRID, LENGTH, BITS = 16, (4, 4), 16, 6


class KnownTokenizer:
    """Decodes the last batch with an offset of 64 / K levels; recovers all but the last position."""

    def __init__(self) -> None:
        self.images = torch.empty(0)

    def encode(self, images: torch.Tensor, keep: int | None = None) -> Tokens:
        assert keep is not None
        self.images, batch = images, len(images)
        source = torch.arange(LENGTH).clamp(max=keep - 1).expand(batch, -1)
        sizes = torch.ones(batch, keep, dtype=torch.int64)
        sizes[:, -1] = LENGTH - keep + 1
        return Tokens(torch.arange(keep).expand(batch, -1), source, sizes, GRID)

    def decode(self, tokens: Tokens | torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        if isinstance(tokens, Tokens):
            return self.images + 2 / 255 * 64 / tokens.keep
        assert grid == GRID
        return self.images - 2 / 255 * 96 / tokens.shape[1]

    def recover_source(self, indices: torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
        source = torch.arange(LENGTH).clamp(max=indices.shape[1] - 1).repeat(len(indices), 1)
        source[:, -1] = 0
        return source


def batches(counts: tuple[int, ...] = (3, 2)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(count, 3, SIDE, SIDE) for count in counts]
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]


def evaluate(**options: object) -> ReconstructionReport:
    arguments = {"keeps": [4, 16], "code_bits": BITS, **options}
    evaluator = ReconstructionEvaluator(KnownTokenizer(), **arguments)  # type: ignore[arg-type]
    return evaluator.run(batches())


def row_of(report: ReconstructionReport, keep: int, source: str) -> Reconstruction:
    (row,) = [row for row in report.results if (row.keep, row.source) == (keep, source)]
    return row


@pytest.mark.parametrize("keep", [4, 16])
@pytest.mark.parametrize("source", ["true", "recovered"])
def test_numbers_are_means_over_images(keep: int, source: str) -> None:
    images = torch.cat(batches())
    offset = 64 / keep if source == "true" else -96 / keep
    painted = to_uint8(to_float(images) + 2 / 255 * offset)
    row = row_of(evaluate(), keep, source)
    assert row.images == 5
    assert row.psnr == pytest.approx(float(psnr(painted, images).mean()), abs=1e-4)
    assert row.ssim == pytest.approx(float(ssim(painted, images).mean()), abs=1e-5)
    assert (row.perceptual, row.frechet) == (None, None)


def test_accuracy_usage_and_bits() -> None:
    report = evaluate()
    true, recovered, full = (
        row_of(report, 4, "true"),
        row_of(report, 4, "recovered"),
        row_of(report, 16, "true"),
    )
    assert (true.source_accuracy, recovered.source_accuracy) == (None, 15 / 16)
    assert (true.usage.distinct, true.usage.images, true.usage.tokens) == (4, 5, 20)
    assert true.usage.fraction == 4 / 2**BITS
    assert (true.code_bits, true.source_bits, true.bits) == (4 * BITS, 2 * LENGTH, 4 * BITS + 2 * LENGTH)
    assert (recovered.source_bits, recovered.bits) == (0, 4 * BITS)
    assert full.source_bits == 0  # at K = L every position is its own token


@pytest.mark.parametrize("keep", [1, 2, 3, 5, 8, 9, 15])
def test_a_source_takes_whole_bits_a_position(keep: int) -> None:
    row = row_of(evaluate(keeps=[keep], jpeg_images=0), keep, "true")
    assert row.source_bits == math.ceil(math.log2(keep)) * LENGTH


def test_networks_compare_rounded_pictures_with_the_originals() -> None:
    features = FeatureNetwork("toy", "Frechet distance on toy", lambda images: images.float().mean((2, 3)))
    distance = PerceptualDistance("toy", lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    report = evaluate(features=features, perceptual=distance, sources=["true"])
    images = torch.cat(batches())
    painted = to_uint8(to_float(images) + 2 / 255 * 16)
    one, other = FeatureStatistics(), FeatureStatistics()
    one.update(painted.float().mean((2, 3)))
    other.update(images.float().mean((2, 3)))
    row = row_of(report, 4, "true")
    assert row.frechet == pytest.approx(frechet_distance(one, other), rel=1e-6)
    expected = (to_float(painted) - to_float(images)).abs().mean()
    assert row.perceptual == pytest.approx(float(expected), rel=1e-5)
    assert report.frechet_metric == "Frechet distance on toy"
    assert "FID" not in as_table(report)


def test_baselines_are_measured_on_the_same_images() -> None:
    report = evaluate(keeps=[4, 16], code_bits=200, jpeg_images=2)
    images = torch.cat(batches())
    assert report.mean_colour_psnr == pytest.approx(float(psnr(mean_colour(images), images).mean()), abs=1e-4)
    small, large = row_of(report, 4, "recovered").jpeg, row_of(report, 16, "true").jpeg
    assert small is not None
    assert large is not None
    assert (small.images, large.images) == (2, 2)
    assert large.psnr is not None
    assert row_of(evaluate(jpeg_images=0), 4, "true").jpeg is None


def test_a_budget_too_small_for_one_image_gives_no_jpeg_figure() -> None:
    """Over the images that happen to fit, a mean would not be comparable."""
    images = torch.cat(batches())
    fits = [jpeg_at_bits(image, 16) is not None for image in images]
    assert 0 < sum(fits) < 5
    baseline = row_of(evaluate(code_bits=4), 4, "recovered").jpeg
    assert baseline == JpegBaseline(psnr=None, fits=sum(fits) / 5, images=5)


def test_batch_sizes_change_nothing_but_the_speed() -> None:
    whole = ReconstructionEvaluator(KnownTokenizer(), keeps=[4], code_bits=BITS).run([torch.cat(batches())])
    parts = ReconstructionEvaluator(KnownTokenizer(), keeps=[4], code_bits=BITS).run(
        torch.cat(batches()).split(1)
    )
    for one, other in zip(whole.results, parts.results, strict=True):
        assert one.psnr == pytest.approx(other.psnr, abs=1e-5)
        assert one.usage == other.usage
        assert min(one.images_per_second, other.images_per_second) > 0


def test_every_result_carries_its_protocol() -> None:
    report = evaluate(protocol={"data": "noise"})
    assert report.protocol["data"] == "noise"
    assert report.protocol["images"] == "5 of 16 x 16 px"
    assert {"rounding", "PSNR", "SSIM", "bits", "usage", "speed", "JPEG", "versions"} <= set(report.protocol)
    assert "JPEG" not in evaluate(jpeg_images=0).protocol


def test_the_table_is_aligned_and_leaves_empty_columns_out() -> None:
    table = as_table(evaluate(jpeg_images=0)).splitlines()
    assert len({len(line) for line in table[:5]}) == 1
    assert table[0].split()[:5] == ["tokens", "source", "bits", "PSNR", "SSIM"]
    assert "LPIPS" not in table[0]
    assert "JPEG" not in table[0]
    assert table[1].split()[:2] == ["4", "true"]
    assert table[5].startswith("mean colour")


def test_json_is_plain_and_complete() -> None:
    report = evaluate()
    values = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert [(row["keep"], row["source"], row["bits"]) for row in values["results"]] == [
        (row.keep, row.source, row.bits) for row in report.results
    ]
    assert values["results"][0]["usage"]["images"] == 5
    assert values["protocol"] == report.protocol


def test_curves_run_over_the_kept_tokens() -> None:
    report = evaluate(keeps=[16, 4], code_bits=200)
    curves = psnr_curves(report)
    assert [x for x, _ in curves["true source"]] == [4, 16]
    assert curves["recovered source"][1] == (16, row_of(report, 16, "recovered").psnr)
    assert curves["JPEG at equal bits"][-1][0] == 16


def test_small_pictures_have_no_ssim() -> None:
    evaluator = ReconstructionEvaluator(KnownTokenizer(), keeps=[4], code_bits=BITS, jpeg_images=0)
    report = evaluator.run([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
    assert [row.ssim for row in report.results] == [None, None]


def test_unusable_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'recovered'"):
        evaluate(sources=["recoverd"])
    with pytest.raises(UsageError, match="one number of kept tokens"):
        evaluate(keeps=[])
    evaluator = ReconstructionEvaluator(KnownTokenizer(), keeps=[4], code_bits=BITS)
    with pytest.raises(UsageError, match="no images"):
        evaluator.compute()
    evaluator.update(batches()[0])
    with pytest.raises(UsageError, match="one size at a time"):
        evaluator.update(torch.zeros(1, 3, 20, 16, dtype=torch.uint8))


def test_a_broken_reconstruction_is_never_averaged() -> None:
    class Broken(KnownTokenizer):
        def decode(self, tokens: Tokens | torch.Tensor, grid: tuple[int, int] | None = None) -> torch.Tensor:
            return self.images * float("nan")

    evaluator = ReconstructionEvaluator(Broken(), keeps=[4], code_bits=BITS)
    with pytest.raises(NonFiniteError, match="4 tokens"):
        evaluator.update(batches()[0])
