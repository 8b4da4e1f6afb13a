"""LPIPS as a metric."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergevq.errors import UsageError
from mergevq.metrics.perceptual import PerceptualDistance, lpips


def test_pictures_reach_the_network_in_its_range() -> None:
    seen: list[torch.Tensor] = []

    def distance(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        seen.extend([images, references])
        return (images - references).abs().mean(dim=(1, 2, 3))

    black = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    found = PerceptualDistance("toy", distance)(black, black + 255)
    assert found.tolist() == [2.0, 2.0]
    assert (float(seen[0].unique()), float(seen[1].unique())) == (-1.0, 1.0)


def test_lpips_agrees_with_the_package(tmp_path: Path) -> None:
    package = pytest.importorskip("lpips")
    import torchvision

    backbone = torchvision.models.squeezenet1_1()
    path = tmp_path / "squeeze.pth"
    torch.save(backbone.state_dict(), path)
    found = lpips("squeeze", path)
    pair = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    features = backbone.features.eval()
    with torch.no_grad():
        expected = by_hand(package, features, *(pair / 127.5 - 1))
    torch.testing.assert_close(found(pair[0], pair[1]), expected, rtol=1e-4, atol=1e-7)
    assert found(pair[0], pair[0]).tolist() == [0.0, 0.0]
    assert "squeeze" in found.name


def by_hand(
    package: object, features: torch.nn.Sequential, images: torch.Tensor, others: torch.Tensor
) -> torch.Tensor:
    """LPIPS (arXiv:1801.03924), Eq. 1, from the package's published heads."""
    folder = Path(package.__file__).parent  # type: ignore[attr-defined]
    heads = torch.load(folder / "weights" / "v0.1" / "squeeze.pth", map_location="cpu", weights_only=True)
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    x, y = (images - shift) / scale, (others - shift) / scale
    total, ends = torch.zeros(len(images)), (1, 4, 7, 9, 10, 11, 12)
    for number, layer in enumerate(features):
        x, y = layer(x), layer(y)
        if number in ends:
            difference = (torch.nn.functional.normalize(x) - torch.nn.functional.normalize(y)).square()
            weight = heads[f"lin{ends.index(number)}.model.1.weight"]
            total += (difference * weight.view(-1, 1, 1)).sum(1).mean(dim=(1, 2))
    return total


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.pth"):
        lpips("alex", tmp_path / "absent.pth")
