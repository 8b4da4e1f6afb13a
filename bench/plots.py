"""Plots of the cases that differ by run time: latency against K, images a second against batch, quality against size.

A line is a run time with a precision; bars reach from the first to the third quartile. A hollow point is of a row whose
control disagreed (see `paired`): something else than the engine may have been timed there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.errors import UsageError
from mergevq.plotting import own_settings
from mergevq.storage.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {
    "PyTorch": "#4c72b0",
    "torch.compile": "#55a868",
    "ONNX Runtime": "#c44e52",
    "TensorRT": "#8172b3",
}
_OTHER = "#777777"
_STYLES = {"float32": ("-", "o"), "bf16": ("--", "s"), "float16": (":", "^")}
_TASKS = {
    "encode": "encoding",
    "decode": "decoding",
    "roundtrip": "round trip",
    "step": "one step of generation",
    "images": "whole images",
}

Case = Mapping[str, Any]
Draw = Callable[["Axes", Sequence[Case], "dict[str, Any]"], None]


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes the plots that the timings suffice for.

    Args:
        results: as `report.read` returns them.
        folder: made where it is missing.

    Returns:
        The files written.

    Raises:
        UsageError: matplotlib is missing, or no case differs by run time.
        OutputError: a file cannot be written.
    """
    cases = [case for case in results["benchmarks"] if "runtime" in case["extra_info"]]
    if not cases:
        raise UsageError(
            "there is nothing to plot: no case of encode, decode, roundtrip, step or images was timed"
        )
    written = []
    for task, title in _TASKS.items():
        of_task = [case for case in cases if case["extra_info"]["task"] == task]
        cached = "cached tokens" if task == "step" else "kept tokens K"
        if _differ(of_task, "keep"):
            panels = _panels(of_task, "batch", "threads")
            path = folder / f"latency-{task}.png"
            written.append(_write(path, f"Latency of {title}", panels, _latency, (cached, "ms a call")))
        if _differ(of_task, "batch"):
            panels = _panels(of_task, "keep", "threads")
            path = folder / f"throughput-{task}.png"
            unit = "tokens a second" if task == "step" else "images a second"
            written.append(_write(path, f"Throughput of {title}", panels, _throughput, ("batch", unit)))
    judged = [case for case in cases if "agreement_db" in case["extra_info"]]
    if judged:
        known = all("psnr_db" in case["extra_info"] for case in judged)
        unit = "PSNR with photographs, dB" if known else "PSNR with PyTorch in float32, dB (100: equal)"
        title = "Quality of a round trip" if known else "Agreement of round trips"
        panels = _panels(judged, "keep")
        path = folder / "quality.png"
        written.append(_write(path, title, panels, _quality, ("size of the model, MiB", unit)))
    return written


def _differ(cases: Sequence[Case], name: str) -> bool:
    return len({case["extra_info"][name] for case in cases}) > 1


def _panels(cases: Sequence[Case], *names: str) -> dict[str, list[Case]]:
    """The cases of each axes: of one subject, and of one value of each of these."""
    words = {"batch": "batch {}", "keep": "K = {}", "threads": "{} threads"}
    found: dict[str, list[Case]] = {}
    for case in cases:
        extra = case["extra_info"]
        title = ", ".join([extra["subject"], *(words[name].format(extra[name]) for name in names)])
        found.setdefault(title.replace("1 threads", "1 thread"), []).append(case)
    return found


@own_settings()
def _write(
    path: Path, title: str, panels: Mapping[str, Sequence[Case]], draw_panel: Draw, labels: tuple[str, str]
) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(0.8 + 5.4 * columns, 1.2 + 3.6 * rows), dpi=120, layout="constrained")
    legend: dict[str, Any] = {}
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, cases) in zip(grid, panels.items(), strict=False):
        draw_panel(axes, cases, legend)
        axes.set_title(name, loc="left", fontsize=10)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    timed = draw_panel is not _quality
    if timed and any(case["extra_info"].get("contaminated") for cases in panels.values() for case in cases):
        legend["hollow: contaminated"] = Line2D(
            [], [], linestyle="", marker="o", color=_OTHER, markerfacecolor="white"
        )
    _finish(figure, title, legend)
    canvas = FigureCanvasAgg(figure)
    write_atomically(path, lambda temporary: canvas.print_png(str(temporary)))
    return path


