"""Every preset of the paper goes out and passes; with random weights, for there are no others."""

from __future__ import annotations

import pytest
import torch

import mergevq
from mergevq.export import export_onnx

PAPER = ["G", "G+R", "R", "G-d32", "G+R-d32", "G-d96", "G+R-d96"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_a_tokenizer_of_the_paper_goes_out(name, tmp_path):
    torch.manual_seed(0)
    report = export_onnx(mergevq.create(name), tmp_path / "out")
    assert report.verification.passed


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_small_presets_go_out_in_every_precision(precision, tmp_path):
    torch.manual_seed(0)
    report = export_onnx(mergevq.create("small-64"), tmp_path / "out", dynamic_keep=True, precision=precision)
    assert report.verification.passed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raster", "merge_ar", "rand_ar"])
def test_a_generator_of_the_paper_goes_out(kind, tmp_path):
    torch.manual_seed(0)
    generator = mergevq.create_generator("B", kind, mergevq.create("G+R"))
    with torch.no_grad():
        for weight in generator.model.head.outputs.parameters():  # zero in a new model
            weight.normal_(std=0.02)
    assert export_onnx(generator, tmp_path / "out").verification.passed
