"""Engines on a card, where there is one and a flavour for it; what they give is what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import pytest

import mergevq
from mergevq.errors import DeviceUnavailableError
from mergevq.export import Ranges, build_engines
from mergevq.export.engines.flavors import installed
from mergevq.export.runtime.cuda import Cuda

pytestmark = [pytest.mark.tensorrt, pytest.mark.gpu]


@pytest.fixture(scope="module")
def flavor():
    """One that is installed and can build for the card."""
    try:
        card = Cuda().capability
    except DeviceUnavailableError as error:
        pytest.skip(str(error))
    for kit in installed():
        if not kit.targets or card in kit.targets:
            return kit.flavor
    pytest.skip(f"neither TensorRT nor TensorRT-RTX is installed for compute capability {card}")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (3, 3, 32, 32)).astype(np.float32)


@pytest.mark.parametrize("name", ["exported", "exported_any"])
def test_a_tokenizer(flavor, request, name, images, tmp_path):
    folder = request.getfixturevalue(name)
    build_engines(folder, flavor=flavor, ranges=Ranges(batch=(1, 2, 4)), out=tmp_path)
    found = mergevq.load(folder, runtime="tensorrt", engines=tmp_path)
    wanted = mergevq.load(folder, runtime="onnx")
    tokens, reference = found.encode(images, 17), wanted.encode(images, 17)
    assert (tokens.source == reference.source).mean() > 0.99
    assert np.abs(found.decode(reference) - wanted.decode(reference)).max() < 5e-4
    assert np.abs(found.decode(tokens) - wanted.decode(reference)).mean() < 1e-2


def test_a_generator(flavor, exported_generator, tmp_path):
    _, folder = exported_generator
    build_engines(folder, flavor=flavor, ranges=Ranges(batch=(1, 2, 4)), out=tmp_path)
    found = mergevq.load(folder, runtime="tensorrt", engines=tmp_path)
    wanted = mergevq.load(folder, runtime="onnx")
    pictures = [each.generate([0, 3], temperature=0.0, guidance=2.0) for each in (found, wanted)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 1e-2
