"""The pages and scripts for clusters, executed with stand-ins for what a cluster has.

A stand-in notes its command line. What reaches `mergevq` is read by the command line's own parser and made into
a configuration, what reaches `torchrun` by torchrun's.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from mergevq.cli import build_parser, parse
from mergevq.cli.train import tokenizer
from mergevq.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "clusters").glob("*.md"))
SCRIPTS = sorted(path for path in (ROOT / "docs" / "clusters").iterdir() if path.suffix in (".sh", ".sbatch"))
RECORD = 'printf "%s\\0" "${0##*/}" "$@" >> "$RECORD"; printf "\\n" >> "$RECORD"\n'
STAND_INS = {
    # Runs the program that its own options are followed by.
    "torchrun": 'while [[ $1 != -m ]]; do shift; done; shift; exec "$@"',
    "srun": (
        "while [[ $1 == --* ]]; do shift; done\nfor process in 0 11; do\n"
        'SLURM_PROCID=$process SLURM_LOCALID=$((process % 8)) "$@" || exit\ndone'
    ),
    "sbatch": (
        "nodes=1\nwhile [[ $1 == --* ]]; do [[ $1 == --nodes ]] && nodes=$2; shift 2; done\nscript=$1; shift\n"
        "export SLURM_NNODES=$nodes SLURM_NTASKS_PER_NODE=8 SLURM_NTASKS=$((8 * nodes))\n"
        'exec bash "$script" "$@"'
    ),
    "mergevq": "[[ $1 != doctor ]] || exit ${DOCTOR:-0}",
    "pip": "",
    "python3": 'mkdir -p "${!#}/bin"; touch "${!#}/bin/activate"',
    "nvidia-smi": "",
    "npu-smi": "",
}


@pytest.fixture
def dry_run(tmp_path):
    """Runs a text of shell commands with the stand-ins; returns each command line that one of them got."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in STAND_INS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\nset -u\n{RECORD}{text}\n")
        (folder / name).chmod(0o755)
    cann = tmp_path / "cann"
    cann.mkdir()
    (cann / "set_env.sh").write_text("echo sourced; : $NOT_SET_ANYWHERE\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "docs").symlink_to(ROOT / "docs")
    record = tmp_path / "record"

    def run(text, **variables):
        record.write_text("")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        environment = {**kept, "PATH": path, "RECORD": str(record), "CANN": str(cann), **variables}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        lines = [line.rstrip("\0").split("\0") for line in record.read_text().split("\n") if line]
        return SimpleNamespace(code=done.returncode, err=done.stderr, out=done.stdout, lines=lines)

    return run


def blocks(page):
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def of(lines, name):
    return [line[1:] for line in lines if line[0] == name]


def check(arguments):
    """The options that mergevq reads from a command line; those of stage 1 must make a configuration too."""
    options = parse(build_parser(), arguments)
    if arguments[:2] == ["train", "tokenizer"]:
        config = tokenizer.configuration(options)
        assert config.data.path == options.data and options.devices > 1
    return options


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_parse_and_may_be_executed(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page(page, dry_run):
    assert blocks(page)
    for block in blocks(page):
        text = block.replace("source /usr/local/Ascend/ascend-toolkit", 'source "$CANN"')
        done = dry_run(text, NOT_SET_ANYWHERE="")
        assert (done.code, done.err) == (0, ""), block
        assert done.lines, block
        for arguments in of(done.lines, "mergevq"):
            check(arguments)


@pytest.mark.parametrize("device", ["cuda", "npu"])
def test_torchrun(dry_run, device):
    from torch.distributed.run import get_args_parser

    line = "docs/clusters/torchrun.sh train tokenizer --preset G+R --data d --out 'o p' --train.steps 9"
    done = dry_run(line, NODES="4", HEAD="node01", DEVICE=device, DEVICES="6")
    assert done.code == 0, done.err
    (given,) = of(done.lines, "torchrun")
    understood = get_args_parser().parse_args(given)
    assert (understood.nnodes, understood.nproc_per_node) == ("4", "6")
    assert understood.rdzv_backend == "c10d" and understood.rdzv_endpoint == "node01:29400"
    assert understood.module and understood.training_script == "mergevq"
    options = check(understood.training_script_args)
    assert (options.device, options.devices, str(options.out)) == (device, 6, "o p")
    assert options.overrides == ["--train.steps", "9"]


@pytest.mark.parametrize("device", ["cuda", "npu"])
def test_training_under_slurm(dry_run, device):
    line = "sbatch --nodes 2 docs/clusters/train.sbatch train tokenizer --preset R --data d --out 'o p'"
    done = dry_run(line, DEVICE=device)
    assert (done.code, done.err) == (0, "")
    assert ("sourced" in done.out) == (device == "npu")
    first, second = of(done.lines, "srun")
    assert first[:2] == ["--ntasks=2", "--ntasks-per-node=1"] and "--kill-on-bad-exit=1" in second
    looked, _, *trained = of(done.lines, "mergevq")
    assert looked == ["doctor", "--device", device]
    assert len(trained) == 2 and trained[0] == trained[1]
    options = check(trained[0])
    assert (options.device, options.devices, str(options.out)) == (device, 8, "o p")


@pytest.mark.parametrize(("verdict", "runs"), [("0", True), ("1", True), ("2", False)])
def test_a_node_without_the_device_stops_the_job(dry_run, verdict, runs):
    line = "sbatch --nodes 2 docs/clusters/train.sbatch train tokenizer --preset R --data d --out o"
    done = dry_run(line, DOCTOR=verdict)
    assert (done.code == 0) == runs
    assert any(arguments[0] == "train" for arguments in of(done.lines, "mergevq")) == runs


def test_tokens_under_slurm(dry_run):
    line = "sbatch --nodes 2 docs/clusters/tokens.sbatch --checkpoint c --data 'd e' --out o --views 4"
    done = dry_run(line, DEVICE="npu")
    assert done.code == 0, done.err
    all_options = [check(arguments) for arguments in of(done.lines, "mergevq")]
    assert [(options.rank, options.world) for options in all_options] == [(0, 16), (11, 16)]
    assert all(options.data == "d e" and options.device == "npu" for options in all_options)


def test_the_check_can_fail():
    for wrong in (
        ["train", "tokenizer", "--preset", "G+X", "--data", "d", "--devices", "8"],
        ["train", "tokenizer", "--preset", "G+R", "--data", "d", "--devices", "8", "--train.stepz", "9"],
        ["tokens", "--checkpoin", "c"],
    ):
        with pytest.raises(UsageError):
            check(wrong)
