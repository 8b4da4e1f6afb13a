"""train tokenizer: how settings come together, one whole run, and what stops one."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch
import yaml

import mergevq
from mergevq.training.tokenizer.recipes import recipe

WORDS = ("train", "tokenizer")
SMALL = [
    *("--model.encoder.channels", 8, "--model.encoder.width", 32, "--model.encoder.heads", 1),
    *("--model.decoder.channels", 8, "--model.decoder.width", 32, "--model.decoder.heads", 1),
    *("--model.encoder.depth", 2, "--model.decoder.depth", 1, "--model.quantizer.bits", 8),
    *("--model.recovery.width", 32, "--model.recovery.heads", 1, "--keep.least", 16),
    *("--train.batch_size", 4, "--train.validate_images", 4, "--train.log_every", 1),
    *("--data.workers", 0, "--train.precision", 32, "--device", "cpu"),
]


def _printed(mergevq_main, *arguments):
    result = mergevq_main(*WORDS, "--print-config", *arguments)
    assert (result.code, result.err) == (0, "")
    return yaml.safe_load(result.out)


def test_print_config_is_the_recipe_and_can_be_read_back(mergevq_main, tmp_path):
    values = _printed(mergevq_main, "--preset", "small-64")
    assert values["train"]["steps"] == recipe("small-64").train.steps
    assert values["model"]["name"] == "small-64"
    values["train"]["steps"] = 7
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    assert _printed(mergevq_main, "--config", tmp_path / "run.yaml") == values


def test_file_then_dotted_options_then_data(mergevq_main, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(
        "train: {steps: 5, batch_size: 3, precision: 32}\nmodel:\n  encoder: {depth: 6}\ndata: {path: here}\n"
    )
    common = ("--preset", "tiny-32", "--config", path)
    values = _printed(mergevq_main, *common)
    preset = mergevq.create("tiny-32").config
    assert values["model"]["encoder"]["depth"] == 6
    assert values["model"]["encoder"]["width"] == preset.encoder.width  # a group changes what it names only
    assert values["train"]["precision"] == "32" and values["data"]["path"] == "here"

    dotted = (
        "--train.steps=9",
        "--optimizer.rate",
        "1e-4",
        "--optimizer.clip",
        "null",
        "--data.path",
        "0123",
    )
    values = _printed(mergevq_main, *common, *dotted, "--optimizer.betas", "[0.5, 0.9]")
    assert (values["train"]["steps"], values["train"]["batch_size"]) == (9, 3)
    assert values["optimizer"]["rate"] == 1e-4 and values["optimizer"]["clip"] is None
    assert values["optimizer"]["betas"] == [0.5, 0.9] and values["data"]["path"] == "0123"
    assert _printed(mergevq_main, *common, *dotted, "--data", "there")["data"]["path"] == "there"


def test_recipes(mergevq_main):
    values = _printed(mergevq_main, "--preset", "G+R", "--recipe", "released")
    assert values["loss"]["reconstruction_kind"] == "l1"


DATA = ("--data", "builtin:digits")
TINY = ("--preset", "tiny-32", *DATA)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "tiny-23", *DATA), "unknown preset 'tiny-23'; did you mean 'tiny-32'?"),
        ((*TINY, "--recipe", "relesed"), "did you mean 'released'?"),
        ((*TINY, "--train.stpes", 3), "unknown key 'train.stpes'; did you mean 'train.steps'?"),
        ((*TINY, "--trian.steps", 3), "did you mean 'train'?"),
        ((*TINY, "--model.encoder.dpeth", 3), "did you mean 'model.encoder.depth'?"),
        ((*TINY, "--steps", 3), "unknown option '--steps'"),
        ((*TINY, "--train.steps", "many"), "train.steps must be int, not 'many'"),
        ((*TINY, "--train.steps", "--train.seed", 1), "--train.steps has no value"),
        ((*TINY, "--train.steps"), "--train.steps has no value"),
        ((*TINY, "--train.steps", "[1"), "the value '[1' of --train.steps is not understood"),
        ((*TINY, "--train.steps", 1, 2), "unexpected argument '2'"),
        ((*TINY, "--train.precision", "16"), "unknown value of train.precision '16'"),
        ((*TINY, "--keep.most", 65), "65 exceeds the 64 positions"),
        ((*TINY, "--train.steps", 0), "train.steps is 0"),
        (DATA, "--preset is missing"),
        (("--preset", "tiny-32"), "--data is missing"),
        (TINY, "--out is missing"),
        (("--preset", "tiny-32", "--data", "nowhere", "--out", "{out}"), "nowhere does not exist"),
        ((*TINY, "--out", "{out}", "--device", "tpu"), "unknown device 'tpu'"),
    ],
)
def test_a_wrong_request(mergevq_main, tmp_path, arguments, said):
    out = tmp_path / "run"
    result = mergevq_main(*WORDS, *(out if word == "{out}" else word for word in arguments))
    assert result.code == 2 and said in result.error and not out.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"trian: {steps: 3}", "did you mean 'train'?"),
        (b"train: {stpes: 3}", "did you mean 'train.steps'?"),
        (b"train: 3", "train must be a group of keys, not 3"),
        (b"train:", "train must be a group of keys, not None"),
        (b"- a", "must hold groups of keys"),
        (b"", "must hold groups of keys"),
        (b"a: [", "it is no YAML"),
        (b"a: \xff", "it is not text in UTF-8"),
        (b"train: {steps: 3}\ntrain: {seed: 4}", "'train' is given twice"),
        (b"train: {steps: 3}\ntrain.steps: 4", "'train.steps' is given twice"),
        (
            b"a0: &a0 [1]\n"
            + b"".join(
                b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 10)
            ),
            "stands for more than",
        ),
        (b"train: {seed: " + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b"train: {seed: " + b"9" * 400 + b"}", "train.seed is a number of some 401 digits"),
        (b"train: &a [*a]", "an alias in it stands for itself"),
        (b"a: !!python/object/apply:os.system [ls]", "it is no YAML"),
    ],
)
def test_a_wrong_file(mergevq_main, tmp_path, content, said):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    result = mergevq_main(*WORDS, *TINY, "--config", path, "--out", tmp_path / "run")
    assert result.code == 2 and said in result.error


def test_a_file_without_an_end(mergevq_main):
    result = mergevq_main(*WORDS, *TINY, "--config", "/dev/full")
    assert result.code == 2 and "cannot read the settings in /dev/full: it has more than" in result.error


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("train.seed", -5, "train.seed is -5; it must be a whole number from 0 to 4294967295"),
        ("train.seed", 2**32, "train.seed is 4294967296"),
        ("optimizer.rate", ".nan", "optimizer.rate is nan; it must be a number in (0, 100]"),
        ("optimizer.rate", "9" * 400, "optimizer.rate is a number of some 401 digits"),
        ("optimizer.betas", "[.nan, 0.9]", "optimizer.betas is nan"),
        ("optimizer.warmup", -3, "optimizer.warmup is -3"),
        ("optimizer.warmup", "1" + "0" * 30, "optimizer.warmup is a number of some 31 digits"),
        ("train.epochs", ".inf", "train.epochs is inf"),
        ("train.validate_images", 0, "train.validate_images is 0; it must be a whole number from 1"),
        ("keep.rate", ".nan", "keep.rate is nan"),
        ("loss.alignment", -1, "loss.alignment is -1"),
        ("loss.perceptual", ".inf", "loss.perceptual is inf"),
        ("data.workers", 10**6, "data.workers is 1000000; it must be a whole number from 0 to 1024"),
        ("data.max_scale", ".nan", "data.max_scale is nan"),
        ("model.encoder.channels", "1" + "0" * 30, "encoder.channels is a number of some 31 digits"),
    ],
)
def test_senseless_settings(mergevq_main, tmp_path, option, value, said):
    result = mergevq_main(*WORDS, *TINY, "--out", tmp_path / "run", f"--{option}={value}")
    assert result.code == 2 and said in result.error and not (tmp_path / "run").exists()


def test_a_missing_file_names_it(mergevq_main, tmp_path):
    result = mergevq_main(*WORDS, *TINY, "--config", tmp_path / "no.yaml")
    assert result.code == 2 and "no.yaml: No such file or directory" in result.error


@pytest.mark.parametrize("content", ["empty", "texts"])
def test_a_folder_without_pictures(mergevq_main, tmp_path, content):
    folder = tmp_path / "data"
    folder.mkdir()
    if content == "texts":
        (folder / "a.txt").write_text("no picture")
    result = mergevq_main(*WORDS, "--preset", "tiny-32", "--data", folder, "--out", tmp_path / "run")
    assert result.code == 1 and "holds no pictures" in result.error and not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written(mergevq_main, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        result = mergevq_main(*WORDS, *TINY, *SMALL, "--train.steps", 1, "--out", out)
        assert result.code == 1 and "cannot write" in result.error


def test_weights_of_another_model_are_no_start(mergevq_main, tiny, tmp_path):
    result = mergevq_main(*WORDS, *TINY, "--init", tiny, "--out", tmp_path / "run", "--device", "cpu")
    assert result.code == 1 and "holds another model than the run's tiny-32" in result.error


@pytest.mark.parametrize("init", ["nowhere", "someone/tok", "hf:tok"])
def test_weights_that_are_not_there_are_no_start(mergevq_main, tmp_path, init):
    result = mergevq_main(*WORDS, *TINY, "--init", init, "--out", tmp_path / "run", "--device", "cpu")
    assert result.code == 1 and init in result.error and "unexpected" not in result.error


def test_a_run_names_a_broken_picture_and_goes_on(mergevq_process, broken_jpeg, tmp_path):
    """Then it is a checkpoint, a second command does nothing, and other settings are refused."""
    out = tmp_path / "run"
    data = broken_jpeg.parent.parent
    arguments = (*WORDS, "--preset", "tiny-32", "--data", data, "--out", out, *SMALL, "--train.steps", 8)
    result = mergevq_process(*arguments)
    assert result.code == 0, result.err
    assert result.out == f"{out}\n"
    assert f"skipping {broken_jpeg}" in result.err
    for word in ("GPU available", "does not have many workers", "Traceback", "srun"):
        assert word not in result.err
    assert mergevq.load(out).config.encoder.width == 32
    assert json.loads((out / "environment.json").read_text())["device"] == "cpu"

    again = mergevq_process(*WORDS, "--config", out / "run.yaml", "--out", out, "--device", "cpu")
    assert again.code == 0 and "done already" in again.err


_LIMITED = """
import resource, sys
from mergevq.cli import main
from mergevq.training.engine.checkpoint import AtomicCheckpointIO

