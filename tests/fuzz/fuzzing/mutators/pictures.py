"""Damage to picture files: sizes in headers, chunks that claim or hold too much."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

from fuzzing.mutators import raw

_SIZES = (
    *((1, 20_000), (20_000, 1), (1, 60_000), (60_000, 1), (30_000, 2), (2, 30_000), (1, 5_000), (300, 3)),
    *(
        (13_300, 13_300),
        (9_000, 9_000),
        (4_000, 4_000),
        (2**31 - 1, 2**31 - 1),
        (65_535, 65_535),
        (0, 0),
        (0, 7),
    ),
    *((2**31 - 1, 1), (1, 2**31 - 1), (2**32 - 1, 2), (100_000, 100_000), (1, 1)),
)
"""Width and height."""
_SMALL = 2**28
"""Pixels up to which the data of a PNG is written whole; it is a few bytes a million."""


def png_of_a_size(draw: random.Random, path: Path) -> str:
    """A PNG of an odd size: whole as far as its data is short, else with a few bytes of data."""
    width, height = draw.choice(_SIZES)
    depth, colour, channels = draw.choice(
        ((1, 0, 1), (8, 0, 1), (8, 2, 3), (16, 0, 1), (8, 3, 1), (8, 6, 4), (16, 6, 4))
    )
    row = 1 + (width * depth * channels + 7) // 8
    whole = 0 < row * height < _SMALL
    data = zlib.compress(bytes(row * height), 9) if whole else zlib.compress(b"\0" * 100)
    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, draw.choice((0, 0, 0, 1)))
    chunks = [(b"IHDR", header), *((b"PLTE", bytes(6)) for _ in range(colour == 3)), (b"IDAT", data)]
    if draw.random() < 0.2:
        chunks.insert(-1, (b"tRNS", bytes({0: 2, 2: 6, 3: 2}.get(colour, 1))))
    _write_png(path, [*chunks, (b"IEND", b"")])
    return f"a PNG of {width} x {height} px, {depth} bits, colour type {colour}, {'whole' if whole else 'cut off'}"


def png_chunks(draw: random.Random, path: Path) -> str:
    """Adds a chunk to a PNG, or takes, doubles, moves one, or spoils its checksum."""
    chunks = _read_png(path.read_bytes())
    action = draw.choice(("add", "add", "add", "take", "double", "move", "checksum", "length", "header"))
    place = draw.randrange(len(chunks))
    name = chunks[place][0]
    spoiled = None
    if action == "add":
        new = draw.choice(_CHUNKS)
        chunks.insert(draw.choice((1, len(chunks) - 1)), new)
        name = new[0]
    elif action == "take":
        del chunks[place]
    elif action == "double":
        chunks.insert(place, chunks[place])
    elif action == "move":
        chunks.append(chunks.pop(place))
    elif action == "header":
        chunks[0] = (
            b"IHDR",
            draw.randbytes(8)
            + struct.pack("5B", *(draw.choice((0, 1, 2, 3, 6, 8, 16, 255)) for _ in range(5))),
        )
    else:
        spoiled = (place, action)
    _write_png(path, chunks, spoiled)
    return f"{action} {name.decode('latin-1')}"


def gif_size(draw: random.Random, path: Path) -> str:
    """Changes the size of a GIF's screen or of its first picture."""
    return _patched(draw, path, {6: "<2H"} if draw.random() < 0.5 else _after(path, b"\x2c", 5, "<2H"))


def jpeg_size(draw: random.Random, path: Path) -> str:
    """Changes the size in a JPEG's frame header."""
    return _patched(draw, path, _after(path, b"\xff\xc0", 5, ">2H"))


def webp_size(draw: random.Random, path: Path) -> str:
    """Changes the size in a WebP's key frame."""
    return _patched(draw, path, _after(path, b"\x9d\x01\x2a", 3, "<2H"))


def bmp_size(draw: random.Random, path: Path) -> str:
    """Changes the size in a BMP's header."""
    return _patched(draw, path, {18: "<2i"})


def tiff_tag(draw: random.Random, path: Path) -> str:
    """Changes a number in a TIFF's directory: sizes, offsets, counts, compression."""
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, start)[0]
    entry = start + 2 + 12 * draw.randrange(max(count, 1))
    tag, value = struct.unpack_from("<H", content, entry)[0], draw.choice((0, 1, 7, 60_000, 2**31, 2**32 - 1))
    struct.pack_into("<I", content, entry + draw.choice((4, 8, 8, 8)), value)
    path.write_bytes(content)
    return f"tag {tag}: {value}"


def _after(path: Path, mark: bytes, distance: int, form: str) -> dict[int, str]:
    place = path.read_bytes().find(mark)
    return {place + distance: form} if place >= 0 else {}


def _patched(draw: random.Random, path: Path, places: dict[int, str]) -> str:
    content = bytearray(path.read_bytes())
    width, height = draw.choice(_SIZES)
    for place, form in places.items():
        most = (
            2**15 - 1
            if form[-1] == "H" and draw.random() < 0.1
            else 2**16 - 1
            if form[-1] == "H"
            else 2**31 - 1
        )
        numbers = [min(side, most) for side in (width, height)]
        if place + struct.calcsize(form) <= len(content):
            struct.pack_into(form, content, place, *numbers)
    path.write_bytes(content)
    return f"size {width} x {height} at {list(places)}"


def _text(kind: bytes, size: int) -> tuple[bytes, bytes]:
    """A compressed text, or a colour profile, of a size."""
    head = {b"zTXt": b"note\0\0", b"iTXt": b"note\0\1\0\0\0", b"iCCP": b"icc\0\0"}[kind]
    return kind, head + zlib.compress(b"a" * size, 9)


_CHUNKS = (
    *(_text(kind, size) for kind in (b"zTXt", b"iTXt", b"iCCP") for size in (100, 2_000_000, 200_000_000)),
    (b"tEXt", b"note\0" + b"a" * 2_000_000),
    (b"eXIf", b"II*\0\x08\0\0\0" + b"\xff" * 40),
    (b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    (b"tRNS", bytes(2)),
    (b"gAMA", bytes(4)),
    (b"acTL", struct.pack(">2I", 2**31 - 1, 0)),
    (b"fcTL", bytes(26)),
    (b"IDAT", b"x" * 50),
    (b"IHDR", bytes(13)),
    (b"xxxx", bytes(10)),
    (b"CgBI", bytes(4)),
)


def _read_png(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks or [(b"IEND", b"")]


def _write_png(path: Path, chunks: list[tuple[bytes, bytes]], spoiled: tuple[int, str] | None = None) -> None:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for place, (name, data) in enumerate(chunks):
        length, checksum = len(data), zlib.crc32(name + data)
        if spoiled == (place, "checksum"):
            checksum ^= 1
        if spoiled == (place, "length"):
            length = 2**31 - 1
        parts.append(struct.pack(">I", length) + name + data + struct.pack(">I", checksum))
    path.write_bytes(b"".join(parts))


PNG = (png_of_a_size, png_of_a_size, png_of_a_size, png_chunks, png_chunks, *raw.BYTES[:5])
GIF = (gif_size, gif_size, *raw.BYTES)
JPEG = (jpeg_size, jpeg_size, *raw.BYTES)
WEBP = (webp_size, webp_size, *raw.BYTES)
BMP = (bmp_size, bmp_size, *raw.BYTES)
TIFF = (tiff_tag, tiff_tag, tiff_tag, *raw.BYTES)