def _finish(figure: Figure, title: str, legend: Mapping[str, Any]) -> None:
    figure.suptitle(title, x=0.02, ha="left", fontweight="bold")
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower left", ncols=3, frameon=False, fontsize=9
    )


def _latency(axes: Axes, cases: Sequence[Case], legend: dict[str, Any]) -> None:
    _lines(axes, cases, legend, "keep", lambda case, seconds: 1000 * seconds)


def _throughput(axes: Axes, cases: Sequence[Case], legend: dict[str, Any]) -> None:
    _lines(axes, cases, legend, "batch", lambda case, seconds: case["extra_info"]["batch"] / seconds)
    axes.set_xscale("log", base=2)
    batches = sorted({case["extra_info"]["batch"] for case in cases})
    axes.set_xticks(batches, [str(batch) for batch in batches])


def _lines(
    axes: Axes,
    cases: Sequence[Case],
    legend: dict[str, Any],
    along: str,
    value: Callable[[Case, float], float],
) -> None:
    """A line for each run time and precision, from 0 up; every point with its quartiles."""
    for label, of_line in _series(cases).items():
        of_line = sorted(of_line, key=lambda case: case["extra_info"][along])
        colour, style, marker = _look(of_line[0])
        x = [case["extra_info"][along] for case in of_line]
        y, low, high = (
            [value(case, case["stats"][name]) for case in of_line] for name in ("median", "q1", "q3")
        )
        axes.vlines(x, low, high, color=colour, linewidth=1)
        (legend[label],) = axes.plot(x, y, color=colour, linestyle=style, marker=marker, markersize=5)
        _hollow(axes, of_line, x, y, marker, colour)
    axes.set_ylim(bottom=0)


def _quality(axes: Axes, cases: Sequence[Case], legend: dict[str, Any]) -> None:
    """A point each, the later ones smaller, so that equal ones can be told."""
    for number, (label, of_line) in enumerate(_series(cases).items()):
        colour, _, marker = _look(of_line[0])
        extras = [case["extra_info"] for case in of_line]
        x = [extra["model_bytes"] / 2**20 for extra in extras]
        y = [extra.get("psnr_db", extra["agreement_db"]) for extra in extras]
        (legend[label],) = axes.plot(
            x, y, color=colour, linestyle="", marker=marker, markersize=max(12 - 2 * number, 5)
        )
    axes.set_xlim(0, 1.1 * max(case["extra_info"]["model_bytes"] for case in cases) / 2**20)


def _series(cases: Sequence[Case]) -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    for case in cases:
        extra = case["extra_info"]
        found.setdefault(f"{extra['runtime']} {extra['precision']}", []).append(case)
    return found


def _look(case: Case) -> tuple[str, str, str]:
    """Colour by run time; line and marker by precision."""
    extra = case["extra_info"]
    return _COLOURS.get(extra["runtime"], _OTHER), *_STYLES.get(extra["precision"], ("-.", "d"))


def _hollow(
    axes: Axes,
    cases: Sequence[Case],
    x: Sequence[float],
    y: Sequence[float],
    marker: str,
    colour: str,
) -> None:
    """Draws the points of contaminated rows once more, with nothing inside."""
    marked = [number for number, case in enumerate(cases) if case["extra_info"].get("contaminated")]
    if not marked:
        return
    xs, ys = [x[number] for number in marked], [y[number] for number in marked]
    axes.plot(xs, ys, linestyle="", marker=marker, markersize=6, color=colour, markerfacecolor="white")
