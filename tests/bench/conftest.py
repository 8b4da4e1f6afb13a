"""Timings as `mergevq bench` writes them, made up."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest


def made_up(task: str, runtime: str, precision: str, keep: int, batch: int, **extra: Any) -> dict[str, Any]:
    """A case whose time is in proportion to tokens and images."""
    speed = {"PyTorch": 1.0, "torch.compile": 1.3, "ONNX Runtime": 1.1, "TensorRT": 4.0}[runtime]
    median = (
        0.004
        * batch**0.9
        * (100 + keep)
        / 100
        / speed
        * {"float32": 1, "bf16": 1.9, "float16": 0.9}[precision]
    )
    return {
        "group": f"{task} by run time",
        "fullname": f"somewhere/bench_{task}.py::test_{task}[G+R-{runtime}-{precision}-{keep}-{batch}]",
        "stats": {"q1": 0.95 * median, "median": median, "q3": 1.1 * median, "percentiles": {"p50": median}},
        "extra_info": {
            "row": f"G+R, {keep} tokens, {batch} images, 2 threads",
            "column": f"{runtime} {precision}",
            "task": task,
            "subject": "G+R",
            "runtime": runtime,
            "precision": precision,
            "keep": keep,
            "batch": batch,
            "threads": 2,
            "images": batch,
            "model_bytes": 600e6 if precision != "float16" else 300e6,
            **extra,
        },
    }


@pytest.fixture
def timings() -> dict[str, Any]:
    """Encoding at two K and two batches, and a round trip, in three run times."""
    variants = [
        ("PyTorch", "float32"),
        ("PyTorch", "bf16"),
        ("ONNX Runtime", "float32"),
        ("ONNX Runtime", "float16"),
    ]
    cases = [
        made_up(
            "encode",
            runtime,
            precision,
            keep,
            batch,
            ratio=1.1,
            contaminated=runtime != "PyTorch" and batch == 8,
        )
        for runtime, precision in variants
        for keep in (36, 144)
        for batch in (1, 8)
    ]
    decibels = {"float32": 99.0, "bf16": 31.0, "float16": 56.0}
    cases += [
        made_up("roundtrip", runtime, precision, 144, 1, agreement_db=decibels[precision])
        for runtime, precision in variants
    ]
    ours = {
        "version": "0.1.0",
        "torch": "2.14.1",
        "device": "cpu",
        "cores": 2,
        "versions": {"onnxruntime": "1.31.1"},
    }
    return {
        "machine_info": {"python_version": "3.11.7", "cpu": {"brand_raw": "A Processor"}, "mergevq": ours},
        "benchmarks": cases,
        "skipped": {},
        "datetime": "2026-02-03T04:05:06+00:00",
    }


@pytest.fixture
def altered(timings: dict[str, Any]) -> Callable[[Callable[[dict[str, Any]], Any]], dict[str, Any]]:
    """Makes a copy of the timings with a change."""

    def alter(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        other = copy.deepcopy(timings)
        change(other)
        return other

    return alter
