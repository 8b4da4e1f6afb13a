"""Damage to tar shards that leaves them tar files: members that are doubled, sparse, linked, huge."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

from fuzzing.mutators import raw

Entries = list[tuple[tarfile.TarInfo, bytes]]

_NAMES = (
    *("../out.png", "/abs.png", "", ".", "a/../../b.png", "n\rl.png", "\x1b[31m.png", "x" * 90 + ".png"),
    *(
        "y" * 3000 + ".png",
        "é.png",
        "e\u0301.png",
        "\udcff.png",
        "train/a.png",
        "Val/a.png",
        "a.b.c.png",
        ".hidden.png",
    ),
    *("a.PNG", "a.CLS", "a.cls", "a.json", "a.seg.png", "CON.png", "a.png/", "a.ppm", "d/" * 60 + "a.png"),
)
_LABELS = (
    b"3",
    b"-1",
    b"",
    b"x",
    b"9" * 400,
    b"999999",
    b"1000000",
    b"\xff",
    b"1.5",
    b" 3\n",
    b"\xc2\xb2",
    bytes(10),
    b"3\n4",
)


def tar_members(draw: random.Random, path: Path) -> str:
    """Changes the members of a tar file and writes it anew."""
    found = _read(path)
    done = [draw.choice(_ACTIONS)(draw, found) for _ in range(draw.choice((1, 1, 2)))]
    _write(path, found)
    return ", ".join(done)


def tar_header(draw: random.Random, path: Path) -> str:
    """Changes a field of a member's header, with a checksum that fits."""
    content = bytearray(path.read_bytes())
    headers = _headers(content)
    if not headers:
        return raw.flip(draw, path)
    start = draw.choice(headers)
    field, values = draw.choice(list(_FIELDS.items()))
    value = draw.choice(values)
    content[start + field : start + field + len(value)] = value
    content[start + 148 : start + 156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    path.write_bytes(content)
    return f"{value!r} at {field} of the header at {start}"


def tar_whole(draw: random.Random, path: Path) -> str:
    """Joins, cuts, compresses a tar file."""
    import gzip

    content = path.read_bytes()
    name, new = draw.choice(
        (
            ("joined with itself", content + content),
            ("cut at a block", content[: 512 * draw.randrange(1 + len(content) // 512)]),
            ("without its end", content.rstrip(b"\0")),
            ("compressed", gzip.compress(content, mtime=0)),
            ("only zeros", bytes(10240)),
            ("with zeros before it", bytes(512) + content),
            ("with bytes behind it", content + b"x" * 700),
        )
    )
    path.write_bytes(new)
    return name


def _twice(draw: random.Random, found: Entries) -> str:
    info, content = draw.choice(found)
    found.append((_named(info.name), draw.choice((content, b"", b"5"))))
    return f"{info.name} twice"


def _called(draw: random.Random, found: Entries) -> str:
    info, _ = draw.choice(found)
    old, info.name = info.name, draw.choice(_NAMES)
    return f"{old} called {info.name[:40]!r}"


def _added(draw: random.Random, found: Entries) -> str:
    name = draw.choice(_NAMES)
    found.append((_named(name), found[0][1]))
    return f"{name[:40]!r} added"


def _typed(draw: random.Random, found: Entries) -> str:
    info, _ = draw.choice(found)
    info.type = draw.choice(b"1234567SLKDxgVNXA\x00z").to_bytes(1, "little")
    info.linkname = draw.choice(
        ("", "nowhere.png", info.name, found[0][0].name, "/etc/passwd", "../../x.png")
    )
    return f"{info.name} of type {info.type!r}, link to {info.linkname!r}"


def _labelled(draw: random.Random, found: Entries) -> str:
    labels = [place for place, (info, _) in enumerate(found) if info.name.endswith(".cls")]
    if not labels:
        return "no label"
    place, content = draw.choice(labels), draw.choice(_LABELS)
    found[place] = (found[place][0], content)
    return f"{found[place][0].name}: {content[:20]!r}"


def _taken(draw: random.Random, found: Entries) -> str:
    return f"{found.pop(draw.randrange(len(found)))[0].name} taken out" if len(found) > 1 else "nothing"


def _damaged(draw: random.Random, found: Entries) -> str:
    place = draw.randrange(len(found))
    info, content = found[place]
    found[place] = (info, draw.choice((b"", content[:30], draw.randbytes(200), bytes(3000))))
    return f"other bytes in {info.name}"


def _paxed(draw: random.Random, found: Entries) -> str:
    info, _ = draw.choice(found)
    key, value = draw.choice(
        (
            ("size", "9" * 30), ("size", "-5"), ("size", "x"), ("path", "a" * 100_000), ("path", ""),
            ("mtime", "nan"), ("GNU.sparse.major", "1"), ("GNU.sparse.map", "0,1,2"),
            ("GNU.sparse.size", "9" * 20), ("uid", "x" * 30), ("GNU.sparse.realsize", "1000000000000"),
            ("hdrcharset", "BINARY"), ("mtime", "1e400"), ("linkpath", "x" * 5000),
        )
    )  # fmt: skip
    info.pax_headers = {**info.pax_headers, key: value}
    if draw.random() < 0.3:
        info.pax_headers |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": info.name}
    return f"{info.name} with {key} = {value[:20]}"


def _huge(draw: random.Random, found: Entries) -> str:
    for number in range(3000):
        found.append((_named(f"more/{number}.txt"), b""))
    return "3000 members more"


_ACTIONS: tuple[Callable[[random.Random, Entries], str], ...] = (
    *(_twice, _called, _called, _added, _typed, _typed, _labelled, _taken, _damaged, _paxed, _paxed, _huge),
)
_FIELDS: dict[int, tuple[bytes, ...]] = {
    0: (b"\xff" * 100, b"a.png\0", b"\0" * 100, b"/" * 99),
    100: (b"0000000\0", b"\xff" * 8),
    124: (
        b"77777777777\0",
        b"\x80" + b"\x7f" * 11,
        b"\xff" * 12,
        b"zzzzzzzzzzz\0",
        b"00000000000\0",
        b"\x80" + bytes(11),
    ),
    136: (b"\x80" + b"\xff" * 11, b"-1\0"),
    156: (b"S", b"L", b"K", b"x", b"g", b"2", b"1", b"3", b"6", b"5", b"\xff", b"D", b"V"),
    157: (b"\xff" * 100, b"nowhere\0"),
    257: (b"ustar  \0", b"\0" * 8, b"GNUtar \0"),
    345: (b"\xff" * 150, b"train\0"),
    386: (b"77777777777\0" * 8, b"\xff" * 96),
    482: (b"\1", b"\xff"),
}
"""What a field of a header, by its place, may become."""


def _named(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def _read(path: Path) -> Entries:
    with tarfile.open(path) as archive:
        return [
            (info, stream.read()) for info in archive if (stream := archive.extractfile(info)) is not None
        ]


def _write(path: Path, found: Entries) -> None:
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as archive:
        for info, content in found:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(stream.getvalue())


def _headers(content: bytes | bytearray) -> list[int]:
    """Where blocks begin that are headers."""
    return [place for place in range(0, len(content), 512) if content[place + 257 : place + 262] == b"ustar"]


TAR = (tar_members, tar_members, tar_members, tar_header, tar_header, tar_whole, *raw.BYTES[:5])
"""For tar files."""
