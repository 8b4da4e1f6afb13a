from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest
import torch

from mergevq.backends import OK, Reject, op, operators, reference_only, registry
from mergevq.errors import FallbackError


@pytest.fixture
def double(monkeypatch):
    """A toy operator, in a registry of its own; its reference doubles."""
    monkeypatch.setattr(registry, "_operators", {})
    monkeypatch.setattr(registry, "_STRICT", False)

    @op("double", example=lambda device: (torch.ones(2, device=device),))
    def double(x: torch.Tensor) -> torch.Tensor:
        """Twice x."""
        return x + x

    return double


def small_only(x: torch.Tensor):
    return OK if x.numel() < 3 else Reject(f"{x.numel()} elements, at most 2")


def test_without_implementations_the_reference_runs(double):
    resolution = double.resolve(torch.ones(2))
    assert resolution.name == "reference" and resolution.rejected == ()
    assert double(torch.ones(2)).tolist() == [2, 2]
    assert double.__doc__ == "Twice x." and double.__name__ == "double"


def test_priority_decides_then_order_of_registration(double):
    for name, priority in [("first", 0), ("second", 0), ("preferred", 5)]:
        double.impl("cpu", name=name, priority=priority)(lambda x: 2 * x)
    assert [one.name for one in double.implementations("cpu")] == ["preferred", "first", "second"]
    assert double.resolve(torch.ones(2)).name == "preferred"
    assert double.implementations("npu") == []


def test_a_rejection_passes_on_to_the_next(double):
    double.impl("cpu", name="small", when=small_only, priority=1)(lambda x: x * 20)
    double.impl("cpu", name="any")(lambda x: x * 200)
    assert double(torch.ones(2)).tolist() == [20, 20]
    assert double(torch.ones(3)).tolist() == [200, 200, 200]
    assert double.resolve(torch.ones(3)).rejected == (("small", "3 elements, at most 2"),)


def test_when_sees_keywords(double):
    double.impl("cpu", when=lambda x, **keywords: OK if keywords == {"flag": 1} else Reject("no flag"))(
        lambda x: x
    )
    assert double.resolve(torch.ones(1), flag=1).name == "<lambda>"
    assert double.resolve(torch.ones(1)).name == "reference"


def test_another_devices_implementation_is_not_taken(double):
    double.impl("meta", name="elsewhere")(lambda x: x * 0)
    assert double.resolve(torch.ones(2)).name == "reference"
    assert double.resolve(torch.ones(2, device="meta")).name == "elsewhere"


def test_a_fallback_is_logged_once_for_each_reason(double, caplog):
    double.impl("cpu", name="small", when=small_only)(lambda x: x * 20)
    with caplog.at_level(logging.WARNING, logger="mergevq"):
        for count in (3, 3, 4, 3, 2):
            double(torch.ones(count))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "double" in messages[0] and "cpu" in messages[0] and "small: 3 elements, at most 2" in messages[0]
    assert "small: 4 elements" in messages[1]


def test_strict_mode_makes_a_fallback_an_error(double, monkeypatch):
    double.impl("cpu", name="small", when=small_only)(lambda x: x * 20)
    monkeypatch.setattr(registry, "_STRICT", True)
    assert double(torch.ones(2)).tolist() == [20, 20]
    with pytest.raises(FallbackError, match=r"double on cpu .*small: 3 elements"):
        double(torch.ones(3))


