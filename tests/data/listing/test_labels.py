"""Labels in files beside the pictures: each picture its own, from folders, archives and shards alike."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping

import pytest

from mergevq.data.images.sources import ImageSource, open_source
from mergevq.errors import DataError

Lay = Callable[[Mapping[str, bytes]], str]
Paint = Callable[..., bytes]
ByRed = Callable[[ImageSource], dict[int, str]]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("img.01.png", "img.02.png"), ("img.01.cls", "img.02.cls")),
        (("a.JPG", "b.JPG"), ("a.CLS", "b.CLS")),
        (("d/a.png", "d/b.Jpeg"), ("d/a.cls", "d/b.Cls")),
        (("a.rgb.png", "b.rgb.png"), ("a.cls", "b.cls")),
        (("a.png", "b.png"), ("a.cls", "b.json")),
        (("a.png", "b.png"), ("a.json", "b.json")),
        (("é.png", "ü.png"), (unicodedata.normalize("NFD", "é.cls"), "ü.cls")),
    ],
)
def test_each_picture_has_its_own_label(
    lay: Lay, by_red: ByRed, picture: Paint, names: tuple[str, str], labels: tuple[str, str]
) -> None:
    files = {names[0]: picture(3), names[1]: picture(7)}
    for label, number in zip(labels, (3, 7), strict=True):
        content = {"cls": number, "caption": "x"} if label.endswith("a.json") else {"label": number}
        files[label] = json.dumps(content if label.endswith(".json") else number).encode()
    source = open_source(lay(files), "all")
    assert source.classes == [str(number) for number in range(8)]
    assert by_red(source) == {3: "3", 7: "7"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.cls": b"1"}, r"b\.png has no class number in a \.cls or \.json file and other"),
        ({"a.CLS": b"1"}, r"b\.png has no class number in a"),
        ({"a.json": b'{"label": 1}'}, r"b\.png has no class number in a"),
        ({"a.json": b'{"label": 1}', "b.json": b'{"caption": "x"}'}, r"b\.png has no class number"),
        ({"a.json": b'{"label": 1}', "b.json": b'{"label": "dog"}'}, r"b\.json holds 'dog'"),
        ({"a.json": b'{"label": "cat"}', "b.json": b'{"label": "dog"}'}, r"json holds '(cat|dog)'"),
        ({"a.json": b'{"label": true}', "b.json": b'{"cls": 1.5}'}, r"json holds '(True|1\.5)'"),
        ({"a.json": b'{"label": 1, "cls": 2}', "b.json": b'{"cls": 1}'}, r"a\.json holds '\[2, 1\]'"),
        ({"a.json": b'{"label": ', "b.json": b'{"cls": 1}'}, r"a\.json cannot be read as JSON"),
        ({"a.json": b'{"cls": ' + b"[" * 10**5, "b.json": b""}, r"a\.json cannot be read as JSON"),
        ({"a.json": b'{"cls": ' + b"9" * 5000 + b"}", "b.json": b""}, r"a\.json cannot be read as JSON"),
        ({"a.cls": b"1", "a.CLS": b"2", "b.cls": b"1"}, r"are labels of one picture"),
    ],
)
def test_labels_that_are_not_one_a_picture_are_refused(
    lay: Lay, picture: Paint, files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_source(lay({"a.png": picture(1), "b.png": picture(2), **files}), "train")


@pytest.mark.parametrize("names", [("x.png", "x.jpg"), ("x.rgb.png", "x.depth.png"), ("x.png", "x.1.png")])
def test_two_pictures_never_share_a_label(lay: Lay, picture: Paint, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"share the label x\.cls; give each picture"):
        open_source(lay({names[0]: picture(1), names[1]: picture(2), "x.cls": b"0"}), "train")


def test_json_without_numbers_leaves_the_folders_as_classes(
    lay: Lay, by_red: ByRed, picture: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    files = {f"{name}/1.png": picture(red) for red, name in enumerate(("cat", "dog"))}
    files |= {"cat/1.json": b'{"label": "a cat"}', "dog/1.json": b'{"caption": "a dog"}'}
    assert by_red(open_source(lay(files), "all")) == {0: "cat", 1: "dog"}
    assert "2 .json without a class number (cat/1.json)" in caplog.text
