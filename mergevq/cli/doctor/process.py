"""What `mergevq doctor` tries out in a process of its own, because it may raise, hang or crash.

In, on the child's side: the name of a task. Out: a file with one JSON line before and one after every step, so
that the parent knows which step a process that died was at. The steps of a task are named by tuples of words.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

Step = tuple[str, ...]
Steps = Generator[tuple[Step, Callable[[], Any]], Any, None]
START: Step = ("start",)
"""Before the first step."""

TIMEOUT = 600
"""Seconds for a process; on a busy machine or a network file system an import alone can take a minute."""
_PROGRAM = """
import json, sys
path, arguments = json.loads(sys.argv[1])
sys.path[:] = path
from mergevq.cli.doctor.process import child
child(*arguments)
"""
_EXACT = 256
"""Products below this are exact in bf16 too."""


@dataclass(slots=True)
class Findings:
    """What the steps of a task returned, or why they did not."""

    values: dict[Step, Any] = field(default_factory=dict)
    errors: dict[Step, str] = field(default_factory=dict)


def observe(task: str, *words: str, environment: Mapping[str, str] | None = None) -> Findings:
    """Runs the steps of a task in other processes: after a step that takes its process along, the rest in another.

    Args:
        task: a name in `TASKS`.
        words: its arguments.
        environment: variables to set beside those of this process.
    """
    found = Findings()
    while True:
        died_at, reason = _observe_once(found, task, words, environment or {})
        if died_at is None:
            return found
        again = died_at in found.errors or died_at in found.values
        found.errors[died_at] = reason
        if again or died_at == START:
            return found


def _observe_once(
    found: Findings, task: str, words: tuple[str, ...], environment: Mapping[str, str]
) -> tuple[Step | None, str]:
    """Adds what a process finds; returns the step that it died at, and of what."""
    known = [*found.values.items(), *((step, None) for step in found.errors)]
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "findings"
        record.touch()
        arguments = json.dumps([sys.path, [str(record), task, words, known]])
        reason = _run([sys.executable, "-c", _PROGRAM, arguments], environment)
        at = START
        for line in record.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event.keys() == {"end"}:
                return None, ""
            at = tuple(event["step"])
            if "value" in event:
                found.values[at] = event["value"]
            elif "error" in event:
                found.errors[at] = event["error"]
        return at, reason


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    """How a process ended, in words; its output is not wanted unless it says why."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"there was no answer for {TIMEOUT} s"
    except OSError as error:
        return f"no process could be started: {error.strerror}"
    last = done.stderr.strip().splitlines()[-1:]
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
    return ": ".join([f"it ended the process with {how}", *last])


def child(record: str, task: str, words: list[str], known: list[tuple[list[str], Any]]) -> None:
    """What runs in the other process.

    Args:
        record: the file for what is found.
        task: a name in `TASKS`.
        words: its arguments.
        known: steps to leave out, and what they returned; None where they failed.
    """
    before = {tuple(step): value for step, value in known}
    with open(record, "a", encoding="utf-8") as file:

        def tell(**event: Any) -> None:
            print(json.dumps(event), file=file, flush=True)

        def take(step: Step, action: Callable[[], Any]) -> Any:
            if step in before:
                return before[step]
            tell(step=step)
            try:
                value = action()
            except Exception as error:  # whatever it is, it is what was to be found out
                tell(step=step, error=_one_line(error))
                return None
            tell(step=step, value=value)
            return value

        steps, result = TASKS[task](*words), None
        with suppress(StopIteration):
            while True:
                result = take(*steps.send(result))
        tell(end=True)


