"""Grey TIFFs of more than 8 bits, written here, against levels computed here."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from mergevq.data.images.decode import to_rgb
from mergevq.data.images.formats import depth
from mergevq.data.images.formats.opening import open_picture

UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_FORMATS = {
    (16, UNSIGNED): "u2",
    (16, SIGNED): "i2",
    (32, UNSIGNED): "u4",
    (32, SIGNED): "i4",
    (32, FLOAT): "f4",
}


def tiff(
    values: np.ndarray, bits: int, kind: int = UNSIGNED, white_is_zero: bool = False, order: str = "<"
) -> bytes:
    """An uncompressed grey TIFF of (H, W) values in one strip."""
    if bits == 12:
        rows = ((values[..., None] >> np.arange(12)[::-1]) & 1).astype(np.uint8).reshape(len(values), -1)
        pixels = np.packbits(rows, axis=-1).tobytes()
    else:
        pixels = values.astype(order + _FORMATS[bits, kind]).tobytes()
    height, width = values.shape
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 0 if white_is_zero else 1,
        273: 8,
        277: 1,
        278: height,
        279: len(pixels),
        339: kind,
    }
    entries = [
        struct.pack(f"{order}HHI", tag, 4, 1) + struct.pack(f"{order}I", value) for tag, value in tags.items()
    ]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(pixels))
    return head + pixels + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + b"\0" * 4


def levels(data: bytes) -> np.ndarray:
    pixels = np.asarray(to_rgb(open_picture(data)))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [12, 16, 32])
def test_integers_of_every_depth(bits: int, order: str) -> None:
    if (bits, order) in {(12, ">"), (32, ">")}:
        pytest.skip("Pillow reads no such files")
    white = {12: 4095, 16: 65535, 32: 2**31 - 1}[bits]
    values = np.linspace(0, white, 40).round().astype(np.int64).reshape(4, 10)
    assert (levels(tiff(values, bits, order=order)) == np.rint(values * (255 / white))).all()


@pytest.mark.parametrize(("bits", "kind"), [(16, UNSIGNED), (32, FLOAT)])
def test_zero_may_be_white(bits: int, kind: int) -> None:
    white = 1.0 if kind == FLOAT else 65535
    values = np.linspace(0, white, 40).reshape(4, 10)
    assert (
        np.abs(levels(tiff(values, bits, kind, white_is_zero=True)) - (255 - values * (255 / white))).max()
        <= 0.51
    )


@pytest.mark.parametrize(("bits", "kind"), [(16, SIGNED), (32, SIGNED), (32, FLOAT), (32, UNSIGNED)])
def test_negative_pixels_are_no_picture(bits: int, kind: int) -> None:
    values = np.array([[2**32 - 3 if kind == UNSIGNED else -3, 7]])
    with pytest.raises(
        ValueError, match=r"(integer|floating-point) pixels go down to -3; 0 or more is wanted"
    ):
        levels(tiff(values, bits, kind))


def test_signed_pixels_that_are_not_negative_are_read() -> None:
    assert levels(tiff(np.array([[0, 32767]]), 16, SIGNED)).tolist() == [[0, 127]]


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_strips_make_no_difference(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (23, 17))
    image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    assert image.mode == mode
    whole = np.asarray(depth.to_8_bits(image))
    monkeypatch.setattr(depth, "_STRIP", 40)
    assert (np.asarray(depth.to_8_bits(image)) == whole).all()
    assert (whole == np.rint(values * (255 / 65535))).all()
