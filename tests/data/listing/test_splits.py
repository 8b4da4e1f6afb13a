"""Splits, classes and held-out pictures from lists of keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergevq.data.listing.splits import listing_digest, select


def _names(keys: list[str], split: str, holdout: float = 0.2) -> list[str]:
    return [keys[row] for row in select(keys, split, holdout).rows]


_IMAGENET = ["train/dog/1.jpg", "train/cat/2.jpg", "val/dog/3.jpg", "val/owl/4.jpg", "train/dog/deep/5.jpg"]


def test_named_splits_share_their_classes() -> None:
    train, val = select(_IMAGENET, "train", 0.2), select(_IMAGENET, "val", 0.2)
    assert [_IMAGENET[row] for row in train.rows] == [
        "train/cat/2.jpg",
        "train/dog/1.jpg",
        "train/dog/deep/5.jpg",
    ]
    assert train.classes == val.classes == ["cat", "dog", "owl"]
    assert train.labels.tolist() == [0, 1, 1] and val.labels.tolist() == [1, 2]


@pytest.mark.parametrize("word", ["val", "valid", "validation", "test"])
def test_words_for_validation(word: str) -> None:
    keys = ["train/a.jpg", f"{word}/b.jpg"]
    assert _names(keys, "train") == ["train/a.jpg"] and _names(keys, "val") == [f"{word}/b.jpg"]


def test_val_goes_before_test() -> None:
    keys = ["train/a.jpg", "val/b.jpg", "test/c.jpg", "loose.jpg"]
    assert _names(keys, "val") == ["val/b.jpg"] and _names(keys, "train") == ["train/a.jpg"]


def test_a_wrapping_folder_is_seen_through() -> None:
    keys = [f"imagenet/{key}" for key in _IMAGENET]
    assert _names(keys, "val") == ["imagenet/val/dog/3.jpg", "imagenet/val/owl/4.jpg"]


@pytest.mark.parametrize("word", ["train", "val", "test"])
def test_one_named_split_alone_is_held_out_from(word: str) -> None:
    keys = [f"{word}/{name}/{number}.jpg" for name in ("a", "b") for number in range(20)]
    chosen = select(keys, "train", 0.2)
    assert chosen.classes == ["a", "b"] and 20 < len(chosen.rows) < 40


def test_train_may_be_a_class() -> None:
    keys = ["plane/1.jpg", "plane/2.jpg", "train/3.jpg", "train/4.jpg"]
    assert select(keys, "train", 0.5).classes == ["plane", "train"]


def test_flat_pictures_have_one_class() -> None:
    chosen = select(["b.jpg", "a.jpg", "c.jpg"], "train", 0.3)
    assert chosen.classes == ["."] and set(chosen.labels) == {0}


def test_an_unsorted_validation_folder_does_not_shift_the_labels() -> None:
    keys = ["train/a/1.jpg", "train/b/2.jpg", "val/3.jpg"]
    assert select(keys, "train", 0.2).labels.tolist() == [0, 1]
    assert select(keys, "val", 0.2).labels.tolist() == [2]
    assert select(keys, "val", 0.2).classes == ["a", "b", "."]


@given(
    keys=st.lists(
        st.text("abc/", min_size=1, max_size=6).filter(lambda key: key[0] != "/"), min_size=2, unique=True
    ),
    holdout=st.floats(0.001, 0.999),
    turn=st.integers(0, 10),
)
def test_holding_out_partitions(keys: list[str], holdout: float, turn: int) -> None:
    train, val = set(_names(keys, "train", holdout)), set(_names(keys, "val", holdout))
    assert train and val and not train & val and train | val == set(keys)
    turned = keys[turn % len(keys) :] + keys[: turn % len(keys)]
    assert set(_names(turned, "val", holdout)) == val


def test_added_pictures_do_not_move_the_others() -> None:
    keys = [f"{number}.jpg" for number in range(500)]
    before, after = set(_names(keys[:400], "val")), set(_names(keys, "val"))
    assert before == {key for key in after if int(key[:-4]) < 400}
    assert 60 < len(after) < 140


def test_one_picture_is_in_both_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    assert _names(["a.jpg"], "train") == _names(["a.jpg"], "val") == ["a.jpg"]
    assert "one picture" in caplog.text


def test_all_is_both_parts() -> None:
    for keys in (_IMAGENET, ["b.jpg", "a.jpg", "c.jpg"], ["a.jpg"]):
        assert set(_names(keys, "all")) == {*_names(keys, "train"), *_names(keys, "val")}
        assert select(keys, "all", 0.2).classes == select(keys, "train", 0.2).classes
    assert _names(["train/a.jpg", "val/b.jpg", "loose.jpg"], "all") == ["train/a.jpg", "val/b.jpg"]


class _Listing:
    def __init__(self, folder: str, keys: list[str]) -> None:
        selection = select(keys, "all", 0.2)
        self.classes = selection.classes
        self._names = [f"{folder}/{keys[row]}" for row in selection.rows]
        self._labels = selection.labels.tolist()

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return self._names[index]

    def label(self, index: int) -> int:
        return int(self._labels[index])


def test_a_listing_has_one_digest_wherever_it_lies() -> None:
    keys = ["cat/1.jpg", "dog/2.jpg", "owl/3.jpg"]
    digest = listing_digest(_Listing("/here", keys))
    assert digest == listing_digest(_Listing("/there/deeper", keys))
    others = [keys[:2], [*keys, "owl/4.jpg"], ["cat/1.jpg", "dog/2.jpg", "elk/3.jpg"]]
    assert len({digest, *(listing_digest(_Listing("/here", other)) for other in others)}) == 4


def test_a_class_without_pictures_of_the_split_is_in_the_digest() -> None:
    listing = _Listing("/here", ["cat/1.jpg", "dog/2.jpg"])
    digest = listing_digest(listing)
    listing.classes = ["cat", "dog", "owl"]
    assert listing_digest(listing) != digest


@pytest.mark.parametrize(
    ("keys", "classes"),
    [
        (["dog/1.jpg", "dog/young/2.jpg"], ["dog"]),
        (["1.jpg", "dog/2.jpg", "dog/young/3.jpg"], ["dog", "."]),
        (["pets/dog/1.jpg", "pets/dog/young/2.jpg"], ["dog"]),
        (["pets/1.jpg", "pets/dog/2.jpg", "pets/cat/3.jpg"], ["cat", "dog", "."]),
        (["a/b/1.jpg"], ["b"]),
        (["a/1.jpg", "a/train/x/2.jpg", "a/train/y/3.jpg"], ["x", "y", "."]),
    ],
)
def test_what_lies_around_the_classes(keys: list[str], classes: list[str]) -> None:
    assert select(keys, "all", 0.2).classes == classes


def test_held_out_pictures_do_not_order_the_classes() -> None:
    keys = [f"{name}/{number}.jpg" for name in "abcdefgh" for number in range(2)]
    for holdout in (0.1, 0.5, 0.9):
        for split in ("train", "val", "all"):
            assert select(keys, split, holdout).classes == list("abcdefgh")


def test_numbers_take_the_place_of_folders() -> None:
    chosen = select(["b/1.jpg", "a/2.jpg", "a/1.jpg"], "all", 0.2, numbers=[4, 0, 2])
    assert chosen.labels.tolist() == [2, 0, 4] and chosen.classes == ["0", "1", "2", "3", "4"]


def test_many_folders_are_quick() -> None:
    keys = [f"c{row}/{row}.jpg" for row in range(20_000)]
    assert len(select(keys, "train", 0.1).classes) == 20_000
