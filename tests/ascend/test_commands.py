"""Commands on the NPU write what they write on the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest


def test_extracted_tokens_are_those_of_the_cpu(run_python, token_home, tmp_path):
    common = ("--checkpoint", token_home / "tok", "--data", token_home / "images", "--split", "all")
    for device in ("cpu", "npu"):
        options = ("--out", tmp_path / device, "--device", device, "--workers", "0", "--shard-size", "8")
        run_python("-m", "mergevq", "tokens", *common, *options)
    wanted, got = (sorted((tmp_path / device).glob("shard-*/*.npy")) for device in ("cpu", "npu"))
    assert len(wanted) == len(got) > 4
    for one, other in zip(wanted, got, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(np.load(one), np.load(other))


def test_extraction_takes_the_card_of_its_rank(run_python, token_home, tmp_path):
    script = (
        "import sys, torch, mergevq.cli; code = mergevq.cli.main(sys.argv[1:]);"
        "print(torch.accelerator.current_device_index()); sys.exit(code)"
    )
    options = ("--checkpoint", token_home / "tok", "--data", token_home / "images", "--split", "all")
    place = {"LOCAL_RANK": "1", "RANK": "1", "WORLD_SIZE": "2", "EMU_NPU_COUNT": "2"}
    command = ("tokens", *options, "--out", tmp_path / "out", "--device", "npu", "--shard-size", "4")
    done = run_python("-c", script, *command, "--workers", "0", check=False, **place)
    assert done.stdout.splitlines()[-1] == "1", done.stdout + done.stderr


def test_reconstructions_are_measured_as_on_the_cpu(run_python, token_home, tmp_path):
    reports = []
    for device in ("cpu", "npu"):
        command = ("--checkpoint", token_home / "tok", "--data", token_home / "images", "--workers", "0")
        out = tmp_path / f"{device}.json"
        run_python("-m", "mergevq", "evaluate", "reconstruction", *command, "--device", device, "--json", out)
        reports.append(json.loads(out.read_text())["results"])
    wanted, got = reports
    assert len(wanted) == len(got) > 0
    for one, other in zip(wanted, got, strict=True):
        assert other["psnr"] == pytest.approx(one["psnr"], abs=1e-3)
        assert other["usage"]["distinct"] == one["usage"]["distinct"]
