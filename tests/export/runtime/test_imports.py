"""Exported graphs run where PyTorch does not exist, from Python and from the command line."""

from __future__ import annotations

import json

import pytest

from mergevq.cli import main

WITHOUT_TORCH = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "lightning", "onnx"):
            raise RuntimeError(f"{name} was imported")  # no ImportError, which somebody might catch

sys.meta_path.insert(0, Refused())
"""

SCRIPT = (
    WITHOUT_TORCH
    + """
import numpy as np
import mergevq

tok = mergevq.load(sys.argv[1], runtime="onnx")
tokens = tok.encode(np.zeros((2, 3, 32, 32), dtype=np.float32), keep=17)
painted = [tok.decode(tokens), tok.decode(tokens.indices)]
gen = mergevq.load(sys.argv[2], runtime="onnx")
painted.append(gen.generate([0, 3], seed=1, guidance=2.0, top_k=10, top_p=0.9))
print([each.shape for each in painted], "torch" in sys.modules)
"""
)

COMMAND = WITHOUT_TORCH + "from mergevq.cli import main\nsys.exit(main())"


def test_the_refusal_works(run_python):
    result = run_python("-c", WITHOUT_TORCH + "import mergevq; mergevq.create")
    assert result.returncode == 1 and "torch was imported" in result.stderr


def test_in_python(run_python, exported, exported_generator):
    result = run_python("-c", SCRIPT, str(exported), str(exported_generator[1]))
    assert result.stdout.strip() == f"{[(2, 3, 32, 32)] * 3} False", result.stderr


def test_encode_and_decode(run_python, exported, image_folder, tmp_path):
    chosen = ["--checkpoint", str(exported), "--runtime", "onnx"]
    encoded = run_python("-c", COMMAND, "encode", *chosen, str(image_folder), "--out", "t.npz", "--json")
    assert encoded.returncode == 0, encoded.stderr
    assert json.loads(encoded.stdout)["pictures"] == 12
    for source in ("true", "recovered"):
        arguments = ["t.npz", "--out", source, "--source", source]
        decoded = run_python("-c", COMMAND, "decode", *chosen, *arguments)
        assert decoded.returncode == 0, decoded.stderr
        assert len(list((tmp_path / source).rglob("*.png"))) == 12


def test_generate(run_python, exported_generator, tmp_path):
    chosen = ["--checkpoint", str(exported_generator[1]), "--runtime", "onnx", "--provider", "cpu"]
    wanted = ["--classes", "1,3", "--number", "2", "--out", "samples", "--grid", "grid.png"]
    result = run_python("-c", COMMAND, "generate", *chosen, *wanted)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "samples").rglob("*.png"))) == 4
    assert (tmp_path / "grid.png").is_file()


@pytest.mark.parametrize("command", ["encode", "decode", "generate"])
def test_help_names_the_run_time(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--runtime {torch,onnx,tensorrt}" in capsys.readouterr().out