def _one_line(error: BaseException) -> str:
    """What went wrong, and because of what."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text} ({_one_line(error.__cause__)})" if error.__cause__ else text


def _imports(*names: str) -> Steps:
    """Imports modules."""
    for name in names:
        yield ("import", name), partial(_imported, name)


def _imported(name: str) -> str:
    return str(getattr(importlib.import_module(name), "__version__", ""))


def _libraries(*names: str) -> Steps:
    """Loads shared libraries."""
    for name in names:
        yield ("library", name), partial(_loaded, name)


def _loaded(name: str) -> bool:
    return bool(ctypes.CDLL(name))


def _devices(device: str) -> Steps:
    """Looks at every device, at the one that would be taken, and at the operators on those that can be used."""
    yield ("import", "torch"), lambda: _imported("torch")
    names = yield ("devices",), _device_names
    yield ("select",), lambda: _selected(device)
    overrides = yield ("overrides",), _overrides
    for name in names or ():
        state = yield ("probe", name), partial(_probed, name)
        if state and state["usable"]:
            yield from _details(name)
            if overrides is not None:
                yield from _operators(name)


def _details(name: str) -> Steps:
    """What a usable device can do."""
    from mergevq.backends import devices

    device = devices()[name]
    yield ("capabilities", name), device.capabilities
    yield ("precision", name), device.fast_precision
    yield ("distributed", name), lambda: _distributed(device.distributed_backend)
    for dtype in ("float32", "bfloat16"):
        yield ("product", name, dtype), partial(_product, name, dtype)


def _operators(name: str) -> Steps:
    """What each operator takes on a usable device."""
    from mergevq.backends import operators

    for operator in operators():
        yield ("operator", name, operator), partial(_operator, name, operator)


def _device_names() -> list[str]:
    from mergevq.backends import devices

    return list(devices())


def _overrides() -> dict[str, str]:
    from mergevq.backends.registry import overrides

    return overrides()


def _selected(device: str) -> str:
    from mergevq.backends import select

    return select(device or None).name


def _probed(name: str) -> dict[str, Any]:
    from mergevq.backends import devices

    probe = devices()[name].probe()
    return {"usable": probe.usable, "reason": probe.reason, "count": probe.count}


def _distributed(backend: str) -> str:
    import torch

    present = torch.distributed.is_available() and torch.distributed.is_backend_available(backend)
    return backend if present else f"{backend} is missing"


def _product(name: str, dtype: str) -> bool:
    """Whether a small product of matrices of integers is what it must be, to the last bit."""
    import torch

    row = torch.arange(64).reshape(8, 8) % 5 - 2
    wanted = row @ row.T
    assert wanted.abs().max() < _EXACT
    matrix = row.to(getattr(torch, dtype)).to(name)
    if not torch.equal((matrix @ matrix.T).cpu().long(), wanted):
        raise ArithmeticError(f"a product of two 8 x 8 matrices in {dtype} is wrong")
    return True


def _operator(device: str, name: str) -> dict[str, Any]:
    """What an operator takes on its example, and how far the result is from the reference on the CPU.

    A call with other shapes may be resolved differently.
    """
    import torch

    from mergevq.backends import operators

    operator = operators()[name]
    with torch.inference_mode():
        arguments = operator.example(torch.device(device))
        resolution = operator.resolve(*arguments)
        wanted = operator.reference(*operator.example(torch.device("cpu")))
        difference = _difference(resolution.run(*arguments), wanted)
    return {"takes": resolution.name, "refused": dict(resolution.rejected), "difference": difference}


def _difference(found: Any, wanted: Any) -> float:
    """The largest difference, relative to the largest value wanted or to 1."""
    if isinstance(wanted, tuple):
        return max(_difference(one, other) for one, other in zip(found, wanted, strict=True))
    scale = max(1.0, float(wanted.abs().max()))
    difference = float((found.cpu().double() - wanted.double()).abs().max()) / scale
    if not math.isfinite(difference):
        raise ArithmeticError("the result is not finite")
    return difference


TASKS: dict[str, Callable[..., Steps]] = {"imports": _imports, "libraries": _libraries, "devices": _devices}
"""The steps of each task."""