def test_strict_mode_accepts_a_device_without_implementations(double, monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    assert double(torch.ones(3)).tolist() == [2, 2, 2]


def test_an_optional_implementation_may_refuse(double, monkeypatch, caplog):
    double.impl("cpu", name="small", when=small_only, optional=True)(lambda x: x * 20)
    monkeypatch.setattr(registry, "_STRICT", True)
    assert double(torch.ones(2)).tolist() == [20, 20]
    with caplog.at_level(logging.WARNING, logger="mergevq"):
        assert double(torch.ones(3)).tolist() == [2, 2, 2]
    assert not caplog.records
    resolution = double.resolve(torch.ones(3))
    assert resolution.rejected == (("small", "3 elements, at most 2"),) and not resolution.fallback


def test_an_optional_implementation_does_not_excuse_another(double, monkeypatch):
    double.impl("cpu", name="shortcut", when=small_only, optional=True, priority=1)(lambda x: x * 20)
    double.impl("cpu", name="usual", when=lambda x: OK if x.numel() < 4 else Reject("too many"))(
        lambda x: 2 * x
    )
    monkeypatch.setattr(registry, "_STRICT", True)
    assert double(torch.ones(3)).tolist() == [2, 2, 2]
    with pytest.raises(FallbackError, match=r"shortcut: 4 elements.*usual: too many"):
        double(torch.ones(4))


def test_strict_mode_is_an_environment_variable(run_python):
    code = """
import importlib, os
from mergevq.backends import registry
for value in ("1", "0", ""):
    os.environ["MERGEVQ_STRICT"] = value
    print(importlib.reload(registry).strict())
"""
    assert run_python("-c", code).stdout.split() == ["True", "False", "False"]


def test_a_second_operator_of_one_name_is_refused(double):
    with pytest.raises(ValueError, match="double is declared twice"):
        op("double", example=double.example)(lambda x: x)


def test_a_second_implementation_of_one_name_is_refused(double):
    double.impl("cpu", name="fast")(lambda x: x)
    double.impl("meta", name="fast")(lambda x: x)
    with pytest.raises(ValueError, match="operator double already has an implementation 'fast' on cpu"):
        double.impl("cpu", name="fast")(lambda x: x)


def test_reference_only_is_restored_after_an_error(double):
    double.impl("cpu", name="triple")(lambda x: 3 * x)
    with pytest.raises(KeyError), reference_only():  # noqa: PT012
        assert double(torch.ones(1)).item() == 2
        with reference_only():
            pass
        assert double.resolve(torch.ones(1)).name == "reference"
        raise KeyError
    assert double(torch.ones(1)).item() == 3


class Caller(torch.nn.Module):
    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def forward(self, x):
        return self.operator(x)


def test_export_takes_the_reference(double):
    double.impl("cpu", name="sine")(lambda x: x.sin())
    for strict in (False, True):
        program = torch.export.export(Caller(double), (torch.ones(2),), strict=strict)
        called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
        assert called == {"aten.add.Tensor"}


def test_compile_takes_the_implementation_without_a_graph_break(double):
    double.impl("cpu", name="small", when=small_only, priority=1)(lambda x: x.cos())
    double.impl("cpu", name="sine")(lambda x: x.sin())
    compiled = torch.compile(Caller(double), fullgraph=True, backend="aot_eager", dynamic=False)
    assert torch.equal(compiled(torch.ones(2)), torch.ones(2).cos())
    assert torch.equal(compiled(torch.ones(3)), torch.ones(3).sin())


def test_compile_falls_back_without_a_graph_break(double):
    double.impl("cpu", name="small", when=small_only)(lambda x: x.cos())
    compiled = torch.compile(Caller(double), fullgraph=True, backend="aot_eager")
    assert compiled(torch.ones(3)).tolist() == [2, 2, 2]


def test_every_operator_is_declared_with_an_example():
    names = set(operators())
    assert {
        "sized_attention",
        "bipartite_match",
        "merge",
        "recover",
        "lfq_quantize",
        "lfq_entropies",
        "convolution3x3",
    } <= names
    for operator in operators().values():
        assert isinstance(operator.example(torch.device("cpu"))[0], torch.Tensor)


def test_the_package_refuses_a_second_name_for_itself(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # an installed package is not beside `backends`
    with pytest.raises(ImportError, match=r"import mergevq\.backends, not backends"):
        importlib.import_module("backends")
