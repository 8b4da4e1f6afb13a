"""Standard streams that cannot be written to cost no result, and what is told of it."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from mergevq import cli
from mergevq.cli.shared.streams import SteadyStream

PATH = "Bilder/Größe-日本.png"


class Full(io.StringIO):
    """A stream on a disk without room."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def call(monkeypatch, done):
    """A command that prints, then works on."""

    def run(options):
        sys.stdout.write(f"{PATH}\n")
        sys.stdout.flush()
        done.append("written")
        return 0

    monkeypatch.setattr(cli.doctor, "run", run)
    return cli.main(["doctor"])


def test_a_full_disk_is_told_when_the_work_is_done(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    done = []
    assert call(monkeypatch, done) == 1 and done == ["written"]
    assert capsys.readouterr().err == (
        "mergevq: error: cannot write to the standard output: No space left on device\n"
    )


def test_letters_without_bytes_are_escaped(monkeypatch):
    bytes_written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_written, encoding="ascii"))
    done = []
    assert call(monkeypatch, done) == 0 and done == ["written"]
    assert bytes_written.getvalue().decode() == PATH.encode("ascii", "backslashreplace").decode() + "\n"


def test_file_names_that_are_no_text_are_escaped():
    written = io.StringIO()
    SteadyStream(written).write("a\udcff")
    assert written.getvalue() == "a\\udcff"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_or_never_there(monkeypatch, name):
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, name, stream)
        done = []
        assert call(monkeypatch, done) == (1 if (name, stream) == ("stdout", closed) else 0)
        assert done == ["written"] and getattr(sys, name) is stream


CLOSED = """
import os, sys
from mergevq import cli
def run(options):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    with open("result", "wb") as file:
        os.write(2, b"from a library")
        os.write(1, b"from another")
        return 0 if file.fileno() > 2 else 9
cli.doctor.run = run
sys.exit(cli.main(["doctor"]))
"""


def test_no_file_gets_the_number_of_a_closed_stream(run_python, tmp_path):
    def close():
        for descriptor in range(3):
            os.close(descriptor)

    assert run_python("-c", CLOSED, preexec_fn=close).returncode == 0
    assert (tmp_path / "result").read_bytes() == b""
