"""Remembered features: found by content, never by name, and never when damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mergevq.data.images.builtin import open_builtin
from mergevq.data.images.sources import open_source
from mergevq.metrics.features.reference import default_cache, read_reference, reference_key, write_reference
from mergevq.metrics.features.statistics import FeatureSet


def key(folder: Path, size: int = 32, network: str = "aa", indices: tuple[int, ...] = (0, 1, 2)) -> str:
    return reference_key(open_source(str(folder), "all"), indices, size=size, network=network)


@pytest.fixture
def features() -> FeatureSet:
    found = FeatureSet(9)
    found.update(torch.randn(9, 4))
    return found


def test_the_key_is_that_of_the_content(image_folder: Path, tmp_path: Path) -> None:
    first = key(image_folder)
    moved = shutil.copytree(image_folder, tmp_path / "elsewhere")
    assert key(moved) == first
    others = {
        key(moved, size=16),
        key(moved, network="bb"),
        key(moved, indices=(0, 1)),
        key(moved, indices=(1, 0, 2)),
    }
    path = sorted(moved.rglob("*.*"))[1]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    others.add(key(moved))
    path.write_bytes(b"no picture")
    others.add(key(moved))
    assert len(others | {first}) == 7


def test_pictures_without_a_file_have_a_key() -> None:
    source = open_builtin("digits", "val")
    keys = [reference_key(source, rows, size=8, network="") for rows in ([0, 1], [0, 1], [0, 2])]
    assert keys[0] == keys[1] != keys[2]


def test_what_was_remembered_is_the_same(features: FeatureSet, tmp_path: Path) -> None:
    assert read_reference(tmp_path, "k") is None
    write_reference(tmp_path / "new" / "folder", "k", features)
    found = read_reference(tmp_path / "new" / "folder", "k")
    assert found is not None and len(found) == 9
    for name, value in features.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
    assert read_reference(tmp_path / "new" / "folder", "other") is None


def test_damaged_files_count_as_none(
    features: FeatureSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_reference(tmp_path, "k", features)
    path = tmp_path / "k.safetensors"
    whole = path.read_bytes()
    for broken, said in (
        (whole[:-8], "cannot be read"),
        (whole[:-1] + b"\x55", "are damaged"),
        (b"", "cannot"),
    ):
        caplog.clear()
        path.write_bytes(broken)
        assert read_reference(tmp_path, "k") is None and said in caplog.text


def test_a_folder_that_cannot_be_written_is_warned_of(
    features: FeatureSet, caplog: pytest.LogCaptureFixture
) -> None:
    write_reference(Path("/proc/nowhere"), "k", features)
    assert "are not remembered: cannot write /proc/nowhere" in caplog.text


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "mergevq" / "references"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "mergevq" / "references"
