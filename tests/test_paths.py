"""Paths as users write them: ~, names that no file can have, and how messages show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergevq.errors import CheckpointError, UsageError
from mergevq.storage.files import expanded, mistaken_for


def test_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert expanded("~") == Path("/home/someone") and expanded(Path("~/a/~")) == Path("/home/someone/a/~")
    assert expanded("a/b") == Path("a/b") and expanded("a/~/b") == Path("a/~/b")
    with pytest.raises(UsageError, match="no such home folder"):
        expanded("~nobody-like-this/a")


@pytest.mark.parametrize("name", ["a" * 256, "a/" * 5000, "a\0b", "\ud800"])
def test_what_no_file_can_be_called(name):
    with pytest.raises(UsageError, match="is no path") as caught:
        expanded(name)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


def test_a_long_list_in_braces_is_a_pattern():
    pattern = "{" + ",".join(f"shard-{number}" for number in range(100)) + "}.tar"
    assert str(expanded(pattern)) == pattern


def test_messages_leave_terminals_alone():
    assert str(CheckpointError("no \x1b[31m \ud800 ü\r")) == "no \\x1b[31m \\ud800 ü\\r"


def test_files_are_known_for_what_they_are(tmp_path):
    for content, said in [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1", "a git-lfs pointer"),
        (b"\xef\xbb\xbf <!doctype HTML>", "a web page"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"PK\x03\x04", None),
    ]:
        (tmp_path / "file").write_bytes(content)
        found = mistaken_for(tmp_path / "file")
        assert found is None if said is None else str(found).startswith(said)
    assert mistaken_for(tmp_path / "none") is None and mistaken_for(tmp_path) is None
