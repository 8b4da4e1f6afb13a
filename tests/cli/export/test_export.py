"""`mergevq export`: exit codes, one sentence for each mistake, and what is printed."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mergevq.cli import main


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    """An export by the command, not to be changed, and what the command printed."""
    out = tmp_path_factory.mktemp("export") / "out"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(
            ["export", "onnx", "--checkpoint", str(tiny), "--out", str(out), "--keep", "32", "--json"]
        )
    assert code == 0
    return out, json.loads(printed.getvalue())


@pytest.fixture
def folder(exported):
    return exported[0]


def test_onnx_reports_as_json(exported):
    folder, report = exported
    assert report["out"] == str(folder) and report["precision"] == "fp32"
    assert report["verification"]["passed"]
    assert set(report["files"]) == {"encoder_k32.onnx", "decoder.onnx", "recovery.onnx"}


def test_verify_prints_every_check(mergevq_main, tiny, folder):
    result = mergevq_main("export", "verify", folder, "--checkpoint", tiny)
    assert result.code == 0, result.err
    assert "FAILED" not in result.out
    assert "ok     decoder.onnx: greatest difference of a pixel" in result.out


def test_inspect_shows_graphs_and_verdict(mergevq_main, folder):
    result = mergevq_main("export", "inspect", folder)
    assert result.code == 0
    assert "encoder_k32.onnx (" in result.out
    assert "indices int64[batch, keep], source int64[batch, 64]" in result.out
    assert "verification passed: " in result.out
    values = json.loads(mergevq_main("export", "inspect", folder, "--json").out)
    assert values["verification"]["passed"] and values["manifest"]["kind"] == "tokenizer"


def test_inspect_needs_no_torch(folder, run_python):
    code = (
        "import sys; from mergevq.cli import main; code = main(['export', 'inspect', sys.argv[1]]); "
        "print(code, [name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    result = run_python("-c", code, str(folder))
    assert result.stdout.strip().splitlines()[-1] == "0 []", result.stderr


def test_tampering_is_one_sentence(mergevq_main, tiny, folder, tmp_path):
    out = Path(shutil.copytree(folder, tmp_path / "out"))
    graph = out / "decoder.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[: len(content) // 2])
    for command in (("inspect", out), ("verify", out, "--checkpoint", tiny)):
        result = mergevq_main("export", *command)
        assert result.code == 1
        assert result.error.startswith(
            f"{graph} has {len(content) // 2} bytes and should have {len(content)}"
        )
    graph.unlink()
    assert mergevq_main("export", "inspect", out).error.startswith(f"{graph} is missing")
    (out / "manifest.json").write_text("{}")
    assert "does not describe graphs" in mergevq_main("export", "inspect", out).error


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--keep", "3"], 2, "nearest count that can be reached is 16"),
        (["--keep", "32", "--dynamic-keep"], 2, "not allowed with argument"),
        (["--precision", "int4"], 2, "invalid choice"),
        (["--precision", "int8"], 2, "int8 is for generators"),
    ],
)
def test_impossible_requests(mergevq_main, tiny, tmp_path, arguments, code, message):
    result = mergevq_main("export", "onnx", "--checkpoint", tiny, "--out", tmp_path / "out", *arguments)
    assert result.code == code
    assert message in result.error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(mergevq_main, tiny, tmp_path):
    (tmp_path / "notes.txt").touch()
    result = mergevq_main("export", "onnx", "--checkpoint", tiny, "--out", tmp_path)
    assert result.code == 1
    assert "exists and is not an exported model" in result.error


def test_kinds_are_suggested(mergevq_main):
    result = mergevq_main("export", "onxx")
    assert result.code == 2 and "did you mean 'onnx'" in result.error


def test_a_terminated_export_leaves_nothing_behind(tiny, tmp_path):
    command = [
        sys.executable,
        "-m",
        "mergevq",
        "export",
        "onnx",
        "--checkpoint",
        tiny,
        "--out",
        tmp_path / "out",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(path.name.startswith(".out.") for path in tmp_path.iterdir())
    process.terminate()
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in complaint
    assert list(tmp_path.iterdir()) == []
