"""Damage to a folder of pictures: what else may lie in it, and under which names."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

_NAMES = (
    *(
        b"\xff\xfe.jpg",
        b"n\rl.png",
        b"\x1b[31m.jpg",
        b"x" * 250 + b".png",
        b"a.b.c.png",
        b".hidden.png",
        b"A.PNG",
    ),
    *(
        "é.png".encode(),
        "e\u0301.png".encode(),
        b"CON.png",
        b"a.ppm",
        b"x.seg.png",
        b"cover.png",
        b"-rf.png",
        b"s.tar",
    ),
)
_FOLDERS = (
    *(
        b"train",
        b"val",
        b"Train",
        b"val2017",
        b"test",
        b"dev",
        b"\xff",
        "é".encode(),
        "e\u0301".encode(),
        b"0",
        b" ",
    ),
    *(b"x.png", b"n\rl", b"shards.tar", b"[a]", b"{1..9}"),
)


def folder(draw: random.Random, path: Path) -> str:
    """Puts something into a folder, or changes what is there."""
    pictures = sorted(file for file in path.rglob("*") if file.is_file())
    inside = draw.choice([path, *sorted(each for each in path.rglob("*") if each.is_dir())])
    return draw.choice(_ACTIONS)(draw, inside, draw.choice(pictures) if pictures else path)


def _copied(draw: random.Random, inside: Path, picture: Path) -> str:
    name = draw.choice(_NAMES)
    target = os.path.join(os.fsencode(inside), name)
    with open(target, "wb") as file:
        file.write(picture.read_bytes() if picture.is_file() else b"")
    return f"a picture called {name[:40]!r}"


def _made(draw: random.Random, inside: Path, picture: Path) -> str:
    name = draw.choice(_FOLDERS)
    target = os.path.join(os.fsencode(inside), name)
    os.makedirs(target, exist_ok=True)
    if draw.random() < 0.7 and picture.is_file():
        with open(os.path.join(target, b"p.png"), "wb") as file:
            file.write(picture.read_bytes())
    return f"a folder called {name!r}"


def _pipe(draw: random.Random, inside: Path, picture: Path) -> str:
    os.mkfifo(inside / "p.jpg")
    return "a pipe called p.jpg"


def _socket(draw: random.Random, inside: Path, picture: Path) -> str:
    before = os.getcwd()
    os.chdir(inside)  # the path of a socket may have 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("s.png")
    finally:
        os.chdir(before)
    return "a socket called s.png"


def _link(draw: random.Random, inside: Path, picture: Path) -> str:
    name, to = (
        draw.choice(("l.png", "l", "l.tar")),
        draw.choice(
            (
                "/dev/zero",
                "/dev/full",
                "/dev/null",
                "nowhere",
                "l.png",
                ".",
                "..",
                "/proc/self/mem",
                "/dev/tty",
                "l",
                "/dev/random",
            )
        ),
    )
    (inside / name).symlink_to(to)
    return f"a link from {name} to {to}"


def _emptied(draw: random.Random, inside: Path, picture: Path) -> str:
    if picture.is_file():
        picture.write_bytes(draw.choice((b"", b"x", bytes(100))))
    return f"{picture.name} emptied"


def _sparse(draw: random.Random, inside: Path, picture: Path) -> str:
    name = draw.choice(("big.png", "big.tar", "big.jpg"))
    with open(inside / name, "wb") as file:
        if picture.is_file():
            file.write(picture.read_bytes()[: draw.choice((0, 100, 10_000))])
        file.truncate(2**36)
    return f"{name} of 64 GiB, sparse"


def _deep(draw: random.Random, inside: Path, picture: Path) -> str:
    here = inside
    for _ in range(draw.choice((20, 120))):
        here = here / "d"
    here.mkdir(parents=True)
    (here / "p.png").write_bytes(picture.read_bytes() if picture.is_file() else b"")
    return "folders within folders"


def _taken(draw: random.Random, inside: Path, picture: Path) -> str:
    if picture.is_file():
        picture.unlink()
    return f"{picture.name} taken away"


_ACTIONS: tuple[Callable[[random.Random, Path, Path], str], ...] = (
    *(_copied, _copied, _made, _made, _pipe, _socket, _link, _link, _emptied, _sparse, _deep, _taken),
)
FOLDER = (folder,)
"""For folders of pictures."""
