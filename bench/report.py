"""pytest-benchmark's JSON to Markdown: one table a group, rows and columns as the timings named them.

    python -m mergevq.bench.report timings.json --markdown docs/results/timings.md

A cell holds the median of a call, its quartiles, and whatever else was recorded: images a second,
memory, the share of the encoder. The machine that the timings are from stands above the tables.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mergevq.bench.timings import are_timings
from mergevq.errors import MergeVQError, UsageError
from mergevq.storage.documents import DocumentError, read_json
from mergevq.storage.files import write_atomically

_LEGEND = (
    "Each cell: the median time of a call in milliseconds, its quartiles in brackets, "
    "then what else was measured. A dash: not run."
)
_PAIRED = (
    "× as fast: the median ratio to PyTorch in float32, whose calls were timed before and after, in turn. "
    "Contaminated: both were timed alone too, and that ratio differs by more than 15 %."
)
_NONE = "–"

CONTAMINATED = "contaminated"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report of a file to a file or to the standard output; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mergevq.bench.report",
        description="Turns what pytest-benchmark recorded into Markdown tables.",
    )
    parser.add_argument("json", type=Path, help="what pytest wrote with --benchmark-json")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="where to write; standard output if left out"
    )
    options = parser.parse_args(arguments)
    try:
        text = markdown(read(options.json))
        if options.markdown is None:
            sys.stdout.write(text)
        else:
            write(options.markdown, text)
    except MergeVQError as error:
        sys.stderr.write(f"mergevq.bench.report: error: {error}\n")
        return error.exit_code
    return 0


def read(path: Path) -> dict[str, Any]:
    """The content of a file of pytest-benchmark.

    Raises:
        UsageError: it cannot be read, is not JSON, or is not pytest-benchmark's.
    """
    try:
        values = read_json(path)
    except DocumentError as error:
        raise UsageError(f"cannot read {path}: {error}; give what --benchmark-json wrote") from error
    if not isinstance(values, dict) or not {"benchmarks", "machine_info"} <= values.keys():
        raise UsageError(f"{path} holds no timings of pytest-benchmark; give what --benchmark-json wrote")
    if not are_timings(values):
        raise UsageError(
            f"{path} holds values that no timing has; give what --benchmark-json wrote, as it was"
        )
    return values


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report.

    Args:
        results: as `read` returns them; timings without a row and a column are left out.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for case in results["benchmarks"]:
        if {"row", "column"} <= case["extra_info"].keys():
            groups.setdefault(case["group"], []).append(case)
    parts = [_machine(results), _LEGEND]
    if any("ratio" in case["extra_info"] for case in results["benchmarks"]):
        parts.append(_PAIRED)
    for group, cases in groups.items():
        parts += [f"### {group[0].upper()}{group[1:]}", "\n".join(_table(cases))]
    if results.get("skipped"):
        parts += ["### Not timed", "\n".join(_skipped(results["skipped"]))]
    return "\n\n".join(parts) + "\n"


def _skipped(reasons: Mapping[str, str]) -> Iterator[str]:
    """Each reason once, with the number of cases."""
    for reason, number in Counter(reasons.values()).items():
        yield f"- {number} case{'' if number == 1 else 's'}: {reason}"


def _machine(results: Mapping[str, Any]) -> str:
    """One paragraph on where and when the timings were taken."""
    machine = results["machine_info"]
    ours = machine.get("mergevq", {})
    load = ours.get("load_average")
    facts = [
        machine.get("cpu", {}).get("brand_raw"),
        f"{ours['cores']} cores" if "cores" in ours else None,
        f"device {ours['device']}" if "device" in ours else None,
        *(f"{name} {value}" for name, value in ours.get("capabilities", {}).items()),
        f"PyTorch {ours['torch']}" if "torch" in ours else None,
        *(f"{name} {value}" for name, value in ours.get("versions", {}).items()),
        f"Python {machine.get('python_version', 'unknown')}",
        f"load {load[0]:.1f} at the end" if load else None,
        results.get("datetime", "")[:10] or None,
    ]
    return f"Measured on: {', '.join(fact for fact in facts if fact)}."


def _table(cases: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a table, rows and columns in the order in which they were timed."""
    rows = list(dict.fromkeys(case["extra_info"]["row"] for case in cases))
    columns = list(dict.fromkeys(case["extra_info"]["column"] for case in cases))
    cells = {(case["extra_info"]["row"], case["extra_info"]["column"]): _cell(case) for case in cases}
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {row} | {' | '.join(cells.get((row, column), _NONE) for column in columns)} |"


_FACTS: dict[str, Callable[[float, float], str]] = {
    "images": lambda images, seconds: f"{significant(images / seconds)} img/s",
    "share": lambda share, _: f"{share:.1%} of the encoder",
    "peak_bytes": lambda peak, _: f"{significant(peak / 2**20)} MiB",
    "cache_bytes": lambda cache, _: f"cache {significant(cache / 2**20)} MiB",
    "ratio": lambda ratio, _: f"{significant(ratio)} × as fast",
    "agreement_db": lambda decibels, _: f"agreement {significant(decibels)} dB",
    "psnr_db": lambda decibels, _: f"PSNR {significant(decibels)} dB",
    "model_bytes": lambda size, _: f"model {significant(size / 2**20)} MiB",
    "traffic_seconds": lambda traffic, seconds: f"{significant(seconds / traffic)} × memory traffic",
}
"""What `extra_info` may hold, and how it is shown: value and median time to text."""


def _cell(case: Mapping[str, Any]) -> str:
    stats, extra = case["stats"], case["extra_info"]
    low, middle, high = (significant(1000 * stats[name]) for name in ("q1", "median", "q3"))
    facts = [show(extra[name], stats["median"]) for name, show in _FACTS.items() if name in extra]
    facts += [
        f"{name} {significant(1000 * value)}"
        for name, value in stats.get("percentiles", {}).items()
        if name != "p50"
    ]
    if extra.get("contaminated"):
        facts.append(f"{CONTAMINATED}: {significant(extra['alone_ratio'])} × alone")
    return "; ".join([f"**{middle}** ({low}–{high})", *facts])


def significant(value: float, digits: int = 3) -> str:
    """A number in so many significant digits, without an exponent; digits before the point are all kept."""
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    # Rounding first: 9.996 has one digit before the point, and 10.0 two.
    rounded = round(value, decimals)
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:.{max(decimals, 0)}f}"


def write(path: Path, text: str) -> None:
    """Writes a report, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
