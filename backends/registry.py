"""Operators: one name, one reference, any number of device implementations.

    @op("merge", example=...)
    def merge(x, size, assign, length): ...          # the reference: the semantics, the export path, the oracle

    @merge.impl("npu", when=supports)                # `supports(x, size, ...)` answers OK or Reject("why")
    def merge_npu(x, size, assign, length): ...

A call looks at the device type of its first tensor, asks that device's implementations in order of
priority, and takes the first that accepts; where none does, the reference. `when` may look only at
metadata (dtype, shape, requires_grad, device), never at values: resolution costs no synchronisation
and traces under torch.compile. Under torch.export the reference is always taken.

Where every implementation refuses, the call falls back: it is logged, and an error in strict mode. An
implementation that is a shortcut for some calls, on a device that computes the reference well, is
registered with `optional=True`: its refusal is no fallback. One that has not been measured to gain anything
is registered with `on_request=True`: it is passed over unless the environment variable MERGEVQ_OPS names it,
as in MERGEVQ_OPS=merge=triton,decode_attention=reference. Who is named there is asked first.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from mergevq.errors import FallbackError, UsageError, unknown_name

logger = logging.getLogger(__name__)

REFERENCE = "reference"
"""The name of every operator's reference."""


@dataclass(frozen=True)
class Reject:
    """An implementation's refusal of a call, with the reason."""

    reason: str


OK = None
"""An implementation's acceptance of a call."""

