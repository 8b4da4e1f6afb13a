"""The classifier: its size, what it says of itself, and files that are not whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from mergevq.data.images.transforms import to_float
from mergevq.errors import CheckpointError, ConfigError
from mergevq.metrics.features.classifier import Classifier, ClassifierCard, load_classifier, save_classifier
from mergevq.metrics.features.networks import load_features
from mergevq.models.store import sha256

CARD = ClassifierCard(
    data="shapes",
    classes=("round", "square", "other"),
    size=16,
    train_images=90,
    test_images=10,
    accuracy=0.9,
    epochs=2,
    seed=0,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = Classifier(3)
    network(torch.randn(8, 3, 16, 16))  # batch statistics that are not the initial ones
    save_classifier(network, CARD, tmp_path / "classifier")
    return tmp_path / "classifier"


def test_size_and_shapes() -> None:
    network = Classifier(10).eval()
    assert 0.3e6 < sum(parameter.numel() for parameter in network.parameters()) < 0.7e6
    for side in (8, 32, 33):
        features, logits = network(torch.zeros(2, 3, side, side))
        assert features.shape == (2, Classifier.features) == (2, 128) and logits.shape == (2, 10)


def test_a_saved_classifier_gives_the_same_numbers_and_says_what_it_is(folder: Path) -> None:
    network = Classifier(3)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        features, logits = network.eval()(to_float(images))
    found = load_classifier(folder)
    assert found.card == CARD and found.digest == sha256(folder / "model.safetensors")
    torch.testing.assert_close(found(images), (features, logits))
    assert found.label == "shapes classifier"
    for words in ("90.00% of 10 test pictures", "16 px", f"sha256 {found.digest[:8]}"):
        assert words in found.name


def test_pictures_of_another_size_are_resized(folder: Path) -> None:
    images = torch.randint(0, 256, (2, 3, 40, 24), dtype=torch.uint8)
    small = F.interpolate(to_float(images), size=(16, 16), mode="bicubic", antialias=True).clamp(-1, 1)
    found = load_classifier(folder)
    with torch.no_grad():
        torch.testing.assert_close(found(images)[0], found.network(small)[0])


def test_it_serves_as_a_feature_network(folder: Path) -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    network = load_features(f"classifier={folder}")
    assert network.metric == "Frechet distance on shapes classifier"
    assert torch.equal(network(images), load_classifier(folder)(images)[0])


def test_files_that_are_not_whole_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"nowhere is not a classifier, which is a folder with a config\.json"
    ):
        load_classifier(tmp_path / "nowhere")
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, described = weights.read_bytes(), json.loads(config.read_text())
    weights.write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="is truncated or is not the file"):
        load_classifier(folder)
    weights.write_bytes(whole[:200])
    config.write_text(json.dumps({**described, "sha256": sha256(weights)}))
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_classifier(folder)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        load_classifier(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    save_file({"stem": torch.zeros(3)}, weights)
    config.write_text(json.dumps({**json.loads(config.read_text()), "sha256": sha256(weights)}))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_classifier(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "mergevq-tokenizer"}, "does not describe a mergevq classifier"),
        ({"card": {"classes": ["a", "b"], "size": "large"}}, "a card that cannot be used"),
        ({"card": {}}, "a card that cannot be used"),
        ({"card": None}, "a card that cannot be used"),
        ({"card": dataclasses.asdict(CARD) | {"classes": ["a", "b"]}}, "does not fit"),
    ],
)
def test_wrong_descriptions_are_refused(folder: Path, change: dict[str, object], said: str) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(CheckpointError, match=said):
        load_classifier(folder)


@pytest.mark.parametrize("change", [{"classes": ("a",)}, {"size": 4}, {"accuracy": 1.5}])
def test_impossible_cards_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change)).removesuffix("es")):
        dataclasses.replace(CARD, **change)
