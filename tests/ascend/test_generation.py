"""Generators on the NPU write what they write on the CPU, token for token."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_runs import COUNTS, MODEL

import mergevq
from mergevq.generation.sampling import Sampling


def make(kind):
    """A generator of random weights, whose logits are far apart, with its tokenizer."""
    torch.manual_seed(0)
    tokenizer = mergevq.create("tiny-32", **MODEL).eval()
    changes = {"counts": COUNTS, "classes": 3, "width": 64, "depth": 2, "window": 4}
    generator = mergevq.create_generator("nano", kind, tokenizer, **changes)
    for weight in generator.model.head.outputs.parameters():
        torch.nn.init.normal_(weight)
    if kind == "rand_ar":
        length = generator.model.config.length
        order = torch.rand(6, length).argsort(dim=1)
        sets = (order < torch.tensor(COUNTS).repeat(3).unsqueeze(1)) | (torch.arange(length) == 0)
        generator.model.remember_layouts(sets, torch.arange(6) // 2)
    return generator


def tokens(generator, sampling, guidance):
    request = generator.request([0, 2, 1], seed=5, guidance=guidance, sampling=sampling)
    return [part.tokens.to("cpu") for part in generator.generate_tokens(request)]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["raster", "merge_ar", "rand_ar"])
@pytest.mark.parametrize(
    "sampling", [Sampling(top_k=1), Sampling(temperature=0), Sampling(top_k=20, top_p=0.9)], ids=repr
)
def test_token_for_token(kind, guidance, sampling):
    here = make(kind)
    there = copy.deepcopy(here).to("npu")
    if kind == "rand_ar":
        there.model.remember_layouts(here.model.layout_positions, here.model.layout_labels)
    wanted, got = (tokens(generator, sampling, guidance) for generator in (here, there))
    assert len(wanted) == len(got)
    for one, other in zip(wanted, got, strict=True):
        assert torch.equal(one.indices, other.indices) and torch.equal(one.source, other.source)
    assert len(wanted[0].indices.unique()) > 3, "the logits have no say"


@pytest.mark.parametrize("kind", ["merge_ar", "rand_ar"])
def test_images_are_those_of_the_cpu(kind):
    here = make(kind)
    there = copy.deepcopy(here).to("npu")
    wanted, got = (generator.generate([0, 1], seed=1, top_k=1).cpu() for generator in (here, there))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
