"""One data set in the three forms that must be read alike: a folder, a single archive, several shards."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from mergevq.data.images.sources import ImageSource

Files = Mapping[str, bytes]


def write_shard(path: Path, files: Files) -> Path:
    """A tar file."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(root: Path, files: Files) -> Path:
    """A folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_shards(root: Path, files: Files) -> Path:
    """A folder of two shards; the files of a sample stay together, as WebDataset demands."""
    samples: dict[str, dict[str, bytes]] = {}
    for name, content in files.items():
        folder, slash, file = name.rpartition("/")
        samples.setdefault(folder + slash + file.split(".", 1)[0], {})[name] = content
    root.mkdir()
    for number in range(2):
        chosen = [sample for row, sample in enumerate(samples.values()) if row % 2 == number]
        write_shard(root / f"s-{number}.tar", {name: sample[name] for sample in chosen for name in sample})
    return root


_FORMS: dict[str, Callable[[Path, Files], Path]] = {
    "folder": lambda home, files: write_folder(home / "set", files),
    "archive": lambda home, files: write_shard(home / "set.tar", files),
    "shards": lambda home, files: write_shards(home / "set", files),
}


@pytest.fixture(params=_FORMS)
def lay(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Files], str]:
    """Writes files in one of the forms and returns the path to give as data."""
    return lambda files: str(_FORMS[request.param](tmp_path, files))


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """The bytes of a picture whose red is a number."""

    def paint(red: int, form: str = "PNG") -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (red, 0, 0)).save(file, form)
        return file.getvalue()

    return paint


@pytest.fixture(scope="session")
def by_red() -> Callable[[ImageSource], dict[int, str]]:
    """The class of each picture by its red."""

    def classes(source: ImageSource) -> dict[int, str]:
        reds = [source.open(row).convert("RGB").getpixel((0, 0)) for row in range(len(source))]
        return {red[0]: source.classes[source.label(row)] for row, red in enumerate(reds)}  # type: ignore[index]

    return classes
