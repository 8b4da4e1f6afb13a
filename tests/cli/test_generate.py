"""generate: the same picture whatever else is asked for, written as it is done, and requests refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import mergevq


@pytest.fixture(scope="session")
def nano(tiny, tmp_path_factory):
    """A merge_ar generator with random weights over the tiny tokenizer; not to be changed."""
    folder = tmp_path_factory.mktemp("nano") / "gen"
    torch.manual_seed(0)
    generator = mergevq.create_generator(
        "nano", kind="merge_ar", tokenizer=mergevq.load(tiny), classes=3, counts=(16, 32), depth=1
    )
    for output in generator.model.head.outputs:
        torch.nn.init.normal_(output.weight, std=0.2)
    mergevq.save(generator, folder)
    return folder


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


def test_as_a_user_runs_it(mergevq_process, nano, tmp_path):
    out, grid = tmp_path / "samples", tmp_path / "grid.png"
    result = mergevq_process(
        "generate", "--checkpoint", nano, "--classes", "2,0", "--number", 2, "--out", out, "--grid", grid,
        "--guidance", 1.5, "--top-k", 10, "--keep", 16, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert json.loads(result.out)["pictures"] == 4
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert found == ["0/0000.png", "0/0001.png", "2/0000.png", "2/0001.png"]
    assert pixels(out / "2" / "0001.png").shape == (32, 32, 3) and grid.exists()


def test_a_picture_does_not_depend_on_the_others(mergevq_main, nano, tmp_path):
    arguments = ("generate", "--checkpoint", nano, "--seed", 5)
    assert mergevq_main(*arguments, "--number", 3, "--out", tmp_path / "all", "--batch-size", 4).code == 0
    assert mergevq_main(*arguments, "--classes", 1, "--number", 2, "--out", tmp_path / "one").code == 0
    for name in ("1/0000.png", "1/0001.png"):
        assert np.abs(pixels(tmp_path / "all" / name) - pixels(tmp_path / "one" / name)).max() <= 1
    assert np.abs(pixels(tmp_path / "one/1/0000.png") - pixels(tmp_path / "one/1/0001.png")).max() > 10


def test_the_seed_and_the_class_decide_a_picture(mergevq_main, nano, tmp_path):
    pictures = set()
    for seed in (0, 1):
        out = tmp_path / str(seed)
        arguments = ("--classes", "0,2", "--number", 1, "--seed", seed, "--out", out)
        assert mergevq_main("generate", "--checkpoint", nano, *arguments).code == 0
        pictures |= {path.read_bytes() for path in out.rglob("*.png")}
    assert len(pictures) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--classes", "3"), 2, "there is no class 3; the generator knows 0 to 2"),
        (("--keep", "20"), 2, "never trained with 20 kept tokens; the nearest count is 16"),
        (("--steps", "4"), 2, "only rand_ar decodes several tokens a step"),
        (("--questions", "causal"), 2, "only rand_ar asks any"),
        (("--questions", "casual"), 2, "causal"),
        (("--temperature", "-1"), 2, "temperature is -1.0"),
        (("--top-p", "0"), 2, "top_p is 0.0"),
        (("--guidance", "nan"), 2, "guidance is nan"),
        (("--device", "tpu"), 2, "tpu"),
    ],
)
def test_requests_that_cannot_be_met(mergevq_main, nano, tmp_path, arguments, code, said):
    result = mergevq_main("generate", "--checkpoint", nano, "--out", tmp_path / "samples", *arguments)
    assert result.code == code and said in result.error


def test_what_is_no_generator(mergevq_main, tiny, tmp_path):
    result = mergevq_main("generate", "--checkpoint", tiny, "--out", tmp_path / "samples")
    assert result.code == 1 and "does not describe a mergevq generator" in result.error
    result = mergevq_main("generate", "--checkpoint", tmp_path / "absent", "--out", tmp_path / "samples")
    assert result.code == 1 and "there is no checkpoint at" in result.error
