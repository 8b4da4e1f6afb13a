"""Whether a file of timings is one: what the report and the comparison read of it has the types that they expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LONGEST = 300
_MOST = 1e300
_STATISTICS = ("q1", "median", "q3")
SHOWN = (
    *("images", "share", "peak_bytes", "cache_bytes", "ratio", "agreement_db", "psnr_db", "model_bytes"),
    "traffic_seconds",
)
"""Numbers in `extra_info` that the report shows."""


def are_timings(values: Any) -> bool:
    """Whether this is what pytest-benchmark writes, as far as it is read; other keys may hold anything."""
    return (
        isinstance(values, dict)
        and isinstance(values.get("benchmarks"), list)
        and all(map(_is_case, values["benchmarks"]))
        and _is_machine(values.get("machine_info"))
        and _are_texts(values.get("skipped") or {})
        and isinstance(values.get("datetime", ""), str)
    )


def _is_case(case: Any) -> bool:
    if not (
        isinstance(case, dict) and _is_word(case.get("fullname", "")) and _is_word(case.get("group") or "")
    ):
        return False
    stats, extra = case.get("stats"), case.get("extra_info")
    return isinstance(stats, dict) and isinstance(extra, dict) and _are_statistics(stats) and _is_extra(extra)


def _are_statistics(stats: Mapping[str, Any]) -> bool:
    percentiles = stats.get("percentiles", {})
    return (
        all(_is_number(stats.get(name)) and stats[name] >= 0 for name in _STATISTICS)
        and stats["median"] > 0
        and isinstance(percentiles, dict)
        and all(map(_is_number, percentiles.values()))
    )


def _is_extra(extra: Mapping[str, Any]) -> bool:
    """What is shown of a case; one that ran beside others says how it ran alone."""
    return (
        all(_is_word(extra[name]) for name in ("row", "column") if name in extra)
        and all(_is_number(extra[name]) for name in SHOWN if name in extra)
        and extra.get("traffic_seconds") != 0
        and (not extra.get("contaminated") or _is_number(extra.get("alone_ratio")))
    )


def _is_machine(machine: Any) -> bool:
    if not isinstance(machine, dict) or not isinstance(machine.get("cpu", {}), dict):
        return False
    ours = machine.get("mergevq", {})
    if not isinstance(ours, dict):
        return False
    named = {
        "brand": machine.get("cpu", {}).get("brand_raw") or "",
        "python": machine.get("python_version") or "",
    }
    load = ours.get("load_average") or []
    return (
        _are_words(named | {name: ours[name] for name in ("device", "torch", "version") if name in ours})
        and _is_number(ours.get("cores") or 0)
        and _are_words({name: str(value) for name, value in _table(ours, "capabilities").items()})
        and _are_words(_table(ours, "versions"))
        and isinstance(load, list)
        and all(map(_is_number, load))
    )


def _table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name) or {}
    return found if isinstance(found, dict) else {name: None}


def _are_words(table: Any) -> bool:
    return isinstance(table, dict) and all(_is_word(value) for value in table.values())


def _are_texts(table: Any) -> bool:
    """Of any length."""
    return isinstance(table, dict) and all(isinstance(value, str) for value in table.values())


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MOST < value < _MOST
