"""Splits and classes by folders: the same for folders, archives and shards."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping

import pytest

from mergevq.data.images.sources import ImageSource, open_source
from mergevq.errors import DataError

Lay = Callable[[Mapping[str, bytes]], str]
Paint = Callable[..., bytes]
ByRed = Callable[[ImageSource], dict[int, str]]


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train2017", "val2017"),
        ("Train", "Val"),
        ("TRAIN", "TEST"),
        ("training", "validation"),
        ("Training", "dev"),
        ("train", "eval"),
        ("train_256", "val_256"),
        ("imagenet-train", "imagenet-val"),
        ("train_images", "test_images"),
    ],
)
@pytest.mark.parametrize("around", ["", "data/set/"])
def test_names_of_splits(lay: Lay, by_red: ByRed, picture: Paint, train: str, val: str, around: str) -> None:
    files = {f"{around}{train}/cat/{red}.png": picture(red) for red in range(4)}
    files |= {f"{around}{train}/dog/{red}.png": picture(red) for red in range(4, 8)}
    files |= {f"{around}{val}/dog/{red}.png": picture(red) for red in range(8, 12)}
    path = lay(files)
    assert (set(by_red(open_source(path, "train"))), set(by_red(open_source(path, "val")))) == (
        set(range(8)),
        set(range(8, 12)),
    )
    assert open_source(path, "train").classes == ["cat", "dog"]


@pytest.mark.parametrize(
    "stray", ["cover.png", "imagenet/cover.png", "imagenet/docs/1.png", "other/deep/1.png"]
)
def test_a_stray_picture_beside_the_splits_is_passed_over_and_said(
    lay: Lay, by_red: ByRed, picture: Paint, stray: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    around = "imagenet/" if stray != "other/deep/1.png" else ""
    files = {f"{around}train/{name}/1.png": picture(red) for red, name in enumerate(("cat", "dog"))}
    files |= {f"{around}val/{name}/2.png": picture(red) for red, name in enumerate(("cat", "dog"), 2)}
    path = lay({**files, stray: picture(99)})
    assert by_red(open_source(path, "all")) == {0: "cat", 1: "dog", 2: "cat", 3: "dog"}
    assert "2 training and 2 validation pictures (train, val), 2 classes (cat, dog)" in caplog.text
    assert "passed over: 1 picture outside the splits" in caplog.text


def test_a_stray_picture_beside_a_wrapped_data_set_does_not_hide_the_classes(
    lay: Lay, by_red: ByRed, picture: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    files = {f"pets/{name}/1.png": picture(red) for red, name in enumerate(("cat", "dog"))}
    source = open_source(lay({**files, "cover.png": picture(9)}), "all")
    assert source.classes == ["cat", "dog", "."] and by_red(source) == {0: "cat", 1: "dog", 9: "."}
    assert "3 pictures, 2 classes (cat, dog); 1 of the pictures without a class" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train2014/1.png", "train2017/1.png", "val2017/1.png"), "train2014 and train2017 have names"),
        (("train/1.png", "val2014/1.png", "val2017/1.png"), "val2014 and val2017 have names"),
        (("images/train/1.png", "images/val/1.png", "masks/train/1.png"), "images holds train and val"),
        (("cat/train/1.png", "cat/test/1.png", "dog/train/1.png"), "cat holds train and test"),
    ],
)
def test_splits_that_are_unclear_are_refused(
    lay: Lay, picture: Paint, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(lay({name: picture(1) for name in names}), "train")


def _tiny_imagenet(picture: Paint) -> dict[str, bytes]:
    files = {f"tiny/train/{name}/images/{name}_0.JPEG": picture(red) for red, name in enumerate("ab")}
    files |= {f"tiny/train/{name}/{name}_boxes.txt": b"" for name in "ab"}
    return files | {f"tiny/val/images/val_{red}.JPEG": picture(red) for red in range(10, 14)}


def test_tiny_imagenets_validation_has_the_classes_of_its_annotations(
    lay: Lay, by_red: ByRed, picture: Paint
) -> None:
    lines = [f"val_{red}.JPEG\t{'ab'[red % 2]}\t0\t32\t44\t62\n" for red in range(10, 14)]
    path = lay({**_tiny_imagenet(picture), "tiny/val/val_annotations.txt": "".join(lines).encode()})
    assert by_red(open_source(path, "val")) == {10: "a", 11: "b", 12: "a", 13: "b"}
    assert by_red(open_source(path, "train")) == {0: "a", 1: "b"}
    assert open_source(path, "train").classes == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"val_10.JPEG\ta\n", r"val_11\.JPEG is not in tiny/val/val_annotations\.txt"),
        (b"val_10.JPEG a\n", r"val_annotations\.txt, line 1, is not a file name, a tab"),
    ],
)
def test_annotations_that_leave_a_picture_out_are_refused(
    lay: Lay, picture: Paint, line: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(lay({**_tiny_imagenet(picture), "tiny/val/val_annotations.txt": line}), "val")


@pytest.mark.parametrize("folder", ["val/images/", "val/"])
def test_validation_pictures_without_classes_never_shift_the_labels(
    lay: Lay, by_red: ByRed, picture: Paint, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    files = {f"train/{name}/1.png": picture(red) for red, name in enumerate(("kite", "zebra"))}
    path = lay({**files, f"{folder}2.png": picture(2), f"{folder}3.png": picture(3)})
    train, val = open_source(path, "train"), open_source(path, "val")
    assert train.classes == val.classes == ["kite", "zebra", "."]
    assert [train.label(row) for row in range(2)] == [0, 1] and by_red(val) == {2: ".", 3: "."}
    assert "2 classes (kite, zebra); 2 of the pictures without a class" in caplog.text


@pytest.mark.parametrize("names", [("train/1.png", "val/images/2.png"), ("train/images/1.png", "val/2.png")])
def test_a_folder_of_images_is_no_class(
    lay: Lay, by_red: ByRed, picture: Paint, names: tuple[str, str]
) -> None:
    path = lay({name: picture(red) for red, name in enumerate(names)})
    assert by_red(open_source(path, "all")) == {0: ".", 1: "."}
    assert open_source(path, "train").classes == ["."]


def test_classes_of_validation_alone_come_last_and_are_said(
    lay: Lay, picture: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = ["train/cat/1.png", "train/dog/2.png", "val/ant/3.png", "val/dog/4.png", "val/bee/5.png"]
    source = open_source(lay({name: picture(red) for red, name in enumerate(names)}), "train")
    assert source.classes == ["cat", "dog", "ant", "bee"]
    assert "4 classes (cat ... bee); 2 in validation alone (ant, bee)" in caplog.text


def test_a_class_in_two_unicode_forms_is_one(lay: Lay, by_red: ByRed, picture: Paint) -> None:
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    files = {f"train/{names[0]}/1.png": picture(1), f"val/{names[1]}/2.png": picture(2)}
    source = open_source(lay({**files, "train/bar/3.png": picture(3)}), "all")
    assert source.classes == ["bar", names[0]] and by_red(source) == {1: names[0], 2: names[0], 3: "bar"}
