"""Loaders: the same batches for any number of workers, exact resumption, no global randomness."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mergevq.data.images.dataset import Batch
from mergevq.data.images.loader import DataConfig, eval_loader, train_loader
from mergevq.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for n in range(10):
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), np.uint8)).save(root / f"{n}.jpg")
    cut = sorted(root.iterdir())[3]
    cut.write_bytes(cut.read_bytes()[:-1000])
    return root


def _batches(folder: Path, workers: int, **options: int) -> list[Batch]:
    config = DataConfig(path=str(folder), workers=workers, holdout=0.1, max_scale=1.5)
    return list(train_loader(config, size=16, batch_size=4, seed=3, view_size=8, **options))


def _same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.views, b.views)
        and torch.equal(a.labels, b.labels)
        and (a.names, a.failures) == (b.names, b.failures)
        for a, b in zip(first, second, strict=True)
    )


def test_workers_do_not_change_the_batches(folder: Path) -> None:
    alone, shared = _batches(folder, 0, steps=8), _batches(folder, 2, steps=8)
    assert _same(alone, shared)
    assert any(batch.failures for batch in alone)


def test_resuming_gives_the_same_batches(folder: Path) -> None:
    assert _same(_batches(folder, 0, steps=8)[5:], _batches(folder, 0, start=5, steps=8))


def test_ranks_share_the_global_batch(folder: Path) -> None:
    config = DataConfig(path=str(folder), workers=0)
    whole = next(iter(train_loader(config, size=16, batch_size=4, seed=3)))
    parts = [next(iter(train_loader(config, size=16, batch_size=2, seed=3, rank=r, world=2))) for r in (0, 1)]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))


def test_epochs_crop_and_flip_anew(folder: Path) -> None:
    config = DataConfig(path=str(folder), workers=0)
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in islice(train_loader(config, size=16, batch_size=4, seed=3), 20):
        for name, image in zip(batch.names, batch.images, strict=True):
            seen.setdefault(name, []).append(image)
    for images in seen.values():
        assert len(images) > 3 and not torch.equal(images[0], images[1])


@pytest.mark.parametrize("workers", [0, 1])
def test_global_randomness_is_untouched(folder: Path, workers: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    _batches(folder, workers, steps=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_evaluation_covers_the_validation_split() -> None:
    config = DataConfig(path="builtin:digits", workers=0)
    loader = eval_loader(config, size=8, batch_size=100)
    batches = list(loader)
    assert [len(batch.images) for batch in batches] == [100, 100, 100, 59] and len(loader) == 4
    assert len({name for batch in batches for name in batch.names}) == 359


def test_photos_zoom_by_themselves() -> None:
    loaders = [
        train_loader(DataConfig(workers=0, max_scale=scale), size=32, batch_size=8, seed=0)
        for scale in (None, 1.0)
    ]
    assert [loader.dataset.max_scale for loader in loaders] == [3.0, 1.0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("holdout", 0.0),
        ("holdout", 1.0),
        ("max_scale", 0.9),
        ("workers", -1),
        ("max_failures", -1),
        ("max_pixels", 0),
        ("max_aspect", 0.5),
    ],
)
def test_impossible_values(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"data.{field} is {value}"):
        DataConfig(**{field: value})


@pytest.fixture
def odd_pictures(tmp_path: Path) -> Path:
    """Six ordinary pictures, a strip and a large one."""
    sizes = {"a": (40, 1), "b": (200, 160), **{str(number): (30, 20) for number in range(6)}}
    for name, size in sizes.items():
        Image.new("RGB", size, "red").save(tmp_path / f"{name}.png")
    return tmp_path


LIMITS = {"max_pixels": 20_000, "max_aspect": 10}


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_beyond_the_limits_are_left_out_and_named(odd_pictures: Path, workers: int) -> None:
    config = DataConfig(path=str(odd_pictures), workers=workers, **LIMITS)
    batches = list(eval_loader(config, size=16, batch_size=4, split="all"))
    reasons = {Path(failure.name).name: failure.reason for batch in batches for failure in batch.failures}
    assert sum(len(batch.images) for batch in batches) == 6
    assert reasons.keys() == {"a.png", "b.png"}
    assert "40 x 1 px" in reasons["a.png"] and "max_aspect is 10" in reasons["a.png"]
    assert "200 x 160 px" in reasons["b.png"] and "max_pixels is 20000" in reasons["b.png"]


def test_training_goes_on_without_them(odd_pictures: Path) -> None:
    config = DataConfig(path=str(odd_pictures), workers=0, holdout=0.01, **LIMITS)
    batches = list(train_loader(config, size=16, batch_size=8, seed=0, steps=4))
    names = {Path(failure.name).name for batch in batches for failure in batch.failures}
    assert all(len(batch.images) == 8 for batch in batches) and names == {"a.png", "b.png"}


def test_without_limits_they_are_read(odd_pictures: Path) -> None:
    config = DataConfig(path=str(odd_pictures), workers=0)
    assert [len(batch.images) for batch in eval_loader(config, size=16, batch_size=8, split="all")] == [8]


def test_evaluation_of_another_split_and_of_a_few() -> None:
    config = DataConfig(path="builtin:digits", workers=0)
    loader = eval_loader(config, size=8, batch_size=2, split="train", limit=3)
    assert [name for batch in loader for name in batch.names] == [
        "builtin:digits/0",
        "builtin:digits/479",
        "builtin:digits/958",
    ]
