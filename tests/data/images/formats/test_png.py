"""PNG files of every kind, written here and read against pixels computed here; chunks that are no pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mergevq.data.images.decode import to_rgb
from mergevq.data.images.formats.opening import open_picture
from mergevq.data.images.formats.png import without_extras

GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}
KINDS = [
    *((GREY, depth) for depth in (1, 2, 4, 8, 16)),
    *((PALETTE, depth) for depth in (1, 2, 4, 8)),
    *((kind, depth) for kind in (COLOUR, GREY_ALPHA, COLOUR_ALPHA) for depth in (8, 16)),
]
KEYED = [kind for kind in KINDS if kind[0] in (GREY, COLOUR, PALETTE)]
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
"""Of an interlaced file: the first row and column, and the steps."""


def chunk(kind: bytes, data: bytes, damage: int = 0) -> bytes:
    checksum = zlib.crc32(kind + data) ^ damage
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def packed(values: np.ndarray, depth: int) -> bytes:
    """The rows of (H, W, C) values, each after a zero for the filter that changes nothing."""
    bits = (values.reshape(len(values), -1, 1) >> np.arange(depth)[::-1]) & 1
    return b"".join(b"\0" + np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in bits)


def png(
    values: np.ndarray,
    kind: int,
    depth: int,
    before: Iterable[bytes] = (),
    after: Iterable[bytes] = (),
    interlaced: bool = False,
) -> bytes:
    """A file of (H, W, C) values with chunks before and after the pixels."""
    if interlaced:
        parts = [values[top::down, left::right] for top, left, down, right in PASSES]
        rows = b"".join(packed(part, depth) for part in parts if part.size)
    else:
        rows = packed(values, depth)
    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = [
        chunk(b"IHDR", header),
        *before,
        chunk(b"IDAT", zlib.compress(rows)),
        *after,
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def values_of(kind: int, depth: int) -> np.ndarray:
    """(12, 11, C) values over the whole range, the same one often enough to be a colour key."""
    generator = np.random.default_rng(depth + kind)
    values = generator.integers(0, 2**depth, (12, 11, CHANNELS[kind]))
    values[0, 0] = 2 ** (depth + 1) // 3 + np.arange(CHANNELS[kind])
    values[3:6, 2:9] = values[0, 0]
    values[8, 3] = values[0, 0] ^ 1  # one step beside the colour key
    return values


def levels(values: np.ndarray, depth: int) -> np.ndarray:
    return values * (255 / (2**depth - 1))


def read(data: bytes) -> np.ndarray:
    image = to_rgb(open_picture(data))
    assert image.mode == "RGB"
    return np.asarray(image).astype(float)


def colours(depth: int) -> np.ndarray:
    """A palette, the colour of each value."""
    return np.random.default_rng(depth).integers(0, 256, (2**depth, 3))


def expected(values: np.ndarray, kind: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) levels, and (H, W, 1) opacity."""
    if kind == PALETTE:
        return colours(depth)[values[..., 0]].astype(float), np.ones((*values.shape[:2], 1))
    shown = levels(values, depth)
    alpha = shown[..., -1:] / 255 if kind in (GREY_ALPHA, COLOUR_ALPHA) else np.ones((*values.shape[:2], 1))
    return np.broadcast_to(shown[..., : 3 if shown.shape[-1] > 2 else 1], (*values.shape[:2], 3)), alpha


def chunks_of(kind: int, depth: int) -> list[bytes]:
    return [chunk(b"PLTE", colours(depth).astype(np.uint8).tobytes())] if kind == PALETTE else []


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_every_kind(kind: int, depth: int, interlaced: bool) -> None:
    values = values_of(kind, depth)
    shown, alpha = expected(values, kind, depth)
    found = read(png(values, kind, depth, chunks_of(kind, depth), interlaced=interlaced))
    allowed = 2 if depth == 16 and CHANNELS[kind] in (2, 4) else 1.01  # Pillow keeps the upper bytes of both
    assert np.abs(found - (shown * alpha + 255 * (1 - alpha))).max() <= allowed


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "depth"), KEYED)
def test_a_transparent_colour_becomes_white(kind: int, depth: int, interlaced: bool) -> None:
    values = values_of(kind, depth)
    shown, _ = expected(values, kind, depth)
    key = values[0, 0]
    transparent = (values == key).all(-1)
    assert 0 < transparent.sum() < transparent.size
    if kind == PALETTE:
        data = bytes(255 * (value != key[0]) for value in range(int(key[0]) + 1))
    else:
        data = struct.pack(f">{len(key)}H", *key)
    before = [*chunks_of(kind, depth), chunk(b"tRNS", data)]
    found = read(png(values, kind, depth, before, interlaced=interlaced))
    assert np.abs(found - np.where(transparent[..., None], 255, shown)).max() <= 1.01
    assert (found[transparent] == 255).all()


