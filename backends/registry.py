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
registered with `optional=True`: its refusal is no fallback.
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

from mergevq.errors import FallbackError

logger = logging.getLogger(__name__)


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
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Registers an implementation for tensors of a device type.

        Args:
            device: the torch device type, such as "cuda".
            name: how it is called in logs and by `doctor`; the function's name by default.
            when: sees the call's arguments; answers OK or `Reject(reason)` from metadata alone.
            priority: higher is asked first; equal priorities in order of registration.
            optional: whether its refusal leaves the call to the reference without a word.

        Raises:
            ValueError: the device already has an implementation of this name.
        """

        def register(run: Callable[..., Any]) -> Callable[..., Any]:
            chosen = name or run.__name__
            present = self._implementations.setdefault(device, [])
            if any(other.name == chosen for other in present):
                raise ValueError(f"operator {self.name} already has an implementation {chosen!r} on {device}")
            present.append(Implementation(chosen, device, run, when, priority, optional))
            present.sort(key=lambda implementation: -implementation.priority)
            return run

        return register

    def implementations(self, device: str) -> list[Implementation]:
        """The implementations registered for a device type, in the order in which they are asked."""
        return list(self._implementations.get(device, ()))

    def resolve(self, *args: Any, **kwargs: Any) -> Resolution:
        """What a call with these arguments would run, and why."""
        if _forced_reference or torch.compiler.is_exporting():
            return Resolution("reference", self.reference)
        rejected: tuple[tuple[str, str], ...] = ()
        fallback = False
        for implementation in self._implementations.get(args[0].device.type, ()):
            verdict = implementation.when(*args, **kwargs)
            if verdict is None:
                return Resolution(implementation.name, implementation.run, rejected)
            rejected = (*rejected, (implementation.name, verdict.reason))
            fallback = fallback or not implementation.optional
        return Resolution("reference", self.reference, rejected, fallback)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        resolution = self.resolve(*args, **kwargs)
        if resolution.fallback:
            self._fell_back(resolution.rejected, args[0].device.type)
        return resolution.run(*args, **kwargs)

    def _fell_back(self, rejected: tuple[tuple[str, str], ...], device: str) -> None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected)
        if strict():
            raise FallbackError(f"operator {self.name} on {device} fell back to the reference ({reasons})")
        # A log call would break the graph, and the eager warm-up has already said it.
        if not torch.compiler.is_compiling() and (device, reasons) not in self._reported:
            self._reported.add((device, reasons))
            logger.warning("operator %s on %s takes the reference: %s", self.name, device, reasons)


_operators: dict[str, Operator] = {}
_forced_reference = False


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
