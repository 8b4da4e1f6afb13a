"""The step that is timed is the same one in PyTorch and in graphs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

import mergevq
from mergevq.backends import select
from mergevq.bench.subjects.runtimes import Opened, Where, images_call
from mergevq.bench.subjects.steps import step_call


@pytest.fixture
def pair(exported_generator):
    generator, folder = exported_generator
    graphs = Opened(mergevq.load(folder, runtime="onnx", threads=1), contextlib.nullcontext, folder)
    return Opened(generator, torch.inference_mode), graphs


@pytest.fixture
def where():
    return Where(select("cpu"), 1, Path())


@pytest.mark.parametrize("past", [4, 33, 63])
def test_a_step_gives_the_same_codes_and_again_so(pair, where, past):
    if pair[0].model.kind == "rand_ar":
        pytest.skip("rand_ar has no step of one token")
    eager, graphs = (step_call(each, 8, past, where) for each in pair)
    wanted = eager().numpy()
    assert len(np.unique(wanted)) > 1
    for call in (graphs, graphs, eager):
        np.testing.assert_array_equal(np.asarray(call()), wanted)


def test_whole_images_are_the_same(pair, where):
    eager, graphs = (np.asarray(images_call(each, 2, where.device)()) for each in pair)
    assert eager.shape == (2, 3, 32, 32)
    np.testing.assert_allclose(graphs, eager, atol=1e-3)