VALUES = values_of(COLOUR, 8)
PLAIN = png(VALUES, COLOUR, 8)
NOISE = np.random.default_rng(0).bytes(2 * PngImagePlugin.MAX_TEXT_CHUNK)
LONG = {
    "ICC": chunk(b"iCCP", b"profile\0\0" + zlib.compress(NOISE)),
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(NOISE)),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 2**21)),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"a" * 2**21)),
    "EXIF in a text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"a" * 2**21)),
}
DAMAGED = {
    name: chunk(name.encode(), data, damage=1)
    for name, data in {
        "tEXt": b"Comment\0hello",
        "gAMA": struct.pack(">I", 45455),
        "pHYs": b"\0" * 9,
        "tIME": b"\0" * 7,
        "eXIf": b"MM\0*\0\0\0\x08\0\0",
        "tRNS": struct.pack(">3H", *VALUES[0, 0]),
        "vpAg": b"private",
    }.items()
} | {
    "gAMA, cut": chunk(b"gAMA", b"\0"),
    "acTL, cut": chunk(b"acTL", b"\0\0"),
    "iCCP, odd": chunk(b"iCCP", b"p\0\7"),
}


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("extra", [*LONG, *DAMAGED])
def test_what_is_not_pixels_costs_no_picture(extra: str, where: str) -> None:
    data = png(VALUES, COLOUR, 8, **{where: [(LONG | DAMAGED)[extra]]})  # type: ignore[arg-type]
    assert (read(data) == VALUES).all()


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE"])
def test_a_damaged_critical_chunk_is_no_picture(name: bytes) -> None:
    data = bytearray(png(values_of(PALETTE, 8), PALETTE, 8, chunks_of(PALETTE, 8)))
    start = data.index(name)
    length = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + length] ^= 1
    with pytest.raises(Exception, match="not a picture"):
        read(bytes(data))


def _orientation(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif.tobytes()


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
ROTATIONS = {
    "eXIf": chunk(b"eXIf", _orientation(6)[6:]),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    "raw profile": chunk(
        b"zTXt",
        b"Raw profile type exif\0\0"
        + zlib.compress(b"\nexif\n  26\n" + _orientation(6).hex().encode() + b"\n"),
    ),
}


@pytest.mark.parametrize("place", ROTATIONS)
def test_orientation_is_heeded_wherever_it_stands(place: str) -> None:
    data = png(VALUES, COLOUR, 8, [ROTATIONS[place], *LONG.values()])
    assert (read(data) == np.rot90(VALUES, -1)).all()


def test_of_an_animation_the_still_picture_is_read() -> None:
    file = io.BytesIO()
    frames = [Image.fromarray((VALUES // number).astype(np.uint8)) for number in (1, 2, 3)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert (read(file.getvalue()) == VALUES).all()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", PLAIN, PLAIN[:40], PLAIN + b"more", b"GIF89a"])
def test_nothing_to_leave_out_copies_nothing(data: bytes) -> None:
    assert without_extras(data) is data


def test_what_cannot_be_understood_stays() -> None:
    text = chunk(b"tEXt", b"Comment\0hello")
    damaged = png(VALUES, COLOUR, 8, [text, chunk(b"\0\0\0\0", b"x"), text])
    assert without_extras(damaged) == damaged.replace(text, b"", 1)
    cut = png(VALUES, COLOUR, 8, [text, chunk(b"tEXt", b"x" * 99)])[:120]
    assert without_extras(cut) == cut.replace(text, b"")
