"""What changed between two files of timings: faster, slower, within noise, new, gone.

Two medians are within noise where the middle halves of their rounds overlap. Timings of different machines are not
compared at all; different versions of libraries are named, as the difference may be theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mergevq.bench.report import CONTAMINATED, significant
from mergevq.errors import UsageError

NOISE = "within noise"


class Change(NamedTuple):
    """A case that both files have."""

    name: str
    before: float
    """Median seconds of a call."""
    after: float
    verdict: str
    """faster, slower or within noise."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every case of both, in the order of the later file.

    Args:
        before: as `report.read` returns them.
        after: likewise.
    """
    earlier, later = _by_name(before), _by_name(after)
    return [_change(name, earlier[name], later[name]) for name in later if name in earlier]


def as_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The changes as Markdown, with what else differs.

    Raises:
        UsageError: the timings are from different machines.
    """
    _check_machines(before, after)
    found = changes(before, after)
    lines = [
        *_version_changes(before, after),
        "| case | before, ms | now, ms | now / before | |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {change.name} | {_ms(change.before)} | {_ms(change.after)} "
        f"| {change.after / change.before:.2f} | {change.verdict} |"
        for change in found
    ]
    earlier, later = _by_name(before), _by_name(after)
    lines += [
        f"| {name} | {_NONE} | {_ms(later[name]['stats']['median'])} | | new |"
        for name in later
        if name not in earlier
    ]
    lines += [
        f"| {name} | {_ms(earlier[name]['stats']['median'])} | {_NONE} | | gone |"
        for name in earlier
        if name not in later
    ]
    return "\n".join([*lines, "", _summary(found)]) + "\n"


_NONE = "–"


def _summary(found: list[Change]) -> str:
    counts = {
        verdict: sum(each.verdict.startswith(verdict) for each in found)
        for verdict in ("faster", "slower", NOISE)
    }
    return (
        f"{len(found)} cases in both: "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        + "."
    )


def _change(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    old, new = before["stats"], after["stats"]
    if old["q1"] <= new["q3"] and new["q1"] <= old["q3"]:
        verdict = NOISE
    else:
        verdict = "faster" if new["median"] < old["median"] else "slower"
    if any(each["extra_info"].get("contaminated") for each in (before, after)):
        verdict += f" ({CONTAMINATED})"
    return Change(name, old["median"], new["median"], verdict)


def _by_name(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Cases by file and test: where the files lay does not matter."""
    return {case.get("fullname", "").rpartition("/")[2]: case for case in results["benchmarks"]}


def _check_machines(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    old, new = _machine(before), _machine(after)
    differing = [f"{name} {old[name]} and {new[name]}" for name in new if old[name] != new[name]]
    if differing:
        raise UsageError(
            f"the timings are from different machines ({', '.join(differing)}); compare runs of one machine"
        )


def _machine(results: Mapping[str, Any]) -> dict[str, Any]:
    info = results["machine_info"]
    ours = info.get("mergevq", {})
    return {
        "processor": info.get("cpu", {}).get("brand_raw"),
        "cores": ours.get("cores"),
        "device": ours.get("device"),
    }


def _version_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = (_versions(results) for results in (before, after))
    differing = [
        f"{name} {old.get(name)} → {new.get(name)}"
        for name in sorted(old | new)
        if old.get(name) != new.get(name)
    ]
    if differing:
        yield f"Versions differ: {', '.join(differing)}.\n"


def _versions(results: Mapping[str, Any]) -> dict[str, Any]:
    info = results["machine_info"]
    ours = info.get("mergevq", {})
    return {
        "Python": info.get("python_version"),
        "mergevq": ours.get("version"),
        "torch": ours.get("torch"),
        **ours.get("versions", {}),
    }


def _ms(seconds: float) -> str:
    return significant(1000 * seconds)
