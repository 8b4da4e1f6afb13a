"""Training of the classifier: the same run gives the same file, augmentation moves pixels and makes none."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from mergevq.backends import select
from mergevq.errors import ConfigError, DataError, NonFiniteError, StoppedError
from mergevq.metrics.features.classifier import load_classifier
from mergevq.training.classifier import run as module
from mergevq.training.classifier.run import ClassifierRun, augmented, train_classifier


@pytest.fixture
def two_colours(tmp_path: Path) -> Path:
    """Forty noisy pictures of two colours in train/, ten in test/."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 20), ("test", 5)):
        for channel, name in ((0, "red"), (2, "blue")):
            folder = tmp_path / "colours" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 80, (8, 8, 3), generator=generator, dtype=torch.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return tmp_path / "colours"


def run(data: Path, **changes: int) -> ClassifierRun:
    settings = {"size": 8, "epochs": 3, "batch_size": 8, "workers": 0, **changes}
    return ClassifierRun(data=str(data), **settings)


def test_it_learns_and_says_how_well(two_colours: Path, tmp_path: Path) -> None:
    card = train_classifier(run(two_colours, epochs=12), tmp_path / "out", select("cpu"))
    assert card.accuracy == 1.0
    assert (card.data, card.classes, card.train_images, card.test_images) == (
        "colours",
        ("blue", "red"),
        40,
        10,
    )
    found = load_classifier(tmp_path / "out")
    assert found.card == card
    red = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    red[:, 0] = 200
    assert int(found(red)[1].argmax()) == 1


@pytest.mark.parametrize("folder", ["test", "test/images"])
def test_validation_without_classes_is_refused(two_colours: Path, tmp_path: Path, folder: str) -> None:
    pictures = list((two_colours / "test").rglob("*.png"))
    (two_colours / folder).mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        picture.rename(two_colours / folder / f"{number}.png")
    with pytest.raises(DataError, match=r"10 validation pictures of .* have no class, first .*0\.png"):
        train_classifier(run(two_colours), tmp_path / "out", select("cpu"))
    assert not (tmp_path / "out").exists()


def test_a_seed_decides_the_file(two_colours: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for number, seed in enumerate((0, 0, 1)):
        train_classifier(run(two_colours, epochs=1, seed=seed), tmp_path / str(number), select("cpu"))
    assert torch.equal(torch.random.get_rng_state(), before)
    digests = [load_classifier(tmp_path / str(number)).digest for number in range(3)]
    assert digests[0] == digests[1] != digests[2]


def test_augmentation_shifts_and_flips_and_makes_no_pixels() -> None:
    """Each column of the result is a column of the picture, in rising or falling order."""
    size, count = 16, 400
    columns = torch.arange(size).float().expand(count, 3, size, size)
    rows = columns.transpose(2, 3)
    shifts, flips = set(), 0
    across = augmented(columns, torch.Generator().manual_seed(0))
    down = augmented(rows, torch.Generator().manual_seed(0))
    assert across.shape == columns.shape and torch.equal(
        across, augmented(columns, torch.Generator().manual_seed(0))
    )
    for picture in across:
        line = picture[0, 0]
        assert (picture == line).all()
        middle = line[4:12]
        assert set(middle.diff().tolist()) in ({1.0}, {-1.0})
        flips += int(middle[1] < middle[0])
        shifts.add(int(middle.min()) - 4)
    assert shifts == {-2, -1, 0, 1, 2} and 150 < flips < 250
    assert {int(picture[0, 8, 0]) - 8 for picture in down} == {-2, -1, 0, 1, 2}
    assert (down[:, :, 4:12].diff(dim=2) == 1).all()


def test_data_that_cannot_be_learnt_from(two_colours: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for split in ("train", "test"):
        shutil.rmtree(two_colours / split / "blue")
    with pytest.raises(DataError, match="has one class; a classifier needs two or more"):
        train_classifier(run(two_colours), out, select("cpu"))
    for path in two_colours.rglob("*.png"):
        other = path.parents[1] / "other"
        other.mkdir(exist_ok=True)
        (other / path.name).write_bytes(b"no picture")
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no picture of .*, split train, can be read"):
        train_classifier(run(two_colours), out, select("cpu"))
    assert not out.exists()


def test_a_terminated_run_saves_nothing_and_says_so(
    two_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(module, "_fit", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError, match=r"ended by SIGTERM: .* nothing was saved") as caught:
        train_classifier(run(two_colours), tmp_path / "out", select("cpu"))
    assert caught.value.exit_code == 143 and not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_loss_that_is_not_finite_saves_nothing(
    two_colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "to_float", lambda images: images.float() * torch.inf)
    with pytest.raises(NonFiniteError, match="nothing was saved"):
        train_classifier(run(two_colours), tmp_path / "out", select("cpu"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"size": 4}, {"epochs": 0}, {"batch_size": 0}])
def test_impossible_settings(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        run(Path("nowhere"), **change)
