"""Damage to files of arrays: headers of .npy and .safetensors that claim what is not there, members of archives."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from fuzzing.mutators import raw, trees
from fuzzing.mutators.places import pickled

_SHAPES = (
    *(
        "(1000000000000,)",
        "(1000000000000, 1000000000000)",
        "(4, 1000000000)",
        "()",
        "(0,)",
        "(0, 0)",
        "(-1,)",
    ),
    *(
        "(1, 1, 1, 1, 1, 1)",
        "(9" + "9" * 30 + ",)",
        "(True,)",
        "(1.5,)",
        "None",
        "[2, 3]",
        "(" + "1, " * 70 + ")",
    ),
)
_TYPES = (
    *(
        "|O",
        "<U400000000",
        "<U0",
        "|S1",
        "<f8",
        "<c16",
        "<i1",
        "<u8",
        "|V8",
        "<M8[s]",
        ">i4",
        "<i4, <i4",
        "",
        "x",
    ),
    *("|b1", "<f2", "<i8", "<U1"),
)


_MOST = 1 << 25
"""Bytes of a member that is read in order to be damaged."""


def npy_header(draw: random.Random, path: Path) -> str:
    """Changes what an .npy file says of itself."""
    content, done = _with_header(draw, path.read_bytes())
    path.write_bytes(content)
    return done


def npy_values(draw: random.Random, path: Path) -> str:
    """Changes a value behind the header and nothing else."""
    content = bytearray(path.read_bytes())
    start = _start(content)
    place = draw.randrange(start, len(content)) if len(content) > start else 0
    content[place] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return f"a bit turned at {place}, behind the header"


def members(draw: random.Random, path: Path) -> str:
    """Changes the members of an .npz or of a checkpoint of PyTorch; their checksums fit afterwards."""
    with zipfile.ZipFile(path) as archive:
        if max(info.file_size for info in archive.infolist()) > _MOST:
            raise ValueError("it is a bomb already")
        found = [(info.filename, archive.read(info)) for info in archive.infolist()]
    action = draw.choice(
        (_inside, _inside, _inside, _content, _absent, _twice, _called, _grown, _bomb, _replaced)
    )
    done = action(draw, found, path)
    if done.endswith("."):  # written already
        return done
    _write(path, found)
    return done


def central(draw: random.Random, path: Path) -> str:
    """Changes a number in a zip archive's directory: sizes, offsets, methods, flags."""
    content = bytearray(path.read_bytes())
    starts = [match.start() for match in re.finditer(rb"PK\x01\x02|PK\x05\x06|PK\x03\x04", content)]
    if not starts:
        return raw.flip(draw, path)
    place = draw.choice(starts) + draw.choice((6, 8, 10, 12, 16, 20, 24, 28, 30, 34, 42))
    value = draw.choice((0, 1, 99, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000, len(content)))
    content[place : place + 4] = struct.pack("<I", value)
    path.write_bytes(content)
    return f"zip: {value} at {place}"


