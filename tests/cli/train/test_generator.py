"""train generator and train recovery: how settings come together, whole runs, and what stops one."""

from __future__ import annotations

import re

import pytest
import yaml

import mergevq
from mergevq.data.images.sources import open_source
from mergevq.data.tokens.extraction import describe, extract
from mergevq.models.store import fingerprint

SMALL = [
    *("--model.width", 64, "--model.depth", 1, "--train.steps", 2, "--train.batch_size", 4),
    *("--train.samples", 1, "--optimizer.warmup", 0, "--device", "cpu"),
]


@pytest.fixture(scope="session")
def tokens(tiny, tmp_path_factory, photo_crops):
    """Tokens of twelve pictures of two classes; beside them the pictures, in `images`."""
    home = tmp_path_factory.mktemp("tokens")
    for number, (label, picture) in enumerate(photo_crops):
        (home / "images" / label).mkdir(parents=True, exist_ok=True)
        picture.save(home / "images" / label / f"{number}.png")
    source = open_source(str(home / "images"), "all")
    tokenizer = mergevq.load(tiny)
    extract(tokenizer, source, home / "tokens", describe(tokenizer, source, "all", counts=(24, 40)))
    return home / "tokens"


def _printed(mergevq_main, kind, *arguments):
    result = mergevq_main("train", kind, "--print-config", *arguments)
    assert (result.code, result.err) == (0, "")
    return yaml.safe_load(result.out)


def test_print_config_is_the_recipe_and_can_be_read_back(mergevq_main, tmp_path):
    values = _printed(mergevq_main, "generator", "--preset", "L", "--kind", "rand_ar")
    assert values["model"]["width"] == 1024 and values["model"]["kind"] == "rand_ar"
    assert values["optimizer"]["betas"] == [0.9, 0.95] and values["model"]["split"] == [9, 9]
    values["train"]["steps"] = 7
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    assert _printed(mergevq_main, "generator", "--config", tmp_path / "run.yaml") == values
    assert _printed(mergevq_main, "generator", "--preset", "B")["model"]["kind"] == "merge_ar"


def test_the_tokens_decide_what_they_can(mergevq_main, tiny, tokens):
    common = ("--preset", "nano", "--tokenizer", tiny, "--data", tokens)
    model = _printed(mergevq_main, "generator", *common, "--kind", "raster")["model"]
    assert (model["grid"], model["counts"], model["classes"], model["split"]) == (8, [24, 40], 2, [4, 4])
    dotted = ("--preset", "nano", "--data.path", tokens, "--model.kind", "rand_ar")
    values = _printed(mergevq_main, "generator", *dotted)
    assert (values["model"]["classes"], values["optimizer"]["betas"]) == (2, [0.9, 0.95])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tokenizer", "{tok}", "--data", "{tokens}"), "--preset is missing"),
        (("--preset", "nano", "--data", "{tokens}"), "--tokenizer is missing"),
        (("--preset", "nano", "--tokenizer", "{tok}"), "--data is missing"),
        (("{all}",), "--out is missing"),
        (("{all}", "--preset", "nanno"), "unknown generator size 'nanno'; did you mean 'nano'?"),
        (("{all}", "--kind", "raste"), "invalid choice: 'raste'"),
        (("{all}", "--model.kind", "raste"), "unknown generator kind 'raste'; did you mean 'raster'?"),
        (("{all}", "--train.stpes", 3), "did you mean 'train.steps'?"),
        (("{all}", "--data", "nowhere"), "nowhere holds no tokens"),
        (("{all}", "--loss.label_smoothing", 1), "loss.label_smoothing is 1"),
        (("{all}", "--out", "{out}", "--model.classes", 5), "model.classes is 5 and the tokens have 2"),
    ],
)
def test_a_wrong_request(mergevq_main, tiny, tokens, tmp_path, arguments, said):
    known = {"{tok}": [tiny], "{tokens}": [tokens], "{out}": [tmp_path / "run"]}
    known["{all}"] = ["--preset", "nano", "--tokenizer", tiny, "--data", tokens]
    words = [word for argument in arguments for word in known.get(argument, [argument])]
    result = mergevq_main("train", "generator", *words)
    assert result.code == 2 and said in result.error and not (tmp_path / "run").exists()


def test_a_tokenizer_that_is_not_there(mergevq_main, tokens, tmp_path):
    words = ("--preset", "nano", "--tokenizer", tmp_path / "no", "--data", tokens)
    result = mergevq_main("train", "generator", *words, "--out", tmp_path / "run")
    assert result.code == 1 and "there is no checkpoint at" in result.error


def test_a_generator_then_its_source_recovery(mergevq_main, tiny, tokens, tmp_path):
    """Each is a checkpoint, a second command does nothing, and pictures serve in place of tokens."""
    out = tmp_path / "gen"
    words = ("--preset", "nano", "--kind", "rand_ar", "--tokenizer", tiny, "--data", tokens, "--out", out)
    result = mergevq_main("train", "generator", *words, *SMALL)
    assert (result.code, result.out) == (0, f"{out}\n"), result.err
    line = f"data {tokens}: 11 training and 1 validation pictures (2% held out), 2 classes (face, thing)"
    assert result.err.startswith(f"{line}; 2 views of each, as tokens\n") and result.err.count("data ") == 1
    assert mergevq.load(out).kind == "rand_ar"
    again = mergevq_main("train", "generator", "--config", out / "run.yaml", "--out", out, "--device", "cpu")
    assert again.code == 0 and "done already" in again.err
    for word in ("GPU available", "does not have many workers", "Traceback", "srun"):
        assert word not in result.err

    common = ("--checkpoint", tiny, "--train.steps", 2, "--train.batch_size", 8, "--device", "cpu")
    for name, data, more in (
        ("one", tokens, ("--generator", out)),
        ("two", tokens.parent / "images", ()),
    ):
        run = tmp_path / name
        result = mergevq_main("train", "recovery", *common, "--data", data, *more, "--out", run)
        assert result.code == 0, result.err
        lines = result.out.splitlines()
        assert re.fullmatch(r"source recovery from true codes: [\d.]+% .* before, [\d.]+% after", lines[0])
        assert lines[1].startswith("source recovery from corrupted codes: ") and lines[2] == str(run)
        assert fingerprint(mergevq.load(run)) == fingerprint(mergevq.load(tiny))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "{tokens}"), "--checkpoint is missing"),
        (("--checkpoint", "{tok}"), "--data is missing"),
        (("--checkpoint", "{tok}", "--data", "{tokens}"), "--out is missing"),
        (("--checkpoint", "{tok}", "--data", "nowhere", "--out", "{out}"), "nowhere does not exist"),
        (("--checkpoint", "{tok}", "--data", "{tokens}", "--corruption.share", 2), "corruption.share is 2"),
    ],
)
def test_a_wrong_recovery_request(mergevq_main, tiny, tokens, tmp_path, arguments, said):
    known = {"{tok}": tiny, "{tokens}": tokens, "{out}": tmp_path / "run"}
    result = mergevq_main("train", "recovery", *(known.get(word, word) for word in arguments))
    assert result.code == 2 and said in result.error and not (tmp_path / "run").exists()


def test_recovery_prints_its_settings(mergevq_main):
    values = _printed(mergevq_main, "recovery")
    assert values["optimizer"]["rate"] == 1e-4 and values["corruption"] == {"share": 0.3, "generator": None}
