"""Feature networks: what they compute, what they may be called, and files that do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mergevq.errors import CheckpointError, UsageError
from mergevq.metrics.features import networks as module
from mergevq.metrics.features.networks import INCEPTION_FILE, inception, load_features
from mergevq.models.store import sha256


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import timm

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=1000).state_dict(), path)
    return path


def test_a_timm_network_sees_pictures_as_it_was_trained_to(timm_weights: Path) -> None:
    import timm
    from safetensors.torch import load_file

    reference = timm.create_model("resnet10t", num_classes=1000)
    reference.load_state_dict(load_file(timm_weights))
    reference.reset_classifier(0)
    config = timm.data.resolve_data_config({}, model=reference)
    size = config["input_size"][-2:]
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)  # nothing to resize
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = reference.eval()((images / 255 - mean) / std)
    found = load_features(f"timm:resnet10t={timm_weights}")
    torch.testing.assert_close(found(images), expected, atol=1e-4, rtol=1e-4)
    assert found(pictures()).shape == expected.shape
    assert found.metric == "Frechet distance on resnet10t"
    assert "FID" not in found.name


def test_inception_is_called_fid_only_with_the_weights_of_fid(
    inception_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_features(f"inception={inception_weights}")
    assert other.metric == f"Frechet distance on inception_v3 of {INCEPTION_FILE}"
    monkeypatch.setattr(module, "_INCEPTION_DIGEST", sha256(inception_weights))
    genuine = inception(inception_weights)
    assert genuine.metric == "FID"
    found = genuine(pictures())
    assert found.shape == (2, 2048)
    assert torch.isfinite(found).all()
    assert not torch.equal(found[0], found[1])


def test_inception_without_weights_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match=r"github\.com/toshas/torch-fidelity"):
        load_features("inception")


def test_inception_weights_are_found_in_the_cache(
    inception_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / INCEPTION_FILE).symlink_to(inception_weights)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "inception_v3" in load_features("inception").name


def test_weights_of_another_network_are_refused(timm_weights: Path, inception_weights: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit"):
        load_features(f"inception={timm_weights}")
    with pytest.raises(CheckpointError, match="does not fit resnet10t"):
        load_features(f"timm:resnet10t={inception_weights}")


class Exploit:
    """Unpickling this would create the file that it names."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.target), "w")


@pytest.mark.parametrize("network", ["inception", "timm:resnet10t"])
def test_a_pickle_is_never_executed(tmp_path: Path, network: str) -> None:
    pytest.importorskip("torch_fidelity")
    path, target = tmp_path / "weights.pth", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Exploit(target)))
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        load_features(f"{network}={path}")
    assert not target.exists()


@pytest.mark.parametrize("specification", ["", "vgg", "timm:resnet18", "timm:resnet18=", "clip=file"])
def test_unknown_specifications_are_refused(specification: str) -> None:
    with pytest.raises(UsageError, match="write inception, inception=FILE, classifier=FOLDER or timm:NAME"):
        load_features(specification)
