"""Weights of InceptionV3 that are none: the real ones cannot be had everywhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from mergevq.metrics.features.networks import INCEPTION_FILE


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in torch-fidelity's layout."""
    package = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = package.FeatureExtractorInceptionV3
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "load_state_dict", lambda self, state: None)
        random = network("random", ["2048"], feature_extractor_weights_path=empty)
    path = tmp_path_factory.mktemp("weights") / INCEPTION_FILE
    torch.save(random.state_dict(), path)
    return path
