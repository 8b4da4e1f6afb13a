"""What `mergevq doctor` looks at. No check raises: what goes wrong becomes a problem with a next action.

In: nothing, or the name of a device. Out: plain values that print and serialise. PyTorch is never imported in
this process, since that may be what is broken: a torch_npu without its libraries makes `import torch` raise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mergevq.cli.doctor import system
from mergevq.cli.doctor.ascend import AscendStack, look
from mergevq.cli.doctor.process import START, Findings, observe

IMPORTED = ("torch", "torchvision", "numpy", "lightning")
"""Packages whose compiled parts are most often broken, so that only an import tells."""

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
"""PyTorch's variable; at 0 `import torch` leaves torch_npu and its like alone."""

LARGEST_DIFFERENCE = 1e-2
"""Between an operator on a device and its reference on the CPU, relative to the largest value."""

_DETAILS = ("probe", "capabilities", "precision", "distributed", "product")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is broken."""

    what: str
    action: str
    """What to do about it."""
    fatal: bool = False
    """Whether the device asked for cannot be used."""


@dataclass(slots=True)
class Examination:
    """Everything that was found."""

    system: dict[str, str]
    packages: dict[str, str | None]
    """Name to version; None where it is not installed."""
    drivers: dict[str, str | None]
    """The driver's tool to its first answer; None where it is absent or fails."""
    environment: dict[str, str]
    ascend: dict[str, str] = field(default_factory=dict)
    """The software below an NPU; empty where nothing of it is there."""
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    selected: dict[str, str] = field(default_factory=dict)
    operators: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Device to operator to the implementation taken, those that refused, and its distance to the reference."""
    overrides: dict[str, str] = field(default_factory=dict)
    """The implementations that MERGEVQ_OPS asks for."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 usable, 1 something is broken, 2 the device asked for cannot be used."""
        if any(problem.fatal for problem in self.problems):
            return 2
        return 1 if self.problems else 0

    def add(self, what: str, action: str, fatal: bool = False) -> None:
        """Adds a problem."""
        self.problems.append(Problem(what, action, fatal))


def examine(device: str | None) -> Examination:
    """Looks at everything.

    Args:
        device: the device asked for; None takes MERGEVQ_DEVICE, else the best usable one.
    """
    found = Examination(
        system=system.system(),
        packages=system.packages(),
        drivers=system.drivers(),
        environment=system.environment(),
    )
    asked = device or found.environment.get("MERGEVQ_DEVICE") or "auto"
    _packages(found)
    ascend = _ascend(found, asked)
    if _torch_imports(found):
        seen = _with_autoload(found, asked, ascend)
        _devices(found, seen)
        _select(found, seen, asked, "--device" if device else "MERGEVQ_DEVICE", ascend)
        _cards(found, asked, ascend)
        _operators(found, seen)
    return found


def _packages(found: Examination) -> None:
    """What is required has to be there."""
    for name in system.REQUIRED:
        if found.packages[name] is None:
            found.add(f"{name} is not installed", f"pip install {name}", fatal=name == "torch")


def _ascend(found: Examination, asked: str) -> AscendStack | None:
    """What is below an NPU, where there is any of it or an NPU is asked for."""
    driver, version = found.drivers["npu-smi"], found.packages["torch-npu"]
    if not (asked == "npu" or driver or version):
        return None
    stack = look(found.packages["torch"], version, driver)
    found.ascend = stack.shown()
    for what, action in stack.mismatches():
        found.add(what, action)
    return stack


def _torch_imports(found: Examination) -> bool:
    """Imports what is most often broken, with nothing loaded into PyTorch; whether PyTorch is sound."""
    present = [name for name in IMPORTED if found.packages[name] is not None]
    seen = observe("imports", *present, environment={AUTOLOAD: "0"})
    for step, reason in seen.errors.items():
        if step == START:
            found.add(f"no other process can be looked at: {reason}", "reinstall mergevq", fatal=True)
            continue
        name = step[1]
        action = f"pip install --force-reinstall {name}"
        found.add(f"{name} cannot be imported: {reason}", action, fatal=name == "torch")
    return ("import", "torch") in seen.values


