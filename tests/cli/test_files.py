"""Whatever is given where a file or a folder is wanted, the answer is one sentence that names it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from PIL import Image

from mergevq.cli import build_parser
from mergevq.cli.shared import common

CPU = ("--device", "cpu")
DIGITS = ("--data", "builtin:digits", "--workers", 0)
TRAIN = ("train", "tokenizer", "--preset", "tiny-32", "--data", "builtin:digits", "--out", "run", *CPU)
ASKED = {
    "encode --checkpoint": ("encode", "--checkpoint", "{}", "a.png", "--out", "o.npz", *CPU),
    "encode --runtime": ("encode", "--checkpoint", "{}", "--runtime", "onnx", "a.png", "--out", "o.npz"),
    "decode": ("decode", "--checkpoint", "{tiny}", "{}", "--out", "o", *CPU),
    "generate": ("generate", "--checkpoint", "{}", "--out", "o", *CPU),
    "tokens": ("tokens", "--checkpoint", "{}", *DIGITS, "--out", "o", *CPU),
    "train --config": (*TRAIN, "--config", "{}"),
    "train --init": (*TRAIN, "--init", "{}"),
    "train generator": ("train", "generator", "--preset", "nano", "--tokenizer", "{tiny}", "--data", "{}",
                        "--out", "o"),
    "train recovery": ("train", "recovery", "--checkpoint", "{}", "--data", "folder", "--out", "o", *CPU),
    "evaluate --lpips": ("evaluate", "reconstruction", "--checkpoint", "{tiny}", *DIGITS, "--lpips", "alex={}", *CPU),
    "evaluate --features": ("evaluate", "reconstruction", "--checkpoint", "{tiny}", *DIGITS, "--features",
                            "timm:test_vit={}", *CPU),
    "evaluate --network": ("evaluate", "generation", "--images", "pictures", "--reference", "pictures", "--network",
                           "{}", "--workers", 0, *CPU),
    "export inspect": ("export", "inspect", "{}"),
    "export verify": ("export", "verify", "{}", "--checkpoint", "{tiny}"),
    "export engine": ("export", "engine", "{}"),
    "bench --results": ("bench", "--results", "{}"),
}  # fmt: skip
GIVEN = (
    "nothing",
    "folder",
    "empty",
    "text",
    "page",
    "pointer",
    "module.pt",
    "values.json",
    "~nobody-like-this/x",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one of each kind."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "pictures/a.png", "pictures/b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    for name, text in {
        "empty": "",
        "text": "hello\n",
        "page": "<!DOCTYPE html><html></html>",
        "pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "values.json": '{"a": [1]}',
    }.items():
        (tmp_path / name).write_text(text)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    return tmp_path


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("asked", ASKED)
def test_what_is_given_for_a_file_is_answered_in_a_sentence(mergevq_main, tiny, place, asked, given):
    before = sorted(place.iterdir())
    words = [str(word).replace("{tiny}", str(tiny)).replace("{}", given) for word in ASKED[asked]]
    result = mergevq_main(*words)
    assert given.partition("/")[0] in result.error or "unknown key" in result.error  # which name it is about
    assert "unexpected" not in result.error and "weights_only" not in result.err
    assert sorted(place.iterdir()) == before


def test_every_option_that_is_a_path_knows_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = [
        option
        for option in _options(build_parser())
        if option.type in (Path, common.path, common.picture_path)
    ]
    assert len(paths) > 20
    for option in paths:
        assert option.type("~/a.png") == tmp_path / "a.png", option.option_strings
        with pytest.raises(argparse.ArgumentTypeError, match="no such home folder"):
            option.type("~nobody-like-this/a.png")


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [option for child in action.choices.values() for option in _options(child)]
        else:
            found.append(action)
    return found


def test_commands_write_and_read_below_the_home_folder(mergevq_main, tiny, place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    (place / "tok").symlink_to(tiny)
    assert mergevq_main("encode", "--checkpoint", "~/tok", "~/a.png", "--out=~/t.npz", *CPU).code == 0
    assert mergevq_main("decode", "--checkpoint=~/tok", "~/t.npz", "--out=~/decoded", *CPU).code == 0
    assert mergevq_main("reconstruct", "--checkpoint=~/tok", "~/pictures", "--out=~/grid.png", *CPU).code == 0
    assert (
        (place / "t.npz").is_file()
        and (place / "decoded" / "a.png").is_file()
        and (place / "grid.png").is_file()
    )
    assert not (place / "~").exists()
