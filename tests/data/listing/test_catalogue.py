"""What is read and what is passed over: the same for folders, archives and shards."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import pytest
from PIL import Image

from mergevq.data.images.sources import ImageSource, open_source

Lay = Callable[[Mapping[str, bytes]], str]
Paint = Callable[..., bytes]
ByRed = Callable[[ImageSource], dict[int, str]]


@pytest.mark.parametrize(
    "suffix", ["ppm", "pgm", "pbm", "gif", "jfif", "jpe", "avif", "jp2", "bmp", "tif", "TIFF", "webp", "apng"]
)
def test_whatever_pillow_reads_is_read(lay: Lay, suffix: str) -> None:
    buffer = io.BytesIO()
    Image.new("1" if suffix == "pbm" else "L", (16, 16), 1).save(
        buffer, Image.registered_extensions()[f".{suffix.lower()}"]
    )
    source = open_source(lay({f"a/1.{suffix}": buffer.getvalue(), f"b/2.{suffix}": buffer.getvalue()}), "all")
    assert source.classes == ["a", "b"] and source.open(0).size == (16, 16)


def test_of_a_film_the_first_picture_is_read(lay: Lay, by_red: ByRed) -> None:
    buffer = io.BytesIO()
    first, second = (Image.new("RGB", (8, 8), (red, 0, 0)) for red in (200, 10))
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    assert set(by_red(open_source(lay({"1.gif": buffer.getvalue()}), "all"))) == {200}


def test_what_pillow_does_not_read_is_counted(
    lay: Lay, picture: Paint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = ["cat/1.png", "dog/1.heic", "dog/2.HEIC", "dog/3.svg", "readme", "Thumbs.db"]
    open_source(lay({name: picture(1) for name in names}), "all")
    assert "passed over: 5 files that are no pictures (2 x .heic, 1 x .db, 1 x .svg, ...)" in caplog.text


@pytest.mark.parametrize(
    ("part", "counts"),
    [
        ("x.seg.png", True),
        ("x.mask.PNG", True),
        ("x.seg.1.png", True),
        ("x.1.png", False),
        ("y.seg.png", False),
    ],
)
def test_masks_are_no_pictures(
    lay: Lay, by_red: ByRed, picture: Paint, part: str, counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = lay({"d/x.jpg": picture(1), f"d/{part}": picture(2), f"e/{part}": picture(3)})
    assert set(by_red(open_source(path, "all"))) == ({1, 3} if counts else {1, 2, 3})
    said = f"passed over: 1 mask or other part of a sample (d/{part} beside d/x.jpg)"
    assert (said in caplog.text) == counts


@pytest.mark.parametrize(
    "name",
    ["._1.png", ".git/1.png", "__MACOSX/a/._1.png", "__MACOSX/1.png", "a/@eaDir/1.png", "a/.x/b/1.png"],
)
def test_what_the_system_left_is_hidden(
    lay: Lay, by_red: ByRed, picture: Paint, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    source = open_source(lay({"a/1.png": picture(1), "b/2.png": picture(2), name: picture(3)}), "all")
    assert by_red(source) == {1: "a", 2: "b"}
    assert "passed over: 1 hidden file or folder (" in caplog.text


def test_an_empty_file_says_so(lay: Lay, picture: Paint) -> None:
    source = open_source(lay({"1.png": b"", "2.png": picture(1)}), "all")
    with pytest.raises(OSError, match="the file is empty"):
        source.open(0)
