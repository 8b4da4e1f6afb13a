"""`mergevq doctor`: what is installed, which devices work, which operators they take, and what to do next."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import mergevq
from mergevq.cli.doctor.checks import Examination, examine
from mergevq.cli.doctor.system import OPTIONAL, REQUIRED
from mergevq.cli.shared import common

_VERDICTS = ("usable", "degraded", "unusable")


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is installed, which devices work, and what to do next",
        description="Looks at the installation and changes nothing: versions, drivers, devices, and what every "
        "operator takes on them and whether that is right. Exit code 0: usable; 1: something is broken; 2: the "
        "device asked for cannot be used.",
        epilog="examples:\n  mergevq doctor\n  mergevq doctor --device cuda\n  mergevq doctor --json\n",
    )
    common.add_device(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examines and prints."""
    found = examine(options.device)
    if options.json:
        values = {"mergevq": mergevq.__version__, **dataclasses.asdict(found)}
        values |= {"verdict": _VERDICTS[found.exit_code], "next": _next(found)}
        print(json.dumps(values, indent=2))
    else:
        print("\n".join(_lines(found)))
    return found.exit_code


def _next(found: Examination) -> str:
    """The one thing to do now: what is fatal comes first."""
    for problem in sorted(found.problems, key=lambda problem: not problem.fatal):
        return problem.action
    return "mergevq demo"


def _lines(found: Examination) -> Iterator[str]:
    yield from _table({"mergevq": mergevq.__version__, **found.system})
    yield from _section("packages", {name: _package(name, found.packages[name]) for name in found.packages})
    yield from _section("drivers", {tool: answer or "no answer" for tool, answer in found.drivers.items()})
    if found.ascend:
        yield from _section("below an NPU", found.ascend)
    yield from _section("devices", {name: _device(state) for name, state in found.devices.items()})
    if found.selected:
        yield f"  {found.selected['device']} is taken: {found.selected['why']}"
    for device, choices in found.operators.items():
        lines = {name: _choice(choice, found.overrides.get(name)) for name, choice in choices.items()}
        yield from _section(f"operators on {device}", lines)
    yield from _section("environment", found.environment or {"MERGEVQ_*": "nothing is set"})
    yield ""
    yield from (f"problem: {problem.what}" for problem in found.problems)
    yield f"{_VERDICTS[found.exit_code]}; next: {_next(found)}"


def _package(name: str, version: str | None) -> str:
    if version is not None:
        return version
    if name in REQUIRED:
        return "missing"
    return f"not installed (pip install mergevq[{OPTIONAL[name]}])" if name in OPTIONAL else "not installed"


def _device(state: dict[str, Any]) -> str:
    if not state["usable"]:
        return f"not usable: {state['reason']}"
    details = [f"{name} {value}" for name, value in state.get("capabilities", {}).items()]
    details += [f"{name} {state[name]}" for name in ("precision", "distributed") if name in state]
    details.append(f"exact products in {' and '.join(state['exact_products']) or 'no dtype'}")
    number = f"{state['count']} x " if state["count"] > 1 else ""
    return f"usable: {number}{state['reason']}; {', '.join(details)}"


def _choice(choice: dict[str, Any], asked: str | None) -> str:
    refused = [f"{name} refused: {reason}" for name, reason in choice["refused"].items()]
    if asked is not None:
        refused.append(f"MERGEVQ_OPS asks for {asked}")
    return f"{choice['takes']} ({'; '.join(refused)})" if refused else str(choice["takes"])


def _section(title: str, values: dict[str, str]) -> Iterator[str]:
    yield ""
    yield title
    yield from (f"  {line}" for line in _table(values))


def _table(values: dict[str, str]) -> Iterator[str]:
    width = max((len(name) for name in values), default=0)
    yield from (f"{name.ljust(width)}  {value}" for name, value in values.items())
