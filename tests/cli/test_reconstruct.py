"""reconstruct: the figure, and what it refuses before it encodes anything."""

from __future__ import annotations

import pytest
from PIL import Image


def test_the_figure_has_a_column_a_count(mergevq_process, tiny, image_folder, tmp_path):
    out = tmp_path / "grid.png"
    arguments = ("--keep", "16,32,64", "--limit", 2, "--out", out)
    result = mergevq_process("reconstruct", "--checkpoint", tiny, image_folder, *arguments)
    assert result.code == 0, result.err
    assert result.out == f"2 pictures at 16, 32, 64 tokens: {out}\n"
    assert "the first 2 of 12 pictures" in result.err
    with Image.open(out) as figure:
        width, height = figure.size
    # Four columns and, for each picture, two rows of reconstructions and one of source maps, 160 px each.
    assert 4 * 160 < width < 4 * 160 + 260 and 6 * 160 < height < 6 * 160 + 260


def test_default_counts_and_another_size(mergevq_main, tiny, image_folder, tmp_path):
    picture = next(image_folder.rglob("*.png"))
    arguments = ("reconstruct", "--checkpoint", tiny, picture, "--out", tmp_path / "g.webp")
    assert "at 16, 32, 64 tokens" in mergevq_main(*arguments).out
    assert "at 36, 72, 144 tokens" in mergevq_main(*arguments, "--size", 48).out


def test_a_broken_picture_is_named(mergevq_main, tiny, broken_jpeg, tmp_path):
    folder = broken_jpeg.parent
    result = mergevq_main("reconstruct", "--checkpoint", tiny, folder, "--out", tmp_path / "g.png")
    assert result.code == 1 and str(broken_jpeg) in result.err and (tmp_path / "g.png").exists()
    assert result.error == "1 of 7 pictures had to be left out; the others are done"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere.png",), 2, "nowhere.png does not exist"),
        (("builtin:photos", "--keep", "64,3"), 2, "the nearest count that can be reached is 16"),
        (("builtin:photos", "--out", "/proc/nowhere/g.png"), 1, "cannot write /proc/nowhere/g.png"),
        (("builtin:photos", "--checkpoint", "nowhere"), 1, "there is no checkpoint at nowhere"),
    ],
)
def test_what_cannot_be_done(mergevq_main, tiny, tmp_path, arguments, code, said):
    out = tmp_path / "g.png"
    result = mergevq_main("reconstruct", "--checkpoint", tiny, "--out", out, *arguments)
    assert result.code == code and said in result.error and not out.exists()
