"""A folder takes another's place whole; kills, two at once and strict umasks included."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mergevq.errors import CheckpointError, OutputError, UsageError
from mergevq.export import read_manifest
from mergevq.export.placing import EARLIER, folder_to_be, only_exporter, put_back
from mergevq.storage.leftovers import hidden


@pytest.fixture
def ended() -> int:
    """The number of a process that is there no more."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def of(pid: int, path: Path, suffix: str = ".part") -> Path:
    """A hidden folder as another process of this machine makes it."""
    own = hidden(path, suffix)
    made = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{pid}-"))
    made.mkdir()
    (made / "graph").write_text(suffix)
    return made


def test_a_folder_takes_its_name_only_when_all_went_well(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for content in ("first", "second"):  # where nothing was, and where an export was
        with folder_to_be(out) as folder:
            (folder / "graph").write_text(content)
        assert (out / "graph").read_text() == content

    def stop_half_way() -> None:
        with folder_to_be(out) as folder:
            (folder / "graph").write_text("third")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stop_half_way()
    assert (out / "graph").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_earlier_folder_is_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Broken off between the two renames."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "graph").write_text("earlier")
    rename = Path.rename

    def broken(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises((OutputError, KeyboardInterrupt)), folder_to_be(out) as folder:
        (folder / "graph").write_text("new")
    assert (out / "graph").read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_decides_who_may_read(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with folder_to_be(tmp_path / "out"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("by", ["export", "read"])
def test_a_kill_between_the_renames_is_mended(tmp_path: Path, ended: int, by: str) -> None:
    out = tmp_path / "out"
    of(ended, out, EARLIER)
    other, half = of(ended, tmp_path / "out.2", EARLIER), of(ended, out)
    if by == "read":
        with pytest.raises(CheckpointError, match=r"it has no manifest\.json"):
            read_manifest(out)
        assert half.exists()
    else:
        with only_exporter(out):
            assert not half.exists()
    assert (out / "graph").read_text() == EARLIER and other.exists()


def test_a_kill_after_the_renames_is_cleared(tmp_path: Path, ended: int) -> None:
    out = tmp_path / "out"
    with folder_to_be(out) as folder:
        (folder / "graph").write_text("new")
    running = hidden(out, EARLIER)
    running.mkdir()
    of(ended, out, EARLIER)
    put_back(out)
    assert (out / "graph").read_text() == "new" and sorted(tmp_path.iterdir()) == sorted([out, running])


def test_two_exports_to_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        only_exporter(out),
        pytest.raises(UsageError, match=rf"process {os.getpid()} on .* exports out there; wait"),
        only_exporter(out),
    ):
        pass
    with only_exporter(out), only_exporter(tmp_path / "other"):
        pass
    assert list(tmp_path.iterdir()) == []
