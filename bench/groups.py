"""The suites by name, each a file of pytest-benchmark. Needs neither PyTorch nor pytest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergevq.errors import UsageError, unknown_name

SUITES: dict[str, tuple[str, str]] = {
    "encode": ("bench_encode.py", "images to tokens, by run time and precision"),
    "decode": ("bench_decode.py", "tokens to images, by run time and precision"),
    "roundtrip": ("bench_roundtrip.py", "images to tokens and back, with the quality of what comes back"),
    "step": ("bench_step.py", "one step of a generator, by run time and length of its cache"),
    "images": ("bench_images.py", "whole images of a generator, by run time"),
    "operators": ("bench_operators.py", "every implementation of every operator"),
    "merging": ("bench_merging.py", "what merging costs, and what it saves"),
    "lfq": ("bench_lfq.py", "the entropy loss beside vector-quantize-pytorch"),
    "tokenizer": ("bench_tokenizer.py", "encoding and decoding by threads and memory layout"),
    "generation": ("bench_generation.py", "the orders of generation beside each other"),
    "training": ("bench_training.py", "an optimiser step"),
}
"""Name to file and what is in it."""


def files(names: Sequence[str]) -> list[Path]:
    """The files of some suites, of all where none is named.

    Raises:
        UsageError: there is no suite of a name; the nearest one is suggested.
    """
    for name in names:
        if name not in SUITES:
            raise UsageError(unknown_name("group", name, SUITES))
    folder = Path(__file__).resolve().parent / "suites"
    return [folder / SUITES[name][0] for name in dict.fromkeys(names or SUITES)]
