"""PNG files: what is not pixels is left out before Pillow reads them, and colour keys of any depth.

Pillow refuses a file for its long texts and colour profiles, and for a wrong checksum of any chunk. None of
these has a say in the pixels. Like libpng, a damaged chunk that is not critical is left out here.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_NEEDED = {b"tRNS", b"eXIf"}
"""The chunks beside the critical ones that decide how the picture looks: transparency and orientation."""
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
"""Keywords of texts in which other software writes the orientation."""
_LONGEST = 2**20
"""Bytes of a compressed text that Pillow unpacks."""
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Grey levels between neighbouring values of 2 and 4 bits."""


def without_extras(data: bytes) -> bytes:
    """The bytes of a file; of a PNG only the chunks that decide its pixels.

    Args:
        data: any file. What cannot be understood of a PNG stays, for Pillow to complain of.
    """
    if not data.startswith(_SIGNATURE):
        return data
    view, kept, start, at, kind = memoryview(data), [], 0, len(_SIGNATURE), b""
    while kind != b"IEND" and at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data) or not kind.isalpha():
            break
        if not _wanted(kind, view[at + 8 : end - 4], view[end - 4 : end]):
            kept.append(view[start:at])
            start = end
        at = end
    return b"".join([*kept, view[start:]]) if kept else data


def colour_key(image: Image.Image) -> np.ndarray | None:
    """Where a PNG that is not decoded yet has its transparent colour, if Pillow would look for another.

    Pillow keeps the colour as it is written and compares it with pixels of 8 bits. A key of 2 or 4 bits is
    put right here; for 16 bits the pixels are compared, and Pillow is told of no transparency.

    Returns:
        (H, W) bool, or None where Pillow knows what is transparent.
    """
    key = image.info.get("transparency")
    depth = image.tile[0][3] if image.format == "PNG" and image.tile else None  # type: ignore[attr-defined]
    if key is None or depth not in {*_GREY_STEPS, "I;16B", "RGB;16B"}:
        return None
    if depth in _GREY_STEPS:
        image.info["transparency"] = key * _GREY_STEPS[depth]
        return None
    del image.info["transparency"]
    if depth == "I;16B":
        return np.asarray(image) == key
    low = _low_bytes(image)
    return np.logical_and.reduce(
        [
            (np.asarray(image.getchannel(channel)) == value >> 8)
            & (np.asarray(low.getchannel(channel)) == value & 255)
            for channel, value in enumerate(key)
        ]
    )


def _wanted(kind: bytes, body: memoryview, checksum: memoryview) -> bool:
    if kind in _CRITICAL or kind[0] & 0x20 == 0:
        return True
    if kind not in _NEEDED and not (kind in _TEXTS and _tells_orientation(kind, body)):
        return False
    return zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(checksum, "big")


def _tells_orientation(kind: bytes, body: memoryview) -> bool:
    """Whether a text is one that Pillow looks for the orientation in, and not too long for it."""
    keyword = next((word for word in _ORIENTING if body[: len(word)] == word), None)
    if keyword is None:
        return False
    text = bytes(body[len(keyword) :])
    if kind == b"tEXt" or (kind == b"iTXt" and text[:1] == b"\0"):
        return True
    packed = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1]
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed, _LONGEST)
    except zlib.error:
        return False
    return not unpacker.unconsumed_tail


def _low_bytes(image: Image.Image) -> Image.Image:
    """The lower 8 of the 16 bits of each channel: Pillow keeps the upper ones, and here decodes once more."""
    file = image.fp  # type: ignore[attr-defined]
    file.seek(0)
    low = Image.OPEN["PNG"][0](file, "")
    low.tile = [low.tile[0]._replace(args="RGB;16L")]  # as if little-endian: then the other byte is the upper
    low.load()
    return low
