"""Every preset of the paper goes out and passes; with random weights, for there are no others.

These take minutes each, and are run on request: MERGEVQ_EXPORT=full pytest tests/export/test_presets.py
"""

from __future__ import annotations

import os

import pytest
import torch

import mergevq
from mergevq.export import export_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("MERGEVQ_EXPORT") != "full", reason="MERGEVQ_EXPORT is not full"),
]

PAPER = ["G", "G+R", "R", "G-d32", "G+R-d32", "G-d96", "G+R-d96"]


PRECISIONS = ["fp32", "fp16"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", PAPER)
def test_a_tokenizer_of_the_paper_goes_out(name, precision, tmp_path):
    torch.manual_seed(0)
    report = export_onnx(mergevq.create(name), tmp_path / "out", precision=precision)
    assert report.verification.passed


@pytest.mark.parametrize("precision", PRECISIONS)
def test_small_presets_go_out_in_every_precision(precision, tmp_path):
    torch.manual_seed(0)
    report = export_onnx(mergevq.create("small-64"), tmp_path / "out", dynamic_keep=True, precision=precision)
    assert report.verification.passed


@pytest.mark.parametrize(
    ("size", "kind", "precision"),
    [
        *(("B", kind, precision) for kind in ("raster", "merge_ar", "rand_ar") for precision in PRECISIONS),
        ("L", "merge_ar", "fp32"),
        ("XL", "merge_ar", "fp32"),
    ],
)
def test_a_generator_of_the_paper_goes_out(size, kind, precision, tmp_path):
    torch.manual_seed(0)
    generator = mergevq.create_generator(size, kind, mergevq.create("G+R"))
    with torch.no_grad():
        for weight in generator.model.head.outputs.parameters():  # zero in a new model
            weight.normal_(std=0.02)
    assert export_onnx(generator, tmp_path / "out", precision=precision).verification.passed
