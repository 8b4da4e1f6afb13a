"""The options of sampling from a generator, which several commands have."""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

from mergevq.cli.shared import common
from mergevq.errors import UsageError

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "guidance": 1.0,
    "guidance_schedule": None,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "steps": None,
    "questions": "independent",
    "keep": None,
}
"""Settings of `ImageGenerator.generate` with the values that they have unless the command line names others."""


def add_sampling(parser: argparse.ArgumentParser, title: str = "sampling") -> None:
    """Adds the options. They are absent from the result unless given, so that a command can refuse them."""
    group = parser.add_argument_group(title, argument_default=argparse.SUPPRESS)
    group.add_argument("--classes", type=_classes, metavar="C,C,...", help="numbers of classes [all]")
    group.add_argument("--seed", type=common.seed, metavar="N", help="decides every picture [0]")
    group.add_argument("--guidance", type=float, metavar="X", help="scale; 1 is none [1]")
    group.add_argument(
        "--guidance-schedule",
        choices=("constant", "linear"),
        help="over the course of a picture [linear for rand_ar, else constant]",
    )
    group.add_argument("--temperature", type=float, metavar="X", help="0 takes the likeliest code [1]")
    group.add_argument("--top-k", type=common.natural, metavar="K", help="0 is no limit [0]")
    group.add_argument("--top-p", type=float, metavar="P", help="1 is no limit [1]")
    group.add_argument("--steps", type=common.positive, metavar="T", help="passes of rand_ar [one a token]")
    group.add_argument(
        "--questions",
        choices=("independent", "causal"),
        help="what rand_ar's see of those asked in the same pass: nothing, or those before, as RandAR has it "
        "[independent]",
    )
    group.add_argument("--keep", type=common.positive, metavar="K", help="kept tokens [the generator's own]")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `ImageGenerator.generate` takes besides classes."""
    return {name: getattr(options, name, value) for name, value in DEFAULTS.items()}


def given(options: argparse.Namespace) -> list[str]:
    """The options that the command line names, as it writes them."""
    return [f"--{name.replace('_', '-')}" for name in ("classes", *DEFAULTS) if hasattr(options, name)]


def wanted_classes(options: argparse.Namespace, classes: int) -> list[int]:
    """The classes of --classes, or all.

    Raises:
        UsageError: one does not exist.
    """
    wanted: list[int] = getattr(options, "classes", None) or list(range(classes))
    for label in wanted:
        if label >= classes:
            raise UsageError(f"there is no class {label}; the generator knows 0 to {classes - 1}")
    return wanted


def picture_seed(seed: int, label: int, number: int) -> int:
    """The seed of picture `number` of a class, which depends on nothing else that is asked for: 64 bits."""
    digest = hashlib.blake2b(f"{seed} {label} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _classes(text: str) -> list[int]:
    return list(dict.fromkeys(common.natural(part.strip()) for part in text.split(",")))