def safetensors_header(draw: random.Random, path: Path) -> str:
    """Changes the header of a .safetensors file, or its length."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if draw.random() < 0.2:
        claimed = draw.choice((0, 1, length - 1, length + 1, 10**8, 10**12, 2**64 - 1))
        path.write_bytes(claimed.to_bytes(8, "little") + content[8:])
        return f"a header of {claimed} bytes claimed"
    text, done = trees.damage(draw, json.loads(content[8 : 8 + length]), "json")
    header = text.encode("utf-8", "surrogatepass")
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    return f"header: {done}"


def safetensors_values(draw: random.Random, path: Path) -> str:
    """Makes values behind the header NaN, infinite or huge."""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    value = draw.choice((float("nan"), float("inf"), 3e38, -3e38))
    for place in range(start, len(content) - 3, draw.choice((4, 400))):
        content[place : place + 4] = struct.pack("<f", value)
    path.write_bytes(content)
    return f"weights {value}"


def _start(content: bytes | bytearray) -> int:
    """Where the values of an .npy file begin."""
    return 10 + int.from_bytes(content[8:10], "little")


def _with_header(draw: random.Random, content: bytes) -> tuple[bytes, str]:
    start = _start(content)
    header = content[10:start].decode("latin-1").strip()
    which = draw.choice(("shape", "shape", "descr", "descr", "order", "key", "text", "length"))
    if which == "shape":
        new = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {draw.choice(_SHAPES)}", header)
    elif which == "descr":
        new = re.sub(r"'descr': '[^']*'", lambda _: f"'descr': {draw.choice(_TYPES)!r}", header)
    elif which == "order":
        new = header.replace(
            "False", draw.choice(("True", "2", "None", "__import__('os').mkdir('executed')"))
        )
    elif which == "key":
        new = header.replace("'shape'", draw.choice(("'shapes'", "shape", "''", "'descr'")))
    elif which == "text":
        new = draw.choice(
            ("", "{}", "[]", "1", "{" * 5000, "(" * 5000, "'" * 99, "lambda: 0", "9" * 5000, "{'a': 1}")
        )
    else:
        claimed = draw.choice((0, 1, 60_000, 65535))
        return content[:8] + struct.pack("<H", claimed) + content[10:], f"a header of {claimed} bytes claimed"
    coded = new.encode("latin-1") + b"\n"
    return content[:8] + struct.pack("<H", len(coded)) + coded + content[start:], f"header: {new[:80]}"


Members = list[tuple[str, bytes]]


def _inside(draw: random.Random, found: Members, path: Path) -> str:
    """Changes bytes or the header of a member."""
    place = draw.randrange(len(found))
    name, content = found[place]
    if content.startswith(b"\x93NUMPY") and draw.random() < 0.7:
        new, done = _with_header(draw, content)
    else:
        scratch = path.with_name("scratch")
        scratch.write_bytes(content)
        done = draw.choice(raw.BYTES)(draw, scratch)
        new = scratch.read_bytes()
        scratch.unlink()
    found[place] = (name, new)
    return f"{name}: {done}"


def _content(draw: random.Random, found: Members, path: Path) -> str:
    """Writes other values behind a member's header."""
    place = draw.randrange(len(found))
    name, content = found[place]
    start = _start(content) if content.startswith(b"\x93NUMPY") else 0
    fill: Callable[[int], bytes] = draw.choice(
        (draw.randbytes, lambda n: b"\xff" * n, bytes, lambda n: b"\x00\xd8\x00\x00" * (n // 4))
    )
    found[place] = (name, content[:start] + fill(len(content) - start))
    return f"{name}: other values"


def _absent(draw: random.Random, found: Members, path: Path) -> str:
    return f"{found.pop(draw.randrange(len(found)))[0]} taken out"


def _twice(draw: random.Random, found: Members, path: Path) -> str:
    name, content = draw.choice(found)
    found.append((name, content[: draw.choice((0, 10, len(content)))]))
    return f"{name} twice"


def _called(draw: random.Random, found: Members, path: Path) -> str:
    place = draw.randrange(len(found))
    old, content = found[place]
    new = draw.choice(("../" + old, "/" + old, old.upper(), "", "x" * 3000, "archive/" + old))
    found[place] = (new, content)
    return f"{old} called {new[:30]!r}"


def _replaced(draw: random.Random, found: Members, path: Path) -> str:
    """A pickle that runs code in the place of a member."""
    place = draw.randrange(len(found))
    found[place] = (found[place][0], pickled())
    return f"{found[place][0]}: a pickle that runs code"


def _grown(draw: random.Random, found: Members, path: Path) -> str:
    """Many members more."""
    found += [(f"more/{number}", b"x") for number in range(3000)]
    return "3000 members more"


def _bomb(draw: random.Random, found: Members, path: Path) -> str:
    """A member of two gigabytes in two megabytes."""
    place = draw.randrange(len(found))
    name, content = found[place]
    start = _start(content) if content.startswith(b"\x93NUMPY") else 0
    head, rows = content[:start], 2**31
    if start:
        header = (
            re.sub(rb"'shape': \([^)]*\)", b"'shape': (%d, 1024)" % (rows >> 12), content[10:start]).strip()
            + b"\n"
        )
        head = content[:8] + struct.pack("<H", len(header)) + header
    _write(path, found, bomb=(place, head, rows))
    return f"{name}: {rows} zeros, compressed."


def _write(path: Path, found: Members, bomb: tuple[int, bytes, int] | None = None) -> None:
    with path.open("wb") as stream:
        entries = []
        for place, (name, content) in enumerate(found):
            if bomb is not None and place == bomb[0]:
                entries.append((name, stream.tell(), *_compressed_zeros(bomb[1], bomb[2]), 8))
            else:
                entries.append((name, stream.tell(), content, len(content), zlib.crc32(content), 0))
            _local(stream, entries[-1])
        _directory(stream, entries)


def _compressed_zeros(head: bytes, count: int) -> tuple[bytes, int, int]:
    """The head and so many zeros by deflate, their number, and a checksum of the head alone: nobody gets so far."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = coder.compress(head) + coder.flush(zlib.Z_FULL_FLUSH)
    block = coder.compress(bytes(1 << 20)) + coder.flush(zlib.Z_FULL_FLUSH)
    return first + block * (count >> 20) + coder.flush(), len(head) + count, zlib.crc32(head)


def _local(stream: io.BufferedWriter, entry: tuple[str, int, bytes, int, int, int]) -> None:
    name, _, content, size, checksum, method = entry
    coded = name.encode()
    stream.write(
        struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", 20, 0, method, 0, 33, checksum, len(content), size, len(coded), 0
        )
    )
    stream.write(coded + content)


def _directory(stream: io.BufferedWriter, entries: list[tuple[str, int, bytes, int, int, int]]) -> None:
    start = stream.tell()
    for name, offset, content, size, checksum, method in entries:
        coded = name.encode()
        numbers = (20, 20, 0, method, 0, 33, checksum, len(content), size, len(coded), 0, 0, 0, 0, 0, offset)
        stream.write(struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *numbers) + coded)
    length = stream.tell() - start
    stream.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, len(entries), len(entries), length, start, 0))


NPY = (npy_header, npy_header, npy_values, npy_values, *raw.BYTES[:5])
"""For single arrays."""
ZIP = (members, members, members, central, *raw.BYTES[:5])
"""For archives of arrays."""
SAFETENSORS = (safetensors_header, safetensors_header, safetensors_values, *raw.BYTES[:5])
"""For safetensors."""
