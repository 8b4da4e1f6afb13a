"""Exported generators at work: the tokens and pictures that the model gives for the same seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import mergevq
from mergevq.errors import UnusableExportError, UsageError
from mergevq.export.generator.layout_file import LAYOUTS
from mergevq.export.runtime.generator.generator import ArrayGenerator
from mergevq.generation.sampling import Sampling


@pytest.fixture(scope="module")
def pair(exported_generator):
    """The model, and what runs its graphs."""
    generator, folder = exported_generator
    runtime = mergevq.load(folder, runtime="onnx", threads=1)
    assert isinstance(runtime, ArrayGenerator) and runtime.kind == generator.kind
    return generator, runtime


def tokens_by_row(generator, labels, steps=None, **settings):
    """The tokens of each image, and of which kind the arrays are does not matter."""
    parts = list(generator.generate_tokens(generator.request(labels, **settings), steps))
    found = {}
    for part in parts:
        for place, row in enumerate(np.asarray(part.rows).tolist()):
            tokens = part.tokens
            found[row] = [np.asarray(each)[place] for each in (tokens.indices, tokens.source, tokens.sizes)]
    return [found[row] for row in range(len(labels))]


def same(first, second):
    return all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


GREEDY = Sampling(temperature=0)


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_greedy_tokens_are_the_models(pair, guidance):
    settings = {"seed": 3, "sampling": GREEDY, "guidance": guidance}
    wanted, found = (tokens_by_row(each, [0, 4, 2], **settings) for each in pair)
    assert all(map(same, found, wanted))


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7, top_k=5), Sampling(top_p=0.8), Sampling(top_k=9, top_p=0.9)],
    ids=str,
)
def test_seeds_give_the_models_tokens(pair, sampling):
    """Rounding may carry one draw in thousands across the border between two codes."""
    settings = {"seed": [11, 5, 2**70 + 1, 9], "sampling": sampling, "guidance": 1.5}
    wanted, found = (tokens_by_row(each, [0, 4, 2, 0], **settings) for each in pair)
    assert sum(map(same, found, wanted)) >= 3


def test_pictures_are_the_models(pair):
    generator, runtime = pair
    wanted = generator.generate([1, 3], seed=7, temperature=0).numpy()
    found = runtime.generate(np.array([1, 3]), seed=7, temperature=0)
    assert found.dtype == np.float32 and np.abs(found - wanted).max() < 1e-4


def test_a_seed_decides_whatever_else_is_in_the_batch(pair):
    _, runtime = pair
    several = tokens_by_row(runtime, [0, 4, 2], seed=[5, 6, 7], guidance=2.0)
    alone = tokens_by_row(runtime, [4], seed=6, guidance=2.0)
    assert same(several[1], alone[0])


def test_counts_and_steps(pair):
    for keep in (20, [20, 22, 20]):
        wanted, found = (tokens_by_row(each, [0, 1, 2], sampling=GREEDY, keep=keep) for each in pair)
        assert all(map(same, found, wanted))
    if pair[1].kind == "rand_ar":
        for steps in (1, 3, 19):
            for questions in ("independent", "causal"):
                asked = {"sampling": GREEDY, "questions": questions}
                wanted, found = (tokens_by_row(each, [0, 1], steps, **asked) for each in pair)
                assert all(map(same, found, wanted))


def test_duplicates_leave_the_cache_of_merge_ar(pair):
    """Few codes are likely: slots follow the number of different tokens, not that of all."""
    _, runtime = pair
    (part,) = runtime.generate_tokens(runtime.request([0], sampling=GREEDY, keep=20))
    distinct, use = len(np.unique(part.tokens.indices)), part.cache
    assert use.bytes == use.slots * 2 * 2 * 128 * 4  # keys and values of two layers of width 128
    if runtime.kind == "merge_ar":
        assert distinct < 30 and use.slots <= 2 + distinct + 4 + 32
    else:
        assert use.slots >= (2 * 20 if runtime.kind == "rand_ar" else 64) and use.passes in (20, 64)


def test_progress_is_told(pair):
    calls = []
    pair[1].generate([0], seed=1, keep=20, progress=lambda *numbers: calls.append(numbers))
    assert calls == [(done + 1, len(calls)) for done in range(len(calls))]
    assert len(calls) == (20 if pair[1].kind == "rand_ar" else 64)


def test_impossible_requests_are_the_models_sentences(pair):
    kind = pair[1].kind
    asked = [
        {"labels": []},
        {"labels": [5]},
        {"labels": [-1]},
        {"labels": [0.5]},
        {"labels": np.array([1.0])},
        {"labels": [True]},
        {"labels": ["cat"]},
        {"labels": [[0]]},
        {"labels": 3},
        {"labels": [float("nan")]},
        {"labels": [0], "seed": 0.5},
        {"labels": [0], "seed": ["a"]},
        {"labels": [0], "keep": 20.5},
        {"labels": [0], "keep": [[20]]},
        {"labels": [0], "steps": 1.5},
        {"labels": [0], "top_k": 2.5},
        {"labels": [0], "temperature": "warm"},
        {"labels": [0], "temperature": float("inf")},
        {"labels": [0], "top_p": float("nan")},
        {"labels": [0], "guidance": "strong"},
        {"labels": [0], "seed": [1, 2]},
        {"labels": [0], "guidance": -1.0},
        {"labels": [0], "temperature": -1.0},
        {"labels": [0], "top_p": 0.0},
        {"labels": [0], "guidance_schedule": "cosine"},
        {"labels": [0], "keep": [20, 20]},
    ]
    asked += [{"labels": [0], "steps": 99}, {"labels": [0], "questions": "casual"}]
    asked += [{"labels": [0], "keep": 21}] if kind != "raster" else []
    for settings in asked:
        said = []
        for each in pair:
            with pytest.raises(UsageError) as caught:
                each.generate(**settings)
            said.append(str(caught.value))
        assert said[0] == said[1], settings


def test_a_count_without_layouts(pair):
    generator, _ = pair
    if generator.kind == "rand_ar":
        for each in pair:
            with pytest.raises(UsageError, match="remembers no training image with so many kept tokens"):
                each.generate([0], keep=32)


def test_a_generator_has_no_encoder(pair):
    with pytest.raises(UsageError, match="a generator, which has no encoder"):
        pair[1].tokenizer.encode(np.zeros((1, 3, 32, 32), dtype=np.float32))
    codes = torch.randint(0, 2**8, (2, 20))
    with torch.no_grad():
        wanted = pair[0].tokenizer.decode(codes).numpy()
    assert np.abs(pair[1].tokenizer.decode(codes.numpy()) - wanted).max() < 1e-5


def test_layouts_of_another_file_are_refused(exported_generator, tmp_path):
    generator, folder = exported_generator
    if generator.kind == "rand_ar":
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / LAYOUTS).write_bytes((folder / LAYOUTS).read_bytes()[:-3])
        with pytest.raises(UnusableExportError, match=LAYOUTS):
            mergevq.load(tmp_path, runtime="onnx")
