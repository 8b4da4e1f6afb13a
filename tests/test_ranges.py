"""Every number of every configuration has a range, and nothing outside it gets through."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergevq.config import (
    DecoderConfig,
    EncoderConfig,
    MergeConfig,
    QuantizerConfig,
    RecoveryConfig,
    TokenizerConfig,
    from_dict,
    override,
)
from mergevq.data.images.loader import DataConfig
from mergevq.errors import ConfigError
from mergevq.generation.settings import Sampling
from mergevq.generator_config import GeneratorConfig
from mergevq.metrics.features.classifier import ClassifierCard
from mergevq.ranges import Length, Range, check_numbers, undeclared
from mergevq.training.classifier.run import ClassifierRun
from mergevq.training.engine.config import OptimizerConfig, PaceConfig, TokenConfig
from mergevq.training.generator.config import GeneratorLossConfig, GeneratorPaceConfig, GeneratorRun
from mergevq.training.recovery.config import CorruptionConfig, RecoveryLossConfig, RecoveryRun
from mergevq.training.tokenizer.config import (
    AlignmentConfig,
    KeepConfig,
    LossConfig,
    TokenizerRun,
    TrainConfig,
)

CARD = {"data": "digits", "classes": ("a", "b"), "size": 8, "train_images": 9, "test_images": 9,
        "accuracy": 0.5, "epochs": 1, "seed": 0}  # fmt: skip
KINDS: dict[type, dict[str, Any]] = {
    **{kind: {} for kind in (
            EncoderConfig, MergeConfig, QuantizerConfig, RecoveryConfig, DecoderConfig, TokenizerConfig,
            GeneratorConfig, DataConfig, OptimizerConfig, PaceConfig, TokenConfig, GeneratorLossConfig,
            GeneratorPaceConfig, GeneratorRun, CorruptionConfig, RecoveryLossConfig, RecoveryRun, LossConfig,
            AlignmentConfig, KeepConfig, TrainConfig, TokenizerRun, Sampling,
    )},
    ClassifierRun: {"data": "builtin:digits"},
    ClassifierCard: CARD,
}  # fmt: skip
"""What can be built, and what it has to be told."""
SENSELESS = (math.nan, math.inf, -math.inf, -1, -3, 10**30, -(10**400), 10**400, 0.5, True, "3")


def numeric(kind: type) -> list[str]:
    """The fields of numbers."""
    hints = typing.get_type_hints(kind)
    return [
        field.name
        for field in dataclasses.fields(kind)
        if {int, float} & {hints[field.name], *typing.get_args(hints[field.name])}
    ]


FIELDS = [(kind, name) for kind in KINDS for name in numeric(kind)]


def ranges(hint: Any) -> list[Range]:
    """Those that stand anywhere in a type."""
    own = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Range)]
    return own + [found for part in typing.get_args(hint) for found in ranges(part)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_range(kind):
    assert undeclared(kind) == []


def test_all_configurations_are_tried_here():
    from mergevq.training.classifier import run  # noqa: F401  # every stage is imported by now

    wanted = {kind.__name__ for kind in _dataclasses() if kind.__name__.endswith(("Config", "Run"))}
    assert wanted - {kind.__name__ for kind in KINDS} == set()


def _dataclasses() -> list[type]:
    found: list[type] = []
    pending = list(object.__subclasses__())
    while pending:
        kind = pending.pop()
        if kind.__module__.startswith("mergevq."):
            found.append(kind)
            pending += kind.__subclasses__()
    return [kind for kind in found if dataclasses.is_dataclass(kind)]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda it: getattr(it, "__name__", it))
def test_what_is_outside_is_refused_by_name(kind, name):
    hint = typing.get_type_hints(kind, include_extras=True)[name]
    (allowed,) = ranges(hint)
    whole = "int" in str(typing.get_type_hints(kind)[name])
    for value in SENSELESS:
        given_value = (value,) * 2 if "tuple" in str(hint) else value
        if type(value) in (int, float) and value in allowed and not (whole and value == 0.5):
            continue
        with pytest.raises(ConfigError, match=rf"\b{name} is ") as caught:
            kind(**{**KINDS[kind], name: given_value})
        assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=lambda it: getattr(it, "__name__", it))
@pytest.mark.parametrize("value", [".nan", "nan", "1e999", "[.inf]", 10**400, [10**400], "9" * 5000])
def test_reading_never_fails_otherwise(kind, name, value):
    with pytest.raises(ConfigError) as caught:
        from_dict(kind, {**KINDS[kind], name: value})
    assert len(str(caught.value)) < 300


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    share: Annotated[float, Range(0, 1, ends="[)")] = 0.5
    count: Annotated[int, Range(1, 9)] | None = None
    pair: Annotated[tuple[Annotated[float, Range(0, 1, ends="(]")], ...], Length(2, 2)] = (1.0, 0.5)
    name: str = ""
    bare: int = 0
    bare_list: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_numbers(self, "it")


def test_messages_name_value_and_range():
    for settings, said in [
        ({"share": 1}, r"it.share is 1; it must be a number in [0, 1)"),
        ({"count": 10}, "it.count is 10; it must be a whole number from 1 to 9"),
        ({"count": 10**30}, "it.count is a number of some 31 digits; it must be a whole number from 1 to 9"),
        ({"count": 2.0}, "it.count is 2.0; it must be a whole number from 1 to 9"),
        ({"pair": (1.0, 0.0)}, "it.pair is 0.0; it must be a number in (0, 1]"),
        ({"pair": (1.0,)}, "it.pair is a list of 1; it must hold 2 numbers"),
    ]:
        with pytest.raises(ConfigError) as caught:
            Example(**settings)
        assert str(caught.value) == said
    assert undeclared(Example) == ["bare", "bare_list"]


@given(st.floats(0, 1, exclude_max=True), st.none() | st.integers(1, 9))
def test_what_is_inside_is_taken(share, count):
    assert Example(share=share, count=count).share == share


def test_an_override_of_400_digits_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.rate is a number of some 400 digits"):
        override(TokenizerRun(), {"optimizer.rate": 10**399})
