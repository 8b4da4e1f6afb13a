"""tokens: killed and continued, shared by processes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import mergevq
from mergevq.cli import tokens
from mergevq.data.tokens.shards import TokenShards
from mergevq.models.store import fingerprint

SETTINGS = ("--data", "builtin:digits", "--split", "val", "--keep", "16,32", "--shard-size", 24)
"""15 shards, of which the last is smaller."""


def _files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _kill_after(shards, out, *arguments):
    """Starts the command and sends SIGKILL to it and its workers once there are so many shards."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mergevq", *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        if len(list(out.glob("shard-*"))) >= shards:
            break
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="kills a group of processes")
def test_killed_and_continued_equals_never_killed(mergevq_main, tiny, tmp_path):
    command = ("tokens", "--checkpoint", tiny, *SETTINGS, "--device", "cpu", "--out")
    assert mergevq_main(*command, tmp_path / "whole").code == 0
    killed = tmp_path / "killed"
    _kill_after(2, killed, *command, killed)
    present = len(list(killed.glob("shard-*")))
    assert 2 <= present < 15
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("shard-*/*.npy")}
    result = mergevq_main(*command, killed, "--json", "--workers", 0)
    assert result.code == 0, result.err
    assert result.err.startswith(
        "data builtin:digits: 1438 training and 359 validation pictures (built in), "
    )
    summary = json.loads(result.out)
    assert (summary["missing"], summary["records"], summary["pictures"]) == (0, 718, 359)
    assert summary["done"] == 359 - 24 * present  # nothing was done twice
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert _files(killed) == _files(tmp_path / "whole")


def test_two_processes_equal_one(mergevq_main, tiny, tmp_path, monkeypatch):
    command = ("tokens", "--checkpoint", tiny, *SETTINGS, "--shard-size", 100, "--workers", 0, "--out")
    assert mergevq_main(*command, tmp_path / "one").code == 0
    first = mergevq_main(*command, tmp_path / "two", "--rank", 0, "--world", 2)
    assert first.code == 0 and "2 of 4 shards are missing; they belong to other processes" in first.out
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun says it
    second = mergevq_main(*command, tmp_path / "two", "--json")
    assert second.code == 0 and json.loads(second.out)["records"] == 718
    assert _files(tmp_path / "one") == _files(tmp_path / "two")


def test_a_rank_that_is_no_number(mergevq_main, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "one")
    result = mergevq_main(
        "tokens", "--checkpoint", tiny, "--data", "builtin:digits", "--out", tmp_path / "out"
    )
    assert result.code == 2 and "unset RANK" in result.error


def test_a_place_in_the_environment_is_said(monkeypatch, caplog):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with caplog.at_level("INFO", "mergevq"):
        assert tokens._place(SimpleNamespace(rank=None, world=None)) == (0, 4)
    assert "process 0 of 4, as RANK and WORLD_SIZE say" in caplog.text


def test_classes_are_the_folders(mergevq_main, tiny, image_folder, tmp_path):
    out = tmp_path / "tokens"
    result = mergevq_main(
        "tokens", "--checkpoint", tiny, "--data", image_folder, "--split", "all", "--out", out, "--views", 3
    )
    assert (
        result.code == 0 and f"{out}: 36 records of 12 pictures in 1 of 1 shards; 12 pictures" in result.out
    )
    shards = TokenShards(out)
    assert shards.meta.class_names == ("face", "thing") and shards.meta.counts == (32,)
    assert shards.batch([0, 17, 18, 35]).labels.tolist() == [0, 0, 1, 1]
    assert shards.meta.fingerprint == fingerprint(mergevq.load(tiny)) and shards.meta.tokenizer == "tiny-32"
    again = mergevq_main(
        "tokens", "--checkpoint", tiny, "--data", image_folder, "--split", "all", "--out", out, "--views", 3
    )
    assert again.code == 0 and "0 pictures done here" in again.out


def test_a_broken_picture_is_named_and_not_tried_again(
    mergevq_main, tiny, image_folder, broken_jpeg, tmp_path
):
    command = (
        "tokens",
        "--checkpoint",
        tiny,
        "--data",
        image_folder,
        "--split",
        "all",
        "--out",
        tmp_path / "t",
    )
    result = mergevq_main(*command)
    assert result.code == 1 and f"skipping {broken_jpeg}" in result.err
    assert result.error.startswith("1 of 13 pictures had to be left out, first ")
    assert len(TokenShards(tmp_path / "t")) == 24
    again = mergevq_main(*command)
    assert again.code == 1 and again.error == result.error and "skipping" not in again.err
    strict = mergevq_main(*command[:-1], tmp_path / "strict", "--max-failures", 0)
    assert strict.code == 1 and "--max-failures is 0" in strict.error


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--data", "nowhere/at/all"), 2, "nowhere/at/all does not exist"),
        (("--keep", "16,65"), 2, "the nearest count that can be reached is 64"),
        (("--keep", "some"), 2, "'some' is not a positive integer"),
        (("--views", 0), 2, "'0' is not a positive integer"),
        (("--rank", 0), 2, "--rank and --world belong together"),
        (("--rank", 2, "--world", 2), 2, "rank 2 is not below the number of processes, 2"),
        (("--sed", 1), 2, "did you mean '--seed'"),
        (("--checkpoint", "nothing"), 1, "there is no checkpoint at nothing"),
        (("--device", "cda"), 2, "did you mean 'cuda'"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(mergevq_main, tiny, tmp_path, options, code, said):
    result = mergevq_main("tokens", "--checkpoint", tiny, *SETTINGS, "--out", tmp_path / "t", *options)
    assert result.code == code and said in result.error and not (tmp_path / "t").exists()


def test_pictures_beyond_the_limits_are_left_out(mergevq_main, tiny, image_folder, tmp_path):
    Image.new("RGB", (300, 2), "red").save(image_folder / "strip.png")
    Image.new("RGB", (90, 80), "red").save(image_folder / "wide.png")
    command = ("tokens", "--checkpoint", tiny, "--data", image_folder, "--split", "all", "--workers", 0)
    result = mergevq_main(*command, "--out", tmp_path / "t", "--json", "--max-pixels", 7000)
    assert result.code == 1 and result.error.startswith("2 of 14 pictures")
    assert "300 x 2 px" in result.err and "90 x 80 px are 7200, and max_pixels is 7000" in result.err


def test_other_settings_do_not_go_on(mergevq_main, tiny, tmp_path):
    command = ("tokens", "--checkpoint", tiny, *SETTINGS, "--shard-size", 400, "--out", tmp_path / "t")
    assert mergevq_main(*command).code == 0
    result = mergevq_main(*command, "--views", 1, "--split", "train")
    assert result.code == 2
    for said in ("other settings", "views (2 there, 1 here)", "split (val there, train here)"):
        assert said in result.error
    (tmp_path / "file").touch()
    result = mergevq_main(*command[:-1], tmp_path / "file")
    assert result.code == 1 and "is a file; give the name of a folder" in result.error


@pytest.mark.parametrize(("local", "index"), [("3", 3), ("5", 1), (None, None)])
def test_each_process_of_a_machine_takes_its_own_device(monkeypatch, local, index):
    taken = []
    monkeypatch.setattr("mergevq.backends.select", lambda name: SimpleNamespace(name="cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    monkeypatch.setattr(torch.accelerator, "set_device_index", taken.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    tokens._use_local_device(None)
    assert taken == ([] if index is None else [index])
