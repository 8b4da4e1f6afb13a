"""Damage to bytes, whatever they mean."""

from __future__ import annotations

import random
from pathlib import Path

_WORDS = (
    b"\x00",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\x00" * 8,
    b"\xff" * 8,
)


def flip(draw: random.Random, path: Path) -> str:
    """Turns a few bits."""
    content = bytearray(path.read_bytes())
    places = [_place(draw, content) for _ in range(draw.choice((1, 1, 2, 8)))] if content else []
    for place in places:
        content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return f"bits turned at {places}"


def overwrite(draw: random.Random, path: Path) -> str:
    """Writes extreme or random bytes over a few."""
    content = bytearray(path.read_bytes())
    word = draw.choice((*_WORDS, draw.randbytes(4), draw.randbytes(16)))
    place = _place(draw, content)
    content[place : place + len(word)] = word
    path.write_bytes(content)
    return f"{word.hex()} written at {place}"


def truncate(draw: random.Random, path: Path) -> str:
    """Cuts the end off."""
    content = path.read_bytes()
    length = draw.choice((0, 1, len(content) // 2, max(len(content) - 1, 0), _place(draw, content)))
    path.write_bytes(content[:length])
    return f"cut to {length} of {len(content)} bytes"


def insert(draw: random.Random, path: Path) -> str:
    """Puts bytes in between, or after the end."""
    content = path.read_bytes()
    word = draw.choice((*_WORDS, draw.randbytes(16), b"\n", b"{" * 40, bytes(5000)))
    place = draw.choice((0, len(content), _place(draw, content)))
    path.write_bytes(content[:place] + word + content[place:])
    return f"{len(word)} bytes put in at {place}"


def repeat(draw: random.Random, path: Path) -> str:
    """Doubles a span."""
    content = path.read_bytes()
    start, length = _place(draw, content), draw.choice((1, 16, 512, 4096))
    path.write_bytes(content[: start + length] + content[start:])
    return f"{length} bytes from {start} doubled"


def remove(draw: random.Random, path: Path) -> str:
    """Takes a span out."""
    content = path.read_bytes()
    start, length = _place(draw, content), draw.choice((1, 16, 512, 4096))
    path.write_bytes(content[:start] + content[start + length :])
    return f"{length} bytes from {start} taken out"


def _place(draw: random.Random, content: bytes | bytearray) -> int:
    """A position: headers are met more often than what follows them."""
    if not content:
        return 0
    return draw.randrange(len(content) if draw.random() < 0.5 else min(len(content), 200))


BYTES = (flip, flip, overwrite, overwrite, truncate, insert, repeat, remove)
"""All of them."""
