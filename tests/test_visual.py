"""Figures: where the borders run, how large the sheets are, and files that are whole or untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mergevq import visual
from mergevq.errors import OutputError, UsageError
from mergevq.tokens import Tokens

WHITE = np.array([255, 255, 255], dtype=np.uint8)


def grey(height: int, width: int, level: int = 90) -> torch.Tensor:
    return torch.full((3, height, width), level, dtype=torch.uint8)


def some_tokens(batch: int, keep: int) -> Tokens:
    source = torch.arange(16).clamp(max=keep - 1).expand(batch, -1)
    sizes = torch.stack([torch.bincount(row, minlength=keep) for row in source])
    return Tokens(torch.zeros(batch, keep, dtype=torch.int64), source, sizes, (4, 4))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=12, max_size=12))
def test_borders_run_exactly_where_the_source_differs(source: list[int]) -> None:
    """3 x 4 positions of 6 px; a border pixel is the first below or right of a change."""
    drawn = np.asarray(visual.source_map(grey(18, 24), torch.tensor(source), (3, 4), scale=1))
    tokens = np.array(source).reshape(3, 4)
    merged = np.bincount(source)[tokens] > 1
    for y in range(18):
        for x in range(24):
            here = (y // 6, x // 6)
            expected = any(
                tokens[here] != tokens[there] and (merged[here] or merged[there])
                for there in ((max(y - 1, 0) // 6, x // 6), (y // 6, max(x - 1, 0) // 6))
            )
            assert (drawn[y, x] == WHITE).all() == expected, (y, x)


def test_lone_positions_keep_the_picture_and_merged_ones_share_a_colour() -> None:
    image = torch.randint(0, 200, (3, 16, 16), dtype=torch.uint8)
    assert np.array_equal(
        np.asarray(visual.source_map(image, torch.arange(16), (4, 4), scale=1)),
        image.permute(1, 2, 0).numpy(),
    )
    source = torch.tensor([0, 1, 0, 1] * 4)
    flat = np.asarray(visual.source_map(grey(16, 16), source, (4, 4), scale=1))
    inside = [flat[2, 4 * column + 2] for column in range(4)]
    assert (inside[0] == inside[2]).all()
    assert (inside[1] == inside[3]).all()
    assert (inside[0] != inside[1]).any()
    assert (inside[0] != 90).any()


def test_colours_of_many_regions_differ() -> None:
    palette = visual._palette(np.full(64, 4))
    assert len(np.unique(palette.round(), axis=0)) == 64
    assert palette.min() >= 0
    assert palette.max() <= 255


def test_a_source_map_is_enlarged_before_it_is_drawn() -> None:
    drawn = visual.source_map(grey(16, 16), torch.zeros(16, dtype=torch.int64), (4, 4))
    assert drawn.size == (160, 160)
    with pytest.raises(UsageError, match="4 x 4 grid needs"):
        visual.source_map(grey(16, 16), torch.zeros(9, dtype=torch.int64), (4, 4))


def test_enlarging_repeats_pixels() -> None:
    image = torch.randint(0, 256, (3, 5, 4), dtype=torch.uint8)
    large = torch.from_numpy(np.array(visual.enlarge(image, 3))).permute(2, 0, 1)
    assert torch.equal(large, image.repeat_interleave(3, 1).repeat_interleave(3, 2))
    assert visual.enlarge(image).size == (4 * 32, 160)
    assert visual.enlarge(grey(200, 300)).size == (300, 200)


def test_one_channel_becomes_grey_and_floats_are_refused() -> None:
    assert visual.to_picture(torch.zeros(1, 4, 4, dtype=torch.uint8)).mode == "RGB"
    assert visual.to_picture(Image.new("L", (4, 4))).mode == "RGB"
    with pytest.raises(UsageError, match="float32"):
        visual.to_picture(torch.zeros(3, 4, 4))


def test_a_grid_holds_every_picture_unchanged() -> None:
    rows = [[grey(10, 12, 10), grey(10, 12, 20)], [None, grey(10, 12, 40)]]
    plain = visual.grid(rows, scale=2)
    gap, margin = visual._GAP, 2 * visual._GAP
    assert plain.size == (2 * 24 + gap + 2 * margin, 2 * 20 + gap + 2 * margin)
    pixels = np.asarray(plain)
    found = pixels[margin:, margin:]
    assert (found[:20, :24] == 10).all()
    assert (found[:20, 24 + gap : 48 + gap] == 20).all()
    assert (found[20 + gap : 40 + gap, 24 + gap : 48 + gap] == 40).all()
    assert (found[20 + gap : 40 + gap, :24] == 255).all()
    labelled = visual.grid(
        rows, columns=["one", "two"], labels=["a", "b"], captions=[["x", "y"], ["", "z"]], title="t", scale=2
    )
    assert labelled.width > plain.width
    assert labelled.height > plain.height
    for level, times in ((10, 1), (20, 1), (40, 1)):
        assert (np.asarray(labelled) == level).all(-1).sum() >= times * 24 * 20


def test_a_grid_refuses_what_does_not_match() -> None:
    cell = grey(8, 8)
    with pytest.raises(UsageError, match="one picture"):
        visual.grid([[None]])
    with pytest.raises(UsageError, match="one picture"):
        visual.grid([])
    with pytest.raises(UsageError, match="3 columns; 2"):
        visual.grid([[cell, cell]], columns=["a", "b", "c"])
    with pytest.raises(UsageError, match="2 labels; 1"):
        visual.grid([[cell]], labels=["a", "b"])
    with pytest.raises(UsageError, match="1 captions in a row; 2"):
        visual.grid([[cell, cell]], captions=[["a"]])


def test_a_figure_has_a_row_a_source_and_one_for_the_regions() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    tokens = {keep: some_tokens(2, keep) for keep in (4, 8)}
    painted = {keep: images.clone() for keep in tokens}
    plain = visual.reconstruction_figure(images, painted, tokens, scale=4)
    both = visual.reconstruction_figure(images, painted, tokens, recovered=painted, title="title", scale=4)
    one = visual.reconstruction_figure(images, {4: painted[4]}, tokens, scale=4)
    assert both.height > plain.height + 2 * 64
    assert plain.width >= one.width + 64
    original = visual.enlarge(images[0], 4)
    assert np.array_equal(np.asarray(original), crop_of(plain, original))


def crop_of(sheet: Image.Image, cell: Image.Image) -> np.ndarray | None:
    """The part of a sheet that equals the cell, if there is one."""
    page, part = np.asarray(sheet), np.asarray(cell)
    height, width = part.shape[:2]
    for top in range(page.shape[0] - height + 1):
        for left in range(page.shape[1] - width + 1):
            if (page[top, left] == part[0, 0]).all():
                crop = page[top : top + height, left : left + width]
                if np.array_equal(crop, part):
                    return crop
    return None


def test_a_curve_is_drawn_without_global_state() -> None:
    from matplotlib import _pylab_helpers

    drawn = visual.curve(
        {"true": [(1, 10.0), (4, 20.0)]}, x_label="x", y_label="y", title="t", lines={"flat": 12.0}
    )
    again = visual.curve({"true": [(1, 10.0), (4, 20.0)]}, x_label="x", y_label="y", title="t")
    assert drawn.mode == "RGB"
    assert drawn.size == again.size
    assert not np.array_equal(np.asarray(drawn), np.asarray(again))
    assert not _pylab_helpers.Gcf.figs


@pytest.mark.parametrize("name", ["a.png", "deep/er/a.jpg", "a.WEBP"])
def test_a_saved_picture_is_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    visual.save_picture(grey(8, 9), path)
    with Image.open(path) as found:
        assert found.size == (9, 8)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    visual.save_picture(grey(8, 8, 1), path)
    before = path.read_bytes()

    def full(self: Image.Image, file: object, kind: str) -> None:
        file.write(b"half a picture")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"a\.png.*No space left on device"):
        visual.save_picture(grey(8, 8, 2), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unusable_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        visual.save_picture(grey(8, 8), tmp_path / "file" / "a.png")
    for name in ("a", "a.txt"):
        with pytest.raises(UsageError, match="suffix"):
            visual.save_picture(grey(8, 8), tmp_path / name)
