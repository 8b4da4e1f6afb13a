"""Pictures of results: labelled grids, source maps, reconstruction figures, curves.

Tensors and PIL pictures in, PIL pictures out; `save_picture` writes one and never leaves half a file.
Small pictures are enlarged by whole factors with nearest neighbours, so that every pixel can be seen.
"""

from __future__ import annotations

import colorsys
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from mergevq.errors import UsageError
from mergevq.plotting import own_settings
from mergevq.storage.files import expanded, write_atomically
from mergevq.tokens import Tokens

if TYPE_CHECKING:  # pictures from exported graphs are drawn without it
    import torch

Picture: TypeAlias = "torch.Tensor | Image.Image"
"""(3, H, W) or (1, H, W) uint8, or a PIL picture."""

_PAPER = (255, 255, 255)
_INK = (32, 33, 36)
_FAINT = (105, 108, 115)
_TEXT, _CAPTION, _TITLE = 15, 12, 20
_GAP = 8
_VISIBLE = 160
_TINT = 0.5
_BORDER = (255, 255, 255)
_COLOURS = ("#1f5fbf", "#d9541e", "#2f9e62", "#8a4fb5", "#b8860b")
_GREY = "#6b7078"


def to_picture(image: Picture) -> Image.Image:
    """A PIL picture in RGB.

    Raises:
        UsageError: a tensor is not (3, H, W) or (1, H, W) uint8.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    import torch

    if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] not in (1, 3):
        raise UsageError(f"a picture is (3, H, W) or (1, H, W) uint8, not {tuple(image.shape)} {image.dtype}")
    pixels = image.detach().cpu().expand(3, -1, -1).permute(1, 2, 0)  # (H, W, 3)
    return Image.fromarray(pixels.contiguous().numpy())


def enlarge(image: Picture, scale: int | None = None) -> Image.Image:
    """A picture with every pixel a square of `scale` pixels; None picks a scale that is easy to see."""
    picture = to_picture(image)
    if scale is None:
        scale = -(-_VISIBLE // max(picture.size))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def grid(
    rows: Sequence[Sequence[Picture | None]],
    *,
    columns: Sequence[str] = (),
    labels: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    title: str = "",
    scale: int | None = None,
) -> Image.Image:
    """Pictures in rows and columns on white paper.

    Args:
        rows: pictures; None leaves a cell empty.
        columns: a heading for each column.
        labels: a label on the left of each row.
        captions: a line under each picture, laid out like `rows`; "" for none.
        title: a line above everything.
        scale: whole factor of enlargement; None picks one for each picture.

    Raises:
        UsageError: there are no pictures, or headings, labels or captions do not match them.
    """
    width = max((len(row) for row in rows), default=0)
    if not any(cell is not None for row in rows for cell in row):
        raise UsageError("a grid needs one picture at least")
    _check_count("columns", columns, width)
    _check_count("labels", labels, len(rows))
    _check_count("captions", captions, len(rows))
    cells: list[list[Image.Image | None]] = [
        [None if cell is None else enlarge(cell, scale) for cell in row] for row in rows
    ]
    for row, line in zip(cells, captions, strict=False):
        _check_count("captions in a row", line, len(row))
        if any(line):
            row[:] = [_captioned(cell, text) for cell, text in zip(row, line, strict=True)]
    if columns:
        cells.insert(0, [_text(heading, _TEXT) for heading in columns])
    if labels:
        side = [_text(label, _TEXT) for label in labels]
        for row, label in zip(cells, [None, *side] if columns else side, strict=True):
            row.insert(0, label)
    sheet = _table(cells)
    return _framed(_table([[_text(title, _TITLE)], [sheet]]) if title else sheet)


def source_map(
    image: Picture, source: torch.Tensor, grid: tuple[int, int], scale: int | None = None
) -> Image.Image:
    """A picture under its source map: each token that merged several positions is a region of one colour.

    Positions that were kept alone stay as they are. A white line runs wherever two neighbouring positions
    belong to different tokens, of which one at least is merged.
    Source: MergeVQ (arXiv:2504.00999), Figure 4.

    Args:
        image: the picture that was encoded.
        source: (L,) integers in [0, K), the token of each raster position.
        grid: (h, w) with h * w = L.
        scale: whole factor of enlargement; None picks one.

    Raises:
        UsageError: the source does not fit the grid.
    """
    height, width = grid
    if source.shape != (height * width,):
        raise UsageError(
            f"source is {tuple(source.shape)}; a {height} x {width} grid needs ({height * width},)"
        )
    pixels = np.asarray(enlarge(image, scale), dtype=np.float32)  # (H, W, 3)
    tokens = source.detach().cpu().numpy().reshape(height, width)
    down = np.arange(pixels.shape[0]) * height // pixels.shape[0]
    right = np.arange(pixels.shape[1]) * width // pixels.shape[1]
    tokens = tokens[down][:, right]  # (H, W)
    sizes = np.bincount(source.detach().cpu().numpy())
    merged = sizes[tokens] > 1  # (H, W)
    strength = _TINT * merged[..., None]
    painted = pixels * (1 - strength) + _palette(sizes)[tokens] * strength
    painted[_borders(tokens, merged)] = _BORDER
    return Image.fromarray(painted.round().astype(np.uint8))


def reconstruction_figure(
    originals: torch.Tensor,
    reconstructions: Mapping[int, torch.Tensor],
    tokens: Mapping[int, Tokens],
    *,
    recovered: Mapping[int, torch.Tensor] | None = None,
    title: str = "",
    scale: int | None = None,
) -> Image.Image:
    """Originals, their reconstructions at each K with the PSNR below, and their source maps.

    Args:
        originals: (B, 3, H, W) uint8.
        reconstructions: K to (B, 3, H, W) uint8, decoded from the true source.
        tokens: K to the tokens of the originals, whose source is drawn.
        recovered: K to (B, 3, H, W) uint8, decoded from the recovered source; adds a row an image.
        title: a line above everything.
        scale: whole factor of enlargement; None picks one.
    """
    lines = {"true source": reconstructions, "recovered source": recovered or {}}
    rows: list[list[Picture | None]] = []
    captions: list[list[str]] = []
    labels: list[str] = []
    for i, original in enumerate(originals):
        for label, painted in lines.items():
            if painted:
                first = enlarge(original, scale) if label == "true source" else None
                rows.append([first, *(enlarge(painted[keep][i], scale) for keep in reconstructions)])
                captions.append(["", *(_decibels(painted[keep][i], original) for keep in reconstructions)])
                labels.append(label)
        maps = [
            source_map(original, tokens[keep].source[i], tokens[keep].grid, scale) for keep in reconstructions
        ]
        rows.append([None, *maps])
        captions.append([""] * len(rows[-1]))
        labels.append("merged regions")
    columns = ["original", *(f"{keep} tokens" for keep in reconstructions)]
    return grid(rows, columns=columns, labels=labels, captions=captions, title=title, scale=1)


@own_settings()
def curve(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    lines: Mapping[str, float] | None = None,
) -> Image.Image:
    """Curves over one axis, with constant baselines as dashed lines.

    Args:
        series: name to (x, y) points, drawn in the order given.
        x_label: quantity and unit of x.
        y_label: quantity and unit of y.
        title: a line above the axes.
        lines: name to the y of a baseline.

    Raises:
        UsageError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.5), dpi=130, layout="constrained")
    axes = figure.subplots()
    for (name, points), colour in zip(series.items(), itertools.cycle(_COLOURS)):
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4.5, color=colour, label=name)
    for (name, level), style in zip((lines or {}).items(), itertools.cycle(("--", ":", "-."))):
        axes.axhline(level, color=_GREY, linestyle=style, linewidth=1.2, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def save_picture(image: Picture, path: Path | str) -> None:
    """Write a picture in the format of the path's suffix; the old file stays until the new one is whole.

    Raises:
        UsageError: the suffix names no picture format.
        OutputError: the file cannot be written.
    """
    path = expanded(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise UsageError(f"{path} has no suffix of a picture format; use .png, .jpg or .webp")
    picture = to_picture(image)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            picture.save(file, kind)

    write_atomically(path, write)


def _palette(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(K, 3) colours; hues a golden angle apart in the order of size keep the large regions distinct."""
    colours = np.zeros((len(sizes), 3), dtype=np.float32)
    for rank, token in enumerate(np.argsort(-sizes, kind="stable")):
        hue = (0.58 + rank * 0.6180339887) % 1
        lightness = (0.52, 0.62, 0.44)[rank % 3]
        colours[token] = [255 * value for value in colorsys.hls_to_rgb(hue, lightness, 0.7)]
    return colours


def _borders(tokens: npt.NDArray[np.int64], merged: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels whose upper or left neighbour belongs to another token, where either is merged."""
    border = np.zeros(tokens.shape, dtype=bool)
    border[1:] |= (tokens[1:] != tokens[:-1]) & (merged[1:] | merged[:-1])
    border[:, 1:] |= (tokens[:, 1:] != tokens[:, :-1]) & (merged[:, 1:] | merged[:, :-1])
    return border


def _decibels(image: torch.Tensor, original: torch.Tensor) -> str:
    from mergevq.metrics.image import psnr

    return f"{float(psnr(image[None], original[None])):.1f} dB"


def _text(text: str, size: int, colour: tuple[int, int, int] = _INK) -> Image.Image:
    """A line of text on a slip of paper that fits it."""
    font = ImageFont.load_default(size)
    slip = Image.new("RGB", (math.ceil(font.getlength(text)) + 1, round(1.3 * size)), _PAPER)
    ImageDraw.Draw(slip).text((0, slip.height // 2), text, fill=colour, font=font, anchor="lm")
    return slip


def _captioned(cell: Image.Image | None, caption: str) -> Image.Image | None:
    """A picture with a line centred below it."""
    if cell is None:
        return None
    return _table([[cell], [_text(caption, _CAPTION, _FAINT)]], gap=2)


def _table(rows: Sequence[Sequence[Image.Image | None]], gap: int = _GAP) -> Image.Image:
    """Pictures centred in the cells of a table whose columns and rows fit the largest of each."""
    count = max(len(row) for row in rows)
    columns = [[row[i] for row in rows if i < len(row)] for i in range(count)]
    widths = [max((cell.width for cell in column if cell), default=0) for column in columns]
    heights = [max((cell.height for cell in row if cell), default=0) for row in rows]
    sheet = Image.new("RGB", (sum(widths) + gap * (count - 1), sum(heights) + gap * (len(rows) - 1)), _PAPER)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for cell, width in zip(row, widths, strict=False):
            if cell is not None:
                sheet.paste(cell, (left + (width - cell.width) // 2, top + (height - cell.height) // 2))
            left += width + gap
        top += height + gap
    return sheet


def _framed(sheet: Image.Image) -> Image.Image:
    return ImageOps.expand(sheet, border=2 * _GAP, fill=_PAPER)


def _check_count(name: str, given: Sequence[object], wanted: int) -> None:
    if len(given) not in (0, wanted):
        raise UsageError(f"the grid got {len(given)} {name}; {wanted} or none are wanted")
