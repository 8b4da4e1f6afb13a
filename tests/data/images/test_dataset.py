"""Samples follow from their draw alone, and broken pictures cost no batch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from mergevq.data.images.dataset import Failure, ImageDataset, collate
from mergevq.data.images.sampler import Draw
from mergevq.data.images.sources import ImageSource, open_source
from mergevq.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for n in range(8):
        path = tmp_path / "train" / "ab"[n % 2] / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 56, 3), np.uint8)).save(path)
    (tmp_path / "val").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "val/red.png")
    return tmp_path


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1200])


def _train(folder: Path) -> ImageSource:
    return open_source(str(folder), "train")


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_does_not_fit_into_memory_is_one_unreadable_picture(
    folder: Path, mode: Literal["train", "eval"], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = JpegImageFile.load

    def short_of_memory(image: JpegImageFile) -> object:
        if image.size == (48, 48):
            raise MemoryError
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", short_of_memory, raising=False)
    Image.new("RGB", (48, 48)).save(folder / "train/a/0.jpg")
    dataset = ImageDataset(_train(folder), 16, mode)
    batch = collate([dataset[Draw(index, index)] for index in range(8)])
    assert {failure.reason for failure in batch.failures} == {"it does not fit into memory"}
    assert len(batch.images) == (8 if mode == "train" else 7)


def test_a_sample_is_a_function_of_its_draw(folder: Path) -> None:
    first, second = (ImageDataset(_train(folder), 16, view_size=24, max_scale=2.0) for _ in range(2))
    second[Draw(5, 99)]
    torch.manual_seed(1)
    np.random.seed(1)
    one, two = first[Draw(3, 7)], second[Draw(3, 7)]
    assert torch.equal(one.image, two.image) and torch.equal(one.view, two.view)
    assert one.image.shape == (3, 16, 16) and one.view.shape == (3, 24, 24)
    other = first[Draw(3, 8)]
    assert not torch.equal(one.image, other.image) and not torch.equal(one.view, other.view)


def test_the_name_and_label_belong_to_the_picture(folder: Path) -> None:
    dataset = ImageDataset(_train(folder), 16)
    for index in range(8):
        sample = dataset[Draw(index, 0)]
        assert Path(sample.name).parent.name == "ab"[sample.label]
        assert sample.view is None and sample.failures == ()


def test_a_broken_picture_is_replaced(folder: Path) -> None:
    broken = folder / "train/a/0.jpg"
    _cut(broken)
    dataset = ImageDataset(_train(folder), 16)
    samples = [dataset[Draw(0, key)] for key in range(20)]
    assert all(sample.image.shape == (3, 16, 16) for sample in samples)
    assert all(sample.name != str(broken) for sample in samples)
    assert len({sample.name for sample in samples}) > 3
    failure = samples[0].failures[0]
    assert failure.name == str(broken) and "truncated" in failure.reason
    again = dataset[Draw(0, 3)]
    assert again.name == samples[3].name and torch.equal(again.image, samples[3].image)


def test_the_label_is_the_replacements(folder: Path) -> None:
    _cut(folder / "train/a/0.jpg")
    dataset = ImageDataset(_train(folder), 16)
    for key in range(20):
        sample = dataset[Draw(0, key)]
        assert Path(sample.name).parent.name == "ab"[sample.label]


def test_evaluation_leaves_broken_pictures_out(folder: Path) -> None:
    broken = folder / "val/cut.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)).save(broken)
    _cut(broken)
    dataset = ImageDataset(open_source(str(folder), "val"), 32, "eval")
    batch = collate([dataset[Draw(index, index)] for index in range(2)])
    assert batch.names == [str(folder / "val/red.png")] and batch.images.shape == (1, 3, 32, 32)
    assert batch.images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert [failure.name for failure in batch.failures] == [str(broken)]
    nothing = collate([dataset[Draw(0, 0)]])
    assert len(nothing.images) == len(nothing.labels) == 0 and len(nothing.failures) == 1


def test_nothing_readable(folder: Path) -> None:
    for path in folder.glob("train/*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 100 pictures drawn could be read, first .*0\.jpg"):
        ImageDataset(_train(folder), 16)[Draw(0, 0)]


def test_a_picture_that_vanished(folder: Path) -> None:
    source = _train(folder)
    (folder / "train/a/0.jpg").unlink()
    expected = Failure(str(folder / "train/a/0.jpg"), "No such file or directory")
    assert set(ImageDataset(source, 16)[Draw(0, 0)].failures) == {expected}


def test_collate(folder: Path) -> None:
    dataset = ImageDataset(_train(folder), 16, view_size=8)
    samples = [dataset[Draw(index, index)] for index in (4, 2, 6)]
    batch = collate(samples)
    assert batch.images.shape == (3, 3, 16, 16) and batch.images.dtype == torch.uint8
    assert batch.views.shape == (3, 3, 8, 8)
    assert torch.equal(batch.images[1], samples[1].image)
    assert batch.names == [sample.name for sample in samples]
    assert batch.labels.tolist() == [sample.label for sample in samples] and batch.failures == []


def test_large_jpegs_keep_enough_pixels_for_the_zoom(tmp_path: Path) -> None:
    stripes = np.tile(np.array([[[0], [255]]], np.uint8).repeat(2, 1), (640, 160, 3))
    for n in range(2):
        Image.fromarray(stripes).save(tmp_path / f"{n}.jpg", quality=95)
    zoomed = ImageDataset(open_source(str(tmp_path), "train"), 64, max_scale=10.0)
    contrast = [float(zoomed[Draw(0, key)].image.float().std()) for key in range(10)]
    assert max(contrast) > 100


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 8, "view_size": 0}, {"size": 8, "max_scale": 0.5}])
def test_impossible_sizes(folder: Path, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        ImageDataset(_train(folder), **options)
