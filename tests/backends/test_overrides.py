"""MERGEVQ_OPS: which implementation is asked first."""

from __future__ import annotations

import logging

import pytest
import torch

from mergevq.backends import OK, Reject, op, registry
from mergevq.errors import FallbackError, UsageError


@pytest.fixture
def double(monkeypatch):
    """A toy operator in a registry of its own, with a usual and an unmeasured implementation on the CPU."""
    for name, value in [("_operators", {}), ("_overrides", {}), ("_overrides_problem", None)]:
        monkeypatch.setattr(registry, name, value)

    @op("double", example=lambda device: (torch.ones(2, device=device),))
    def double(x: torch.Tensor) -> torch.Tensor:
        return x + x

    double.impl("cpu", name="usual", priority=5)(lambda x: 20 * x)
    double.impl("cpu", name="unmeasured", when=small_only, priority=9, on_request=True)(lambda x: 200 * x)
    double.impl("meta", name="elsewhere")(lambda x: x)
    return double


def small_only(x: torch.Tensor):
    return OK if x.numel() < 3 else Reject(f"{x.numel()} elements, at most 2")


def test_what_must_be_requested_is_passed_over(double):
    assert double.resolve(torch.ones(2)).name == "usual"
    assert [one.name for one in double.implementations("cpu")] == ["unmeasured", "usual"]


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("", "usual"),
        ("double=usual", "usual"),
        ("double=unmeasured", "unmeasured"),
        (" double = reference ,", "reference"),
        ("double=elsewhere", "usual"),  # no implementation of this name for a CPU
    ],
)
def test_the_one_that_is_named_is_asked_first(double, text, taken):
    registry.read_overrides(text)
    assert double.resolve(torch.ones(2)).name == taken
    assert double(torch.ones(1)).item() == {"usual": 20, "unmeasured": 200, "reference": 2}[taken]


def test_a_refusal_passes_on_to_the_usual_and_is_said_once(double, caplog, monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    registry.read_overrides("double=unmeasured")
    with caplog.at_level(logging.WARNING, logger="mergevq"):
        for _ in range(2):
            assert double(torch.ones(3)).tolist() == [20, 20, 20]
    assert [record.getMessage() for record in caplog.records] == [
        "operator double on cpu takes usual: unmeasured: 3 elements, at most 2"
    ]


def test_a_request_does_not_excuse_the_usual_one(double, monkeypatch):
    @op("half", example=double.example)
    def half(x: torch.Tensor) -> torch.Tensor:
        return x / 2

    half.impl("cpu", name="usual", when=small_only)(lambda x: x)
    half.impl("cpu", name="unmeasured", when=small_only, on_request=True)(lambda x: x)
    registry.read_overrides("half=unmeasured")
    monkeypatch.setattr(registry, "_STRICT", True)
    with pytest.raises(FallbackError, match=r"unmeasured: 3 elements.*usual: 3 elements"):
        half(torch.ones(3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("duoble=usual", r"MERGEVQ_OPS: unknown operator 'duoble'; did you mean 'double'\?"),
        (
            "double=usaul",
            r"unknown implementation of double 'usaul'; did you mean 'usual'\? "
            r"known: reference, unmeasured, usual, elsewhere",
        ),
        ("double", "'double' is not operator=implementation"),
        ("double=usual,double=reference", "each operator once"),
    ],
)
def test_a_mistake_is_an_error_of_every_call(double, text, message):
    registry.read_overrides(text)
    for call in (registry.overrides, lambda: double(torch.ones(1))):
        with pytest.raises(UsageError, match=message):
            call()
    registry.read_overrides("double=usual")
    assert registry.overrides() == {"double": "usual"}
    assert double(torch.ones(1)).item() == 20


def test_compile_follows_a_request_without_a_graph_break(double):
    registry.read_overrides("double=unmeasured")
    compiled = torch.compile(lambda x: double(x), fullgraph=True, backend="aot_eager")
    assert compiled(torch.ones(2)).tolist() == [200, 200]


def test_the_environment_is_read_and_a_mistake_leaves_the_import_whole(run_python):
    code = """
import os, sys
os.environ["MERGEVQ_OPS"] = sys.argv[1]
import torch
from mergevq.backends import merge, registry
from mergevq.errors import UsageError
try:
    print(registry.overrides(), merge.resolve(*merge.example(torch.device("cpu"))).name)
except UsageError as error:
    print(error)
"""
    assert run_python("-c", code, "merge=reference").stdout == "{'merge': 'reference'} reference\n"
    assert "unknown operator 'merg'; did you mean 'merge'?" in run_python("-c", code, "merg=triton").stdout