def _with_autoload(found: Examination, asked: str, ascend: AscendStack | None) -> Findings:
    """The devices as a user's process would see them, or without autoload where that breaks PyTorch."""
    seen = observe("devices", asked)
    reason = seen.errors.get(("import", "torch"))
    if reason is None:
        return seen
    remedy = ascend.remedy() if ascend else "mend the package that the reason names"
    found.add(
        f"`import torch` fails as soon as it loads the packages for further devices: {reason}",
        f"{remedy}; or set {AUTOLOAD}=0 to go on without the device",
    )
    return observe("devices", asked, environment={AUTOLOAD: "0"})


def _devices(found: Examination, seen: Findings) -> None:
    """The state of every device, and what of it failed."""
    found.overrides = seen.values.get(("overrides",), {})
    for name in seen.values.get(("devices",), []):
        state = dict(seen.values.get(("probe", name), {"usable": False, "reason": "its probe failed"}))
        if state["usable"]:
            details = [(step, value) for step, value in seen.values.items() if step[1:2] == (name,)]
            state |= {step[0]: value for step, value in details if step[0] in _DETAILS[1:4]}
            state["exact_products"] = [step[2] for step, _ in details if step[0] == "product"]
        found.devices[name] = state
    for step, reason in seen.errors.items():
        if step[0] in _DETAILS:
            of = " ".join([step[0], *step[2:]])
            found.add(f"{step[1]}: {of} failed: {reason}", f"mend the driver or the packages of {step[1]}")
    if ("overrides",) in seen.errors:
        found.add(seen.errors["overrides",], "correct or unset MERGEVQ_OPS")


def _select(found: Examination, seen: Findings, asked: str, by: str, ascend: AscendStack | None) -> None:
    """The device that would be taken."""
    taken = seen.values.get(("select",))
    if taken is None:
        steps = (("import", "torch"), ("devices",), ("select",), START)
        reason = next((seen.errors[step] for step in steps if step in seen.errors), "nothing was found out")
        found.add(reason, _remedy(found, asked, ascend), fatal=True)
        return
    absent = [name for name, state in found.devices.items() if not state["usable"]]
    why = "it is the best one here" + (f"; not usable: {', '.join(absent)}" if absent else "")
    found.selected = {"device": taken, "why": why if asked == "auto" else f"{by} asks for it"}


def _cards(found: Examination, asked: str, ascend: AscendStack | None) -> None:
    """Cards that their driver lists, that nobody hides, and that cannot be used all the same."""
    for name, (tool, *_) in system.TOOLS.items():
        state = found.devices.get(name)
        hidden = found.environment.get(system.HIDING[name]) in ("", "-1")
        if asked == "auto" and state and not state["usable"] and found.drivers[tool] and not hidden:
            what = f"{tool} lists {found.drivers[tool]}, and {name} cannot be used: {state['reason']}"
            found.add(what, _remedy(found, name, ascend))


def _remedy(found: Examination, name: str, ascend: AscendStack | None) -> str:
    """The first thing to do where a device cannot be used."""
    variable = system.HIDING.get(name)
    if variable in found.environment:
        return f"unset {variable}, or let it name cards that are there"
    if name == "npu" and ascend:
        return ascend.remedy()
    if name == "cuda" and found.drivers["nvidia-smi"] is None:
        return "install the NVIDIA driver, until `nvidia-smi` lists the GPU"
    if name == "cuda":
        return "install the build of torch for this driver's CUDA, as pytorch.org says, or a newer driver"
    return "choose a usable device with --device, or mend this one"


def _operators(found: Examination, seen: Findings) -> None:
    """What each operator takes on its example on each usable device, and whether it computes the right thing."""
    choices = {step: value for step, value in seen.values.items() if step[0] == "operator"}
    failures = {step: reason for step, reason in seen.errors.items() if step[0] == "operator"}
    for step, choice in choices.items():
        found.operators.setdefault(step[1], {})[step[2]] = choice
        if choice["difference"] > LARGEST_DIFFERENCE:
            failures[step] = f"{choice['takes']} is {choice['difference']:.1g} away from the reference"
    for (_, device, name), reason in failures.items():
        found.add(
            f"operator {name} on {device} fails: {reason}",
            f"set MERGEVQ_OPS={name}=reference to go around it, and report it with this output",
        )
