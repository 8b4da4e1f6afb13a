"""Sets of pictures: folders, tar shards, patterns of shards."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

from fuzzing.case import Kind, Target
from fuzzing.kinds.pictures import check_reasons, photo, read_pictures
from fuzzing.mutators.archives import TAR
from fuzzing.mutators.folders import FOLDER
from fuzzing.mutators.places import PLACES


def _make_folder(folder: Path) -> None:
    for number in range(4):
        home = folder / "set" / ("cat", "dog")[number % 2]
        home.mkdir(parents=True, exist_ok=True)
        photo(number).save(home / f"{number}.{('png', 'jpg')[number % 2]}")  # type: ignore[attr-defined]


def _make_tar(folder: Path) -> None:
    with tarfile.open(folder / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(4):
            stream = io.BytesIO()
            photo(number).save(stream, "png")  # type: ignore[attr-defined]
            for suffix, content in (("png", stream.getvalue()), ("cls", b"%d" % (number % 2))):
                info = tarfile.TarInfo(f"{number}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def _make_pattern(folder: Path) -> None:
    _make_tar(folder)
    (folder / "pattern").write_text("s.tar")


def _pattern(draw: random.Random, path: Path) -> str:
    """Another pattern of shards."""
    text = draw.choice(
        (
            "s-{0..1000000000000}.tar", "s-{000000..999999}.tar", "{s,{s,s}}.tar", "s-{1..0}.tar",
            "{" * 3000 + "s.tar", "s{.tar", "{a,b}" * 40 + ".tar", "{0..9}" * 12 + ".tar", "**/*.tar",
            "*/" * 60 + "*.tar", "[", "[a-.tar", "s.tar\0", "", ".tar", "*.tar",
            "s-{" + "9" * 400 + ".." + "9" * 400 + "1}.tar", "s-{" + "9" * 5000 + "..1}.tar", "S.TAR",
            "s.tar.gz", "p{1}/s.tar", "{}.tar", "s-{²..³}.tar", "s-{1..x}.tar", "s" * 5000 + ".tar",
            "~nobody/s.tar", "~/s.tar", "\x1b[31m.tar", "a\rb.tar", "builtin:", "builtin:x",
            "builtin:" + "x" * 5000, "/dev/zero", "/dev/stdin", ".", "..", "s.tar/x.png", "{s.tar,s.tar}",
            "?.tar", "\udcff.tar", "s{1..2..3}.tar", "s{,}.tar", "{s,}.tar", "{*,?}.tar", "s{-1..1}.tar",
        )
    )  # fmt: skip
    path.write_text(text, errors="surrogateescape")
    return f"{text[:60]!r}"


def _read_pattern(folder: Path) -> list[str]:
    import os

    text = os.fsdecode((folder / "pattern").read_bytes())
    before = os.getcwd()
    os.chdir(folder)
    try:
        return read_pictures(text, 32)  # type: ignore[arg-type]  # as a user writes it
    finally:
        os.chdir(before)


KINDS = {
    "tar": Kind(
        make=_make_tar,
        targets=(Target("s.tar", TAR, 15), Target("s.tar", PLACES)),
        read=lambda folder: read_pictures(folder / "s.tar", 32),
        check=check_reasons,
    ),
    "folder": Kind(
        make=_make_folder,
        targets=(Target("set", FOLDER),),
        read=lambda folder: read_pictures(folder / "set", 32),
        check=check_reasons,
    ),
    "pattern": Kind(
        make=_make_pattern,
        targets=(Target("pattern", (_pattern,)),),
        read=_read_pattern,
        check=check_reasons,
        share=0.3,
    ),
}
