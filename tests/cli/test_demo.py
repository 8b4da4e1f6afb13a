"""The demo in a few steps: everything that it promises is there, and a second run does not train again."""

from __future__ import annotations

import json

from PIL import Image


def test_demo(run_python, tmp_path):
    steps = ("--steps", "2", "--generator-steps", "2")
    command = ("-m", "mergevq", "demo", "--out", str(tmp_path / "demo"), *steps, "--device", "cpu")
    first = run_python(*command)
    assert first.returncode == 0, first.stderr
    assert "crops that the tokenizer never saw" in first.stdout
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    rows = summary["report"]["results"]
    assert {(row["keep"], row["source"]) for row in rows} == {
        (keep, source) for keep in (32, 64, 128, 256) for source in ("true", "recovered")
    }
    assert all(row["jpeg"] for row in rows)
    assert summary["report"]["mean_colour_psnr"] > 10
    costs = summary["generators"]["costs"]
    assert set(costs) == {"raster (untrained)", "merge_ar", "rand_ar", "rand_ar, 32 steps"}
    assert costs["raster (untrained)"]["passes"] == 256 and costs["rand_ar, 32 steps"]["passes"] == 32
    for path in summary["pictures"] + summary["generators"]["pictures"]:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
    second = run_python(*command)
    assert second.returncode == 0, second.stderr
    assert "done already" in second.stderr
