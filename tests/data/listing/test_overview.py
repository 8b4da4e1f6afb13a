"""The line with which a command begins."""

from __future__ import annotations

import pytest

from mergevq.data.images.sources import open_source
from mergevq.data.listing.overview import overview
from mergevq.data.listing.passed_over import OTHER, PART, SPECIAL, PassedOver
from mergevq.data.listing.splits import Census


@pytest.mark.parametrize(
    ("census", "classes", "line"),
    [
        (Census(1, None, "", named=False), ["."], "data p: 1 picture, no classes"),
        (
            Census(95, 5, "5% held out", named=False),
            ["cat", "."],
            "data p: 95 training and 5 validation pictures (5% held out), 1 class (cat)",
        ),
        (
            Census(4, 2, "train, val", named=True, remarks=["2 of the pictures without a class"]),
            ["a", "b", "c", "d\n"],
            "data p: 4 training and 2 validation pictures (train, val), 4 classes (a ... d?); "
            "2 of the pictures without a class",
        ),
    ],
)
def test_the_line(census: Census, classes: list[str], line: str) -> None:
    assert overview("p", census, classes) == line


def test_what_was_passed_over_has_its_reason() -> None:
    passed = PassedOver()
    passed.add(PART, "x.seg.png beside x.png", 3)
    passed.add(SPECIAL, "p.jpg")
    for name in ("a.txt", "b.TXT", "c"):
        passed.add_other(name)
    line = overview("p", Census(1, None, "", named=False), ["."], passed)
    assert line.partition("passed over: ")[2] == (
        "3 masks or other parts of samples (x.seg.png beside x.png), 1 FIFO, socket or device (p.jpg), "
        f"3 {OTHER.many} (2 x .txt, 1 x no extension)"
    )


@pytest.mark.parametrize("name", ["photos", "digits"])
@pytest.mark.parametrize("split", ["train", "val", "all"])
def test_built_in_sets_are_counted_without_decoding(
    name: str, split: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    count = len(open_source(f"builtin:{name}", split))  # type: ignore[arg-type]
    word = {"train": " training", "val": " validation pictures", "all": " pictures,"}[split]
    assert f" {count}{word}" in caplog.text
