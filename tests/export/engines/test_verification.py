"""Engines are verified as graphs are, by what they compute; on the stand-in, whose sums may be made wrong.

This is about what is compared, kept and said; whether TensorRT computes right, a card alone can tell.
"""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

import mergevq
from mergevq.bench.subjects import exports
from mergevq.errors import ExportError, UnusableExportError, UsageError
from mergevq.export import Ranges, build_engines, verify
from mergevq.export.runtime.engine import Engine

RANGES = Ranges(batch=(1, 3, 8))


@pytest.fixture
def folder(card, copied):
    copy = copied()
    build_engines(copy, ranges=RANGES)
    return copy


@pytest.fixture
def wrong(monkeypatch):
    """Engines paint every picture a little too bright."""
    run = Engine.run

    def brighter(engine, inputs):
        found = run(engine, inputs)
        return {name: value + 0.1 if name == "image" else value for name, value in found.items()}

    monkeypatch.setattr(Engine, "run", brighter)


def test_engines_that_compute_right_pass_and_are_remembered(folder, tiny_tokenizer, caplog):
    graphs = (folder / "verify.json").read_text()
    with caplog.at_level(logging.WARNING):
        mergevq.load(folder, runtime="tensorrt")
    assert "on tensorrt was not verified; `mergevq export verify --runtime tensorrt`" in caplog.text
    caplog.clear()
    report = verify(folder, tiny_tokenizer, runtime="tensorrt")
    assert report.passed and report.provider == "tensorrt"
    assert {check.graph for check in report.checks} >= {
        "decoder.onnx",
        "encoder_k17.onnx",
        "encoder_k32.onnx",
    }
    assert (
        mergevq.load(folder, runtime="tensorrt").graphs.verification["versions"]["tensorrt"] == "11.4.0.106"
    )
    assert not caplog.records
    assert (folder / "verify.json").read_text() == graphs  # which speaks of ONNX Runtime


def test_engines_that_compute_wrong_fail(folder, tiny_tokenizer, wrong, caplog):
    report = verify(folder, tiny_tokenizer, runtime="tensorrt")
    assert "decoder.onnx" in {check.graph for check in report.failures}
    with caplog.at_level(logging.WARNING):
        mergevq.load(folder, runtime="tensorrt")
    assert "on tensorrt failed its verification" in caplog.text


def test_a_verification_speaks_of_its_own_engines_alone(folder, tiny_tokenizer):
    verify(folder, tiny_tokenizer, runtime="tensorrt")
    build_engines(folder, ranges=RANGES, tf32=True)
    assert mergevq.load(folder, runtime="tensorrt").graphs.verification is None


def test_timings_make_and_verify_engines(card, copied, tiny_tokenizer):
    folder = copied()
    exports.make_engines(folder, tiny_tokenizer)
    assert json.loads((folder / "engines" / "verify.json").read_text())["passed"]


def test_wrong_engines_are_not_timed(card, copied, tiny_tokenizer, wrong, monkeypatch):
    folder = copied()
    with pytest.raises(ExportError, match=r"decoder\.onnx"):
        exports.make_engines(folder, tiny_tokenizer)
    monkeypatch.setattr(exports, "GIVEN", str(folder))
    with pytest.raises(UnusableExportError, match="was not verified or failed"):
        exports.make_engines(folder, tiny_tokenizer)


def test_a_batch_that_engines_were_not_built_for_is_one_sentence(card, copied, tiny_tokenizer):
    folder = copied()
    build_engines(folder, ranges=Ranges(batch=(1, 2, 4)))
    with pytest.raises(UsageError, match=r"the engine was built for"):
        verify(folder, tiny_tokenizer, runtime="tensorrt")
    assert not (folder / "engines" / "verify.json").exists()


def test_a_picture_is_a_picture(folder):
    """The fixture is worth nothing where the stand-in's engines are not run."""
    painted = mergevq.load(folder, runtime="tensorrt").decode(np.zeros((1, 32), dtype=np.int64))
    assert painted.shape == (1, 3, 32, 32)
