"""Settings of a run: in a YAML file, and as dotted options."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fuzzing.case import Kind, Target
from fuzzing.kinds.models import TINY, senseless
from fuzzing.mutators.places import NAMED
from fuzzing.mutators.raw import BYTES
from fuzzing.mutators.trees import NUMBERS, YAML

_STAGES = {
    "tokenizer": ["train", "tokenizer", "--preset", "tiny-32"],
    "generator": ["train", "generator", "--preset", "nano", "--kind", "rand_ar"],
    "recovery": ["train", "recovery"],
}
_VALUES = (
    *NUMBERS,
    *(
        ".nan",
        ".inf",
        "-.inf",
        "nan",
        "inf",
        "null",
        "true",
        "[]",
        "{}",
        "",
        "x",
        "[1, 2]",
        "{a: 1}",
        "'",
        "[",
        "1e-4",
    ),
    *(
        "[.nan, .nan]",
        "[0.5, 1.0]",
        "[-1, 2]",
        "[0.9]",
        "[[[[1]]]]",
        "!!python/object/apply:os.getcwd []",
        "&a [*a]",
    ),
    *(
        "0x10",
        "1_000",
        "190:20:30",
        "2001-01-01",
        "[" * 3000,
        "{a: " * 3000,
        "x" * 5000,
        "\x1b[31m",
        "a\nb",
        "é",
    ),
)


def printed(arguments: list[str]) -> str:
    """What a command prints; errors are raised as they are."""
    from mergevq.cli import build_parser
    from mergevq.cli.shared.parser import parse

    options = parse(build_parser(), arguments)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        options.run(options)
    return text.getvalue()


def _make_file(stage: str, folder: Path) -> None:
    (folder / "settings.yaml").write_text(printed([*_STAGES[stage], "--print-config"]))


def _read_file(stage: str, folder: Path) -> str:
    return printed(["train", stage, "--config", str(folder / "settings.yaml"), "--print-config"])


def _make_options(stage: str, folder: Path) -> None:
    import yaml

    settings = yaml.safe_load(printed([*_STAGES[stage], "--print-config"]))
    (folder / "keys.json").write_text(json.dumps(_keys(settings)))
    (folder / "options.json").write_text("[]")


def _keys(settings: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in settings.items():
        found += [f"{prefix}{key}"]
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else []
    return found


def _option(draw: random.Random, path: Path) -> str:
    """Adds a dotted option."""
    key = draw.choice(
        [*json.loads(path.with_name("keys.json").read_text()), "train", "x.y", "train.", ".", "train.steps.x"]
    )
    value = draw.choice((*_VALUES, *NUMBERS, ".nan", ".inf"))
    given = json.loads(path.read_text())
    given += draw.choice(([f"--{key}={value}"], [f"--{key}", value], [f"--{key}", value], [f"--{key}"]))
    path.write_text(json.dumps(given))
    return f"--{key} {value[:40]}"


def _read_options(stage: str, folder: Path) -> str:
    return printed([*_STAGES[stage], *json.loads((folder / "options.json").read_text()), "--print-config"])


_RUN = {
    **{f"model.{key}": value for key, value in TINY.items()},
    **{
        "train.steps": 1,
        "train.batch_size": 2,
        "train.validate_images": 2,
        "train.log_every": 1,
        "data.workers": 0,
    },
}
_OF_A_RUN = ("data.", "loss.", "alignment.", "keep.", "optimizer.", "train.")
_LONG = ("train.steps", "train.accumulate", "train.batch_size", "data.workers")
"""Not tried in a run: a large value is none that is senseless, and takes long, or processes."""


def _make_run(folder: Path) -> None:
    _make_options("tokenizer", folder)
    keys = json.loads((folder / "keys.json").read_text())
    chosen = [key for key in keys if key.startswith(_OF_A_RUN) and key not in _LONG]
    (folder / "keys.json").write_text(json.dumps(chosen))


def _read_run(folder: Path) -> None:
    """Trains for a step: what is taken has to work, or to end in a sentence."""
    given = [part for key, value in _RUN.items() for part in (f"--{key}", str(value))]
    data = ["--data", "builtin:digits", "--device", "cpu", "--out", str(folder / "out")]
    printed([*_STAGES["tokenizer"], *data, *given, *json.loads((folder / "options.json").read_text())])


def _check(found: object) -> str | None:
    """Numbers that no setting can be must not have been taken."""
    import yaml

    return senseless(yaml.safe_load(str(found)))


def _kinds(stage: str) -> dict[str, Kind]:
    name = "settings.yaml"
    make: Callable[[Path], object] = partial(_make_file, stage)
    targets = (Target(name, YAML, 10), Target(name, BYTES, 2), Target(name, NAMED))
    return {
        f"settings-{stage}": Kind(make=make, targets=targets, read=partial(_read_file, stage), check=_check),
        f"options-{stage}": Kind(
            make=partial(_make_options, stage),
            targets=(Target("options.json", (_option,)),),
            read=partial(_read_options, stage),
            check=_check,
        ),
    }


KINDS = {name: kind for stage in _STAGES for name, kind in _kinds(stage).items()}
KINDS["run"] = Kind(
    make=_make_run,
    targets=(Target("options.json", (_option,)),),
    read=_read_run,
    seconds=30,
    megabytes=2048,
    default=3,
    share=0.1,
)
