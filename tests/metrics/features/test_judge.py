"""The network that judges: what its numbers may be called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergevq.errors import CheckpointError, UsageError
from mergevq.metrics.features import networks as module
from mergevq.metrics.features.classifier import Classifier, ClassifierCard, load_classifier, save_classifier
from mergevq.metrics.features.judge import load_judge
from mergevq.metrics.features.networks import INCEPTION_FILE
from mergevq.models.store import sha256


def test_a_classifier_gives_its_name_to_its_numbers(tmp_path: Path) -> None:
    card = ClassifierCard(
        data="dots", classes=("a", "b"), size=8, train_images=1, test_images=4, accuracy=0.5, epochs=1, seed=0
    )
    save_classifier(Classifier(2), card, tmp_path)
    judge, classifier = load_judge(str(tmp_path)), load_classifier(tmp_path)
    assert judge.frechet == "Frechet distance (dots classifier)"
    assert judge.score == "class score (dots classifier)"
    assert judge.classes == ("a", "b") and judge.digest == classifier.digest
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(judge(images), classifier(images))


def test_inception_is_fid_and_is_only_with_their_weights(
    inception_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_judge(f"inception={inception_weights}")
    assert other.frechet == f"Frechet distance (inception_v3 of {INCEPTION_FILE})"
    assert other.score == f"class score (inception_v3 of {INCEPTION_FILE})"
    digest = sha256(inception_weights)
    monkeypatch.setattr(module, "_INCEPTION_DIGEST", digest[:8])
    genuine = load_judge(f"inception={inception_weights}")
    assert (genuine.frechet, genuine.score, genuine.digest, genuine.classes) == ("FID", "IS", digest, ())
    features, logits = genuine(torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8))
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)


def test_networks_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"github\.com/toshas/torch-fidelity"):
        load_judge("inception")
    with pytest.raises(CheckpointError, match="is not a classifier"):
        load_judge(str(tmp_path))
