from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mergevq.bench import plots
from mergevq.errors import UsageError


def drawn(path):
    """A plot's pixels, of which some must be neither white nor grey."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2) > 60).any()
    return pixels


def test_every_plot_that_the_timings_suffice_for(timings, tmp_path):
    written = plots.draw(timings, tmp_path / "plots")
    assert [path.name for path in written] == ["latency-encode.png", "throughput-encode.png", "quality.png"]
    for path in written:
        drawn(path)


def test_a_single_point_makes_no_line(timings, altered, tmp_path):
    one_keep = altered(
        lambda results: results.update(
            benchmarks=[case for case in results["benchmarks"] if case["extra_info"]["keep"] == 144]
        )
    )
    assert [path.name for path in plots.draw(one_keep, tmp_path)] == ["throughput-encode.png", "quality.png"]


def test_a_place_without_a_panel_stays_empty(timings, altered, tmp_path):
    """Three panels, in two rows of two."""

    def thrice(results):
        results["benchmarks"] = [
            {**case, "extra_info": {**case["extra_info"], "subject": f"model {number}"}}
            for number in range(3)
            for case in results["benchmarks"]
            if case["extra_info"]["keep"] == 144
        ]

    throughput = plots.draw(altered(thrice), tmp_path)[0]
    pixels = drawn(throughput)
    height, width, _ = pixels.shape
    last = pixels[height * 11 // 20 : height * 17 // 20, width * 11 // 20 :]
    assert throughput.name == "throughput-encode.png" and (last == 255).all()


def test_contaminated_points_are_hollow(timings, altered, tmp_path):
    def clean(results):
        for case in results["benchmarks"]:
            case["extra_info"]["contaminated"] = False

    before = drawn(plots.draw(timings, tmp_path / "a")[0])
    after = drawn(plots.draw(altered(clean), tmp_path / "b")[0])
    assert before.shape != after.shape or (before != after).any()


def test_the_legend_speaks_of_hollow_points_where_there_can_be_some(timings, tmp_path, monkeypatch):
    legends = {}
    finish = plots._finish
    monkeypatch.setattr(
        plots, "_finish", lambda *given: legends.update({given[1]: list(given[2])}) or finish(*given)
    )
    plots.draw(timings, tmp_path)
    spoken = [title for title, labels in legends.items() if "hollow: contaminated" in labels]
    assert spoken == ["Latency of encoding", "Throughput of encoding"]


def test_quality_is_of_photographs_where_a_checkpoint_was_given(timings, altered, tmp_path, monkeypatch):
    labels = []
    write = plots._write
    monkeypatch.setattr(plots, "_write", lambda *given: labels.append(given[-1]) or write(*given))

    def trained(results):
        for case in results["benchmarks"]:
            if "agreement_db" in case["extra_info"]:
                case["extra_info"]["psnr_db"] = 20.0

    plots.draw(timings, tmp_path)
    plots.draw(altered(trained), tmp_path)
    assert "PyTorch in float32" in labels[2][1] and "photographs" in labels[5][1]


def test_points_of_quality_are_not_cut_off_at_the_edge():
    axes = Figure().subplots()
    case = {"runtime": "eager", "precision": "float32", "agreement_db": 100.0}
    sizes = (600, 601)  # so near each other that a margin in their terms is none
    plots._quality(axes, [{"extra_info": {**case, "model_bytes": size * 2**20}} for size in sizes], {})
    left, right = axes.get_xlim()
    assert left == 0 and right > 620


def test_nothing_to_plot_is_one_sentence(timings, altered, tmp_path):
    with pytest.raises(UsageError, match="nothing to plot"):
        plots.draw(altered(lambda results: results["benchmarks"].clear()), tmp_path)
