from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mergevq.errors import CheckpointError, UsageError
from mergevq.losses.perceptual import find_lpips_weights, load_lpips
from mergevq.models.frozen import Frozen

lpips = pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def reference() -> nn.Module:
    """LPIPS as the package builds it, on a random SqueezeNet."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)


@pytest.fixture(scope="module")
def backbone(reference, tmp_path_factory) -> Path:
    """The same SqueezeNet under torchvision's names."""
    path = tmp_path_factory.mktemp("lpips") / "squeezenet.pth"
    state = {"features." + name.split(".", 1)[1]: value for name, value in reference.net.state_dict().items()}
    torch.save({**state, "classifier.1.bias": torch.zeros(1000)}, path)
    return path


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1)


def test_equals_the_package(reference, backbone):
    images, others = pair()
    distance = load_lpips("squeeze", backbone)(images, others)
    assert distance.shape == (3,)
    torch.testing.assert_close(distance, reference(images, others).flatten(), rtol=1e-4, atol=1e-7)
    assert distance.min() > 0


def test_safetensors_gives_the_same(backbone, tmp_path):
    path = tmp_path / "squeezenet.safetensors"
    save_file(torch.load(backbone, weights_only=True), path)
    images, others = pair()
    assert torch.equal(
        load_lpips("squeeze", path)(images, others), load_lpips("squeeze", backbone)(images, others)
    )


def test_loading_draws_no_random_number(backbone):
    before = torch.get_rng_state()
    load_lpips("squeeze", backbone)
    assert torch.equal(before, torch.get_rng_state())


def test_train_mode_does_not_bring_dropout_back(backbone):
    network = load_lpips("squeeze", backbone)
    images, others = pair()
    expected = network(images, others)
    nn.ModuleList([network]).train()
    assert torch.equal(network(images, others), expected)
    assert not any(module.training for module in network.modules())


def test_gradient_reaches_the_image_and_no_weight(backbone):
    network, (images, others) = load_lpips("squeeze", backbone), pair()
    images.requires_grad_()
    network(images, others).sum().backward()
    assert images.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("scale", [0.0, 1e-25])
def test_loss_and_gradient_are_finite_where_features_vanish(backbone, scale):
    network = load_lpips("squeeze", backbone)
    for parameter in network.backbone.parameters():
        parameter.mul_(scale)
    images = torch.zeros(1, 3, 64, 64, requires_grad=True)
    distance = network(images, torch.ones(1, 3, 64, 64))
    distance.sum().backward()
    assert torch.isfinite(distance).all()
    assert torch.isfinite(images.grad).all()


def test_distance_is_float32_under_autocast(reference, backbone):
    images, others = pair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance = load_lpips("squeeze", backbone)(images, others)
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, reference(images, others).flatten(), rtol=0.02, atol=0)


def test_a_module_that_holds_it_frozen_does_not_own_it(backbone):
    owner = nn.Linear(2, 2)
    owner.perceptual = Frozen(load_lpips("squeeze", backbone))
    assert set(owner.state_dict()) == {"weight", "bias"}
    assert len(list(owner.parameters())) == 2
    assert owner.perceptual(*pair()).shape == (3,)


def test_finds_what_torchvision_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert find_lpips_weights("vgg") is None
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / "vgg16-397923af.pth"
    path.touch()
    assert find_lpips_weights("vgg") == path
    assert find_lpips_weights("alex") is None


def test_missing_file_says_what_to_pass(tmp_path):
    with pytest.raises(UsageError, match=r"no weights file .*vgg\.pth; pass the path"):
        load_lpips("vgg", tmp_path / "vgg.pth")


def test_missing_package_says_what_to_do(monkeypatch, backbone):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UsageError, match="needs the lpips package"):
        load_lpips("squeeze", backbone)


def test_weights_of_another_network_are_refused(backbone, tmp_path):
    with pytest.raises(CheckpointError, match=r"'alex' has no features\.3\.weight"):
        load_lpips("alex", backbone)
    state = torch.load(backbone, weights_only=True)
    torch.save({**state, "features.0.weight": torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="other shapes"):
        load_lpips("squeeze", tmp_path / "odd.pth")


@pytest.mark.parametrize("call", [lambda: load_lpips("vgg19", "x"), lambda: find_lpips_weights("vgg19")])  # type: ignore[arg-type]
def test_unknown_network_names_the_nearest(call):
    with pytest.raises(UsageError, match="did you mean 'vgg'"):
        call()
