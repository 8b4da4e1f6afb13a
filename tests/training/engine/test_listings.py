"""A run goes on with the data that it began with, or says what is not as it was."""

from __future__ import annotations

import logging
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import mergevq
from mergevq.config import override
from mergevq.data.images.sources import open_source
from mergevq.data.tokens.extraction import describe, extract
from mergevq.errors import ConfigError
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.engine.listings import check_same_data, list_pictures
from mergevq.training.generator.run import train_generator
from mergevq.training.recovery.run import train_recovery
from mergevq.training.tokenizer.run import train_tokenizer


@pytest.fixture
def data(tmp_path):
    """Four training pictures of two classes, and two to validate on."""
    root = tmp_path / "data"
    for key in ("train/cat/a", "train/cat/b", "train/dog/c", "train/dog/d", "val/cat/e", "val/dog/f"):
        path = root / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), len(key), np.uint8)).save(path)
    return root


def remove_class(root):
    shutil.rmtree(root / "train" / "dog")
    shutil.rmtree(root / "val" / "dog")


def add_picture(root):
    shutil.copy(root / "train/cat/a.png", root / "train/cat/z.png")


def rename_picture(root):
    (root / "train/cat/a.png").rename(root / "train/cat/aa.png")


def change_label(root):
    (root / "train/cat/a.png").rename(root / "train/dog/a.png")


def change_split(root):
    (root / "val/cat/e.png").rename(root / "train/cat/e.png")
    (root / "train/cat/a.png").rename(root / "val/cat/a.png")


def remove_validation(root):
    (root / "val/dog/f.png").unlink()


def rename_class(root):
    for split in ("train", "val"):
        (root / split / "dog").rename(root / split / "wolf")


CHANGES = {
    remove_class: "training pictures: 4 then, 2 now, classes gone: dog",
    add_picture: r"training pictures: 4 then, 5 now, classes of other size: cat \(2, 3\)\)",
    rename_picture: "training pictures: 4 in the same classes, with other names, labels or order",
    change_label: r"classes of other size: cat \(2, 1\), dog \(2, 3\)",
    change_split: "training pictures: 4 in .*; validation pictures: 2 in the same classes, with other names",
    remove_validation: r"\(validation pictures: 2 then, 1 now, classes of other size: dog \(1, 0\)\)",
    rename_class: "classes gone: dog, classes new: wolf; validation",
}


@pytest.fixture
def stopped(small_run, data, cpu, tmp_path):
    """A run of two steps that stands in its folder as the first half of one of four."""
    config = override(small_run, {"data.path": str(data), "train.steps": 2, "train.batch_size": 2})
    out = train_tokenizer(config, tmp_path / "run", cpu)
    edit(out, lambda state: state["config"]["train"].update(steps=4))
    return override(config, {"train.steps": 4}), out


def edit(out, change):
    state = torch.load(out / LAST, weights_only=True)
    change(state["mergevq"])
    torch.save(state, out / LAST)


def listings(root):
    return {
        part: list_pictures(open_source(str(root), split))
        for part, split in (("training", "train"), ("validation", "val"))
    }


@pytest.mark.parametrize(
    ("change", "said"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_changed_pictures_do_not_continue_a_run(data, change, said):
    before = listings(data)
    change(data)
    with pytest.raises(ConfigError, match=said) as caught:
        check_same_data(before, listings(data), data, "pictures")
    assert caught.value.exit_code == 2 and "choose another --out" in str(caught.value)


def test_run_whose_data_lost_a_class_stops(stopped, data, cpu):
    config, out = stopped
    last = (out / LAST).read_bytes()
    remove_class(data)
    with pytest.raises(ConfigError, match="training pictures: 4 then, 2 now, classes gone: dog"):
        train_tokenizer(config, out, cpu)
    assert (out / LAST).read_bytes() == last


def test_same_data_goes_on(stopped, cpu):
    config, out = stopped
    train_tokenizer(config, out, cpu)
    assert torch.load(out / LAST, weights_only=True)["mergevq"]["steps_done"] == 4


def test_run_that_is_older_than_the_listing_goes_on_with_a_line(stopped, data, cpu, caplog):
    config, out = stopped
    edit(out, lambda state: state.pop("data"))
    remove_validation(data)
    with caplog.at_level(logging.INFO, logger="mergevq"):
        train_tokenizer(config, out, cpu)
    assert "is older than the listing of its data" in caplog.text
    assert "data" in torch.load(out / LAST, weights_only=True)["mergevq"]


def test_listing_does_not_name_the_place(data, tmp_path):
    before = listings(data)
    data.rename(tmp_path / "moved")
    assert listings(tmp_path / "moved") == before


@pytest.fixture
def other_tokens(token_home, tmp_path):
    """Makes the tokens of the same pictures once more, after a change to them."""

    def make(change=lambda images: None):
        images = shutil.copytree(token_home / "images", tmp_path / "images")
        change(images)
        tokenizer = mergevq.load(token_home / "tok")
        source = open_source(str(images), "all")
        meta = describe(tokenizer, source, "all", counts=(24, 40), views=3, shard_size=5)
        extract(tokenizer, source, tmp_path / "tokens", meta)
        return str(tmp_path / "tokens")

    return make


def lose_picture(images):
    next(iter(sorted(images.rglob("*.png")))).unlink()


def break_picture(images):
    next(iter(sorted(images.rglob("*.png")))).write_bytes(b"no picture")


@pytest.mark.parametrize("change", [lose_picture, break_picture])
@pytest.mark.parametrize("stage", ["generator", "recovery"])
def test_other_tokens_do_not_continue_a_run(
    generator_run, recovery_run, other_tokens, cpu, tmp_path, stage, change
):
    """Also where the same pictures were made into tokens again and one could no longer be read."""
    train, config = (
        (train_recovery, recovery_run) if stage == "recovery" else (train_generator, generator_run("raster"))
    )
    short = override(config, {"train.steps": 1})
    out = train(short, tmp_path / "run", cpu)
    with pytest.raises(ConfigError, match=r"records: \d+ then, \d+ now, classes of other size"):
        train(override(short, {"data.path": other_tokens(change)}), out, cpu)


def test_other_validation_tokens_do_not_continue_a_run(
    generator_run, other_tokens, token_home, cpu, tmp_path
):
    place = tmp_path / "validation"
    shutil.copytree(token_home / "tokens", place)
    config = generator_run("raster", **{"train.steps": 1, "data.validation": str(place)})
    out = train_generator(config, tmp_path / "run", cpu)
    shutil.rmtree(place)
    shutil.move(other_tokens(lose_picture), place)
    with pytest.raises(ConfigError, match=r"\(validation records: 36 then, 33 now"):
        train_generator(config, out, cpu)