save, saved = AtomicCheckpointIO.save_checkpoint, []

def on_a_disk_that_fills_up(self, *arguments, **options):
    if saved:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    saved.append(1)
    save(self, *arguments, **options)

AtomicCheckpointIO.save_checkpoint = on_a_disk_that_fills_up
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_a_full_disk_leaves_the_last_good_checkpoint(run_python, tmp_path):
    out = tmp_path / "run"
    arguments = [*WORDS, *TINY, "--out", out, *SMALL, "--train.steps", 3, "--train.checkpoint_every", 1]
    result = run_python("-c", _LIMITED, *map(str, arguments))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(f"mergevq: error: cannot write {out / 'checkpoints' / 'last.ckpt'}: "), last
    assert "File too large" in last

    names = {path.name for path in out.rglob("*") if path.is_file()}
    expected = {"run.yaml", "environment.json", "log.csv", "config.json", "model.safetensors", "last.ckpt"}
    assert names - {name for name in names if name.startswith("step-")} == expected
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["mergevq"]["steps_done"] == 1
    assert mergevq.load(out).config == mergevq.load(out / "checkpoints" / "last.ckpt").config


def test_nothing_but_broken_pictures_is_one_sentence(mergevq_process, tmp_path):
    """The error comes from a worker process."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(8):
        (data / f"{number}.jpg").write_bytes(b"no picture")
    arguments = (*SMALL, "--train.steps", 2, "--data.workers", 1, "--out", tmp_path / "run")
    result = mergevq_process(*WORDS, "--preset", "tiny-32", "--data", data, *arguments)
    assert result.code == 1 and str(data) in result.error
    assert os.path.exists(tmp_path / "run" / "run.yaml")