Verdict = Reject | None


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operator on one device type."""

    name: str
    device: str
    run: Callable[..., Any]
    when: Callable[..., Verdict]
    priority: int
    optional: bool
    on_request: bool


@dataclass(frozen=True)
class Resolution:
    """Which implementation a call takes, and who was asked before it and refused."""

    name: str
    run: Callable[..., Any]
    rejected: tuple[tuple[str, str], ...] = ()
    fallback: bool = False
    """Whether the reference runs although an implementation that is not optional was asked."""


class Operator:
    """A callable that picks the implementation for its first argument's device."""

    def __init__(self, name: str, reference: Callable[..., Any], example: Callable[[torch.device], tuple]):
        functools.update_wrapper(self, reference)
        self.name = name
        self.reference = reference
        self.example = example
        self._implementations: dict[str, list[Implementation]] = {}
        self._reported: set[tuple[str, str]] = set()

    def impl(
        self,
        device: str,
        *,
        name: str | None = None,
        when: Callable[..., Verdict] = lambda *_, **__: OK,
        priority: int = 0,
        optional: bool = False,
        on_request: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers an implementation for tensors of a device type.

        Args:
            device: the torch device type, such as "cuda".
            name: how it is called in logs and by `doctor`; the function's name by default.
            when: sees the call's arguments; answers OK or `Reject(reason)` from metadata alone.
            priority: higher is asked first; equal priorities in order of registration.
            optional: whether its refusal leaves the call to the reference without a word.
            on_request: whether it is asked only where MERGEVQ_OPS names it; then it is optional too.

        Raises:
            ValueError: the device already has an implementation of this name.
        """

        def register(run: Callable[..., Any]) -> Callable[..., Any]:
            chosen = name or run.__name__
            present = self._implementations.setdefault(device, [])
            if any(other.name == chosen for other in present):
                raise ValueError(f"operator {self.name} already has an implementation {chosen!r} on {device}")
            present.append(
                Implementation(chosen, device, run, when, priority, optional or on_request, on_request)
            )
            present.sort(key=lambda implementation: -implementation.priority)
            return run

        return register

    def implementations(self, device: str) -> list[Implementation]:
        """The implementations registered for a device type, in the order in which they are asked."""
        return list(self._implementations.get(device, ()))

    def names(self) -> list[str]:
        """What an implementation may be called on some device, the reference first."""
        everywhere = (each.name for present in self._implementations.values() for each in present)
        return list(dict.fromkeys([REFERENCE, *everywhere]))

    def resolve(self, *args: Any, **kwargs: Any) -> Resolution:
        """What a call with these arguments would run, and why."""
        if _overrides_problem is not None:
            raise UsageError(_overrides_problem)
        if _forced_reference or torch.compiler.is_exporting():
            return Resolution(REFERENCE, self.reference)
        rejected: tuple[tuple[str, str], ...] = ()
        fallback = False
        for implementation in self._candidates(args[0].device.type):
            verdict = implementation.when(*args, **kwargs)
            if verdict is None:
                return Resolution(implementation.name, implementation.run, rejected)
            rejected = (*rejected, (implementation.name, verdict.reason))
            fallback = fallback or not implementation.optional
        return Resolution(REFERENCE, self.reference, rejected, fallback)

    def _candidates(self, device: str) -> list[Implementation]:
        """Who is asked, in order."""
        present = self._implementations.get(device, [])
        named = _overrides.get(self.name)
        if named == REFERENCE:
            return []
        usual = [each for each in present if each.name != named and not each.on_request]
        return [*(each for each in present if each.name == named), *usual]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        resolution = self.resolve(*args, **kwargs)
        if resolution.fallback or _overrides.get(self.name) in dict(resolution.rejected):
            self._refused(resolution, args[0].device.type)
        return resolution.run(*args, **kwargs)

    def _refused(self, resolution: Resolution, device: str) -> None:
        """Says that a fallback, or another implementation than the one asked for, is taken."""
        reasons = "; ".join(f"{name}: {reason}" for name, reason in resolution.rejected)
        if resolution.fallback and strict():
            raise FallbackError(f"operator {self.name} on {device} fell back to the reference ({reasons})")
        # A log call would break the graph, and the eager warm-up has already said it.
        if not torch.compiler.is_compiling() and (device, reasons) not in self._reported:
            self._reported.add((device, reasons))
            taken = "the reference" if resolution.name == REFERENCE else resolution.name
            logger.warning("operator %s on %s takes %s: %s", self.name, device, taken, reasons)


_operators: dict[str, Operator] = {}
_forced_reference = False
_overrides: dict[str, str] = {}
_overrides_problem: str | None = None


def op(name: str, *, example: Callable[[torch.device], tuple]) -> Callable[[Callable[..., Any]], Operator]:
    """Declares an operator; the decorated function is its reference.

    Args:
        name: the operator's name.
        example: typical arguments on a device, for `doctor` and for the contract tests.

    Raises:
        ValueError: the name is taken.
    """

    def declare(reference: Callable[..., Any]) -> Operator:
        if name in _operators:
            raise ValueError(f"operator {name} is declared twice, the second time in {reference.__module__}")
        _operators[name] = Operator(name, reference, example)
        return _operators[name]

    return declare


def operators() -> dict[str, Operator]:
    """Every declared operator by name."""
    return dict(_operators)


def read_overrides(text: str) -> None:
    """Takes over the value of MERGEVQ_OPS, once every device has registered its implementations.

    What is wrong with it is not raised here, at import, but by whoever calls an operator or `overrides`.

    Args:
        text: operator=implementation, separated by commas; the implementation may be "reference".
    """
    global _overrides, _overrides_problem
    try:
        _overrides, _overrides_problem = _parsed(text), None
    except UsageError as error:
        _overrides, _overrides_problem = {}, f"MERGEVQ_OPS: {error}"


def _parsed(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, separator, chosen = (piece.strip() for piece in part.partition("="))
        if not separator or name in found:
            raise UsageError(f"{part!r} is not operator=implementation, each operator once")
        if name not in _operators:
            raise UsageError(unknown_name("operator", name, _operators))
        known = _operators[name].names()
        if chosen not in known:
            raise UsageError(unknown_name(f"implementation of {name}", chosen, known))
        found[name] = chosen
    return found


def overrides() -> dict[str, str]:
    """The implementation that MERGEVQ_OPS asks for, by operator; on a device that has none of this name the
    operator resolves as usual.

    Raises:
        UsageError: the variable names an unknown operator or implementation, or is malformed.
    """
    if _overrides_problem is not None:
        raise UsageError(_overrides_problem)
    return dict(_overrides)


def strict() -> bool:
    """Whether a fallback to the reference is an error (environment variable MERGEVQ_STRICT=1)."""
    return _STRICT


_STRICT = os.environ.get("MERGEVQ_STRICT", "0") not in ("", "0")


@contextlib.contextmanager
def reference_only() -> Iterator[None]:
    """Within this context every operator runs its reference: for comparisons and for tracing."""
    global _forced_reference
    before, _forced_reference = _forced_reference, True
    try:
        yield
    finally:
        _forced_reference = before
