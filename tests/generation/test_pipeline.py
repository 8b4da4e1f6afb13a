"""Classes in, images out: seeds, mixed batches, no state left behind, and requests that cannot be met."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

import mergevq
from mergevq.errors import CheckpointError, UsageError
from mergevq.generation.pipeline import ImageGenerator
from mergevq.generation.store import load_generator
from mergevq.generator_config import GeneratorKind, generator_config, generator_sizes
from mergevq.models import store
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.presets import preset

KINDS: tuple[GeneratorKind, ...] = ("raster", "merge_ar", "rand_ar")
COUNTS = (4, 6, 9)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    small = {"width": 64, "heads": 1, "depth": 2}
    return mergevq.create(
        "tiny-32",
        image_size=16,
        encoder=small,
        decoder=small,
        **{"merge.keep": 9, "recovery.width": 64, "recovery.heads": 1},
    ).eval()


def make(kind: GeneratorKind, tokenizer: Tokenizer) -> ImageGenerator:
    """A generator whose logits are far from flat; rand_ar remembers two layouts a class."""
    torch.manual_seed(1)
    made = mergevq.create_generator("nano", kind=kind, tokenizer=tokenizer, classes=3, counts=COUNTS, depth=2)
    for output in made.model.head.outputs:
        torch.nn.init.normal_(output.weight, std=0.2)
    if kind == "rand_ar":
        made.model.remember_layouts(*bank())
    return made


def bank() -> tuple[torch.Tensor, torch.Tensor]:
    """Classes 0 and 1 have sets of 4 and 6 positions, nobody one of 9."""
    sets = torch.zeros(4, 16, dtype=torch.bool)
    for row, count in enumerate((4, 6, 4, 6)):
        sets[row, [0, *range(3 + row, 2 + row + count)]] = True
    return sets, torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_image_whatever_the_batch(kind: GeneratorKind, tokenizer: Tokenizer) -> None:
    generator = make(kind, tokenizer)
    together = generator.generate([0, 1, 1], seed=[3, 8, 5], guidance=1.5)
    alone = generator.generate(torch.tensor([1]), seed=8, guidance=1.5)
    assert together.shape == (3, 3, 16, 16)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)
    assert not torch.equal(together[1], together[2])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_behind(kind: GeneratorKind, tokenizer: Tokenizer) -> None:
    generator = make(kind, tokenizer)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    seen = {id(module): set(vars(module)) for module in generator.modules()}
    rng = torch.get_rng_state()
    first = generator.generate([0, 1], seed=1)
    assert torch.equal(first, generator.generate([0, 1], seed=1))
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())
    assert all(seen[id(module)] == set(vars(module)) for module in generator.modules())


def test_guidance_of_one_is_one_pass(tokenizer: Tokenizer) -> None:
    generator = make("merge_ar", tokenizer)
    rows = []
    generator.model.transformer.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    generator.generate([0, 1])
    assert set(rows) == {2}
    rows.clear()
    generator.generate([0, 1], guidance=2.0)
    assert set(rows) == {4}


def test_each_row_of_merge_ar_may_be_told_another_count(tokenizer: Tokenizer) -> None:
    generator = make("merge_ar", tokenizer)
    mixed = generator.generate([0, 0], seed=[7, 7], keep=[4, 9])
    torch.testing.assert_close(mixed[1:], generator.generate([0], seed=7, keep=9), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mixed[0], mixed[1], atol=1e-4)


def test_rand_ar_draws_counts_from_its_class(tokenizer: Tokenizer) -> None:
    generator = make("rand_ar", tokenizer)
    parts = list(generator.generate_tokens(generator.request([0, 1, 0, 1, 0, 1, 0, 1])))
    assert {part.tokens.keep for part in parts} == {4, 6}
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(8))
    sets, labels = bank()
    for part in parts:
        for row, source in zip(part.rows.tolist(), part.tokens.source, strict=True):
            begins = [int((source == token).int().argmax()) for token in range(part.tokens.keep)]
            known = [positions.nonzero().flatten().tolist() for positions in sets[labels == row % 2]]
            assert begins in known


def test_rand_ar_takes_fewer_steps_on_request(tokenizer: Tokenizer) -> None:
    generator = make("rand_ar", tokenizer)
    part = next(iter(generator.generate_tokens(generator.request([0], keep=6), steps=2)))
    assert part.cache.passes == 2 and part.tokens.indices.shape == (1, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_float32_under_autocast_and_in_bf16(kind: GeneratorKind, tokenizer: Tokenizer) -> None:
    generator = make(kind, tokenizer)
    kept = {}
    generator.model.head.norm.register_forward_pre_hook(
        lambda module, given: kept.update(dtype=given[0].dtype)
    )
    with torch.autocast("cpu", torch.bfloat16):
        generator.generate([0])
    assert kept["dtype"] == torch.float32
    kept.clear()
    generator.model.to(torch.bfloat16)
    assert generator.generate([0]).isfinite().all()
    assert kept["dtype"] == torch.float32


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"labels": [3]}, "there is no class 3; the generator knows 0 to 2"),
        ({"labels": [-1]}, "there is no class -1"),
        ({"labels": []}, "at least one class"),
        ({"labels": [0], "keep": 5}, "never trained with 5 kept tokens; the nearest count is 4"),
        ({"labels": [0], "keep": [4, 4]}, "2.* kept counts for 1 labels"),
        ({"labels": [0], "steps": 3}, "only rand_ar decodes several"),
        ({"labels": [0], "seed": [1, 2]}, "2 seeds for 1 labels"),
        ({"labels": torch.tensor([0.5])}, r"labels hold 0\.5; integers are wanted"),
        ({"labels": [0], "questions": "causal"}, "only rand_ar asks any, merge_ar decodes token by token"),
        ({"labels": [0], "questions": "casual"}, "did you mean 'causal'"),
        ({"labels": [0], "steps": 0}, "only rand_ar decodes several"),
    ],
)
def test_what_merge_ar_cannot_do(request_: dict, message: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match=message):
        make("merge_ar", tokenizer).generate(**request_)


def test_rand_ar_cannot_be_compiled(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="each of its passes has another shape"):
        make("rand_ar", tokenizer).compile()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"keep": 9}, "no training image with so many"),
        ({"keep": 4, "steps": 5}, "4 tokens cannot be decoded in 5 steps"),
        ({"keep": 4, "steps": 0}, "4 tokens cannot be decoded in 0 steps"),
    ],
)
def test_what_rand_ar_cannot_do(request_: dict, message: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match=message):
        make("rand_ar", tokenizer).generate([0], **request_)


@pytest.mark.parametrize("kind", KINDS)
def test_a_float64_default_type_changes_nothing(kind: GeneratorKind, tokenizer: Tokenizer) -> None:
    generator = make(kind, tokenizer)
    wanted = generator.generate([0, 1], seed=4)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(generator.generate([0, 1], seed=4), wanted)
        made = make(kind, tokenizer)
        assert made.model.dtype == torch.float64 and made.generate([0]).isfinite().all()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_generators_work_in_half_precision_and_are_saved_in_it(
    kind: GeneratorKind, dtype: torch.dtype, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    generator = copy.deepcopy(make(kind, tokenizer)).to(dtype)
    images = generator.generate([0, 1], seed=4, guidance=1.5)
    assert images.dtype == torch.float32 and images.isfinite().all() and images.shape == (2, 3, 16, 16)
    mergevq.save(generator, tmp_path)
    loaded = mergevq.load(tmp_path)
    assert (
        isinstance(loaded, ImageGenerator) and loaded.model.dtype == loaded.tokenizer.dtype == torch.float32
    )
    for saved, read in zip(generator.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(saved.float(), read)
    assert torch.equal(loaded.to(dtype).generate([0, 1], seed=4, guidance=1.5), images)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_generator_makes_the_same_images(
    kind: GeneratorKind, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    generator = make(kind, tokenizer)
    mergevq.save(generator, tmp_path / "gen")
    loaded = mergevq.load(tmp_path / "gen")
    assert isinstance(loaded, ImageGenerator) and not loaded.training
    assert torch.equal(loaded.generate([0, 1], seed=4), generator.generate([0, 1], seed=4))
    assert isinstance(mergevq.load(tmp_path / "gen" / "tokenizer"), Tokenizer)


def test_another_tokenizer_in_the_folder_is_found_out(tokenizer: Tokenizer, tmp_path: Path) -> None:
    mergevq.save(make("raster", tokenizer), tmp_path)
    torch.manual_seed(9)
    mergevq.save(Tokenizer(tokenizer.config), tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match="is not the tokenizer that this generator was trained with"):
        load_generator(tmp_path)


def test_a_generator_that_is_replaced_while_it_is_read(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its tokenizer, after its own weights were read."""
    other = Tokenizer(tokenizer.config)
    mergevq.save(make("raster", tokenizer), tmp_path)
    load = store.load

    def replaced(where: Path) -> Tokenizer:
        monkeypatch.setattr(store, "load", load)
        mergevq.save(make("raster", other), tmp_path)
        return load(where)

    monkeypatch.setattr(store, "load", replaced)
    assert store.fingerprint(mergevq.load(tmp_path).tokenizer) == store.fingerprint(other)


def test_damaged_generators(tokenizer: Tokenizer, tmp_path: Path) -> None:
    mergevq.save(make("raster", tokenizer), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match="truncated"):
        mergevq.load(tmp_path)
    weights.write_bytes(whole)
    described = json.loads((tmp_path / "config.json").read_text())
    described["config"]["widht"] = 3
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="width"):
        mergevq.load(tmp_path)


def test_generators_refuse_a_tokenizer_of_other_codes(tokenizer: Tokenizer) -> None:
    model = Generator(generator_config("nano", "raster", tokenizer.config, split=(5, 5)))
    with pytest.raises(UsageError, match="10 bits"):
        ImageGenerator(model, tokenizer)


@pytest.mark.parametrize(
    ("size", "vocabulary", "millions"),
    [("B", (14,), 110.9), ("L", (14,), 342.9), ("XL", (14,), 774.7), ("L", (9, 9), 343.0)],
)
def test_sizes_are_those_of_the_papers(size: str, vocabulary: tuple[int, ...], millions: float) -> None:
    """LlamaGen's at 16384 codes to the last digit published; 343M within 2 % with the factorised 2^18."""
    bits = sum(vocabulary)
    tokenizer_config = preset("G+R")
    with torch.device("meta"):
        model = Generator(generator_config(size, "raster", tokenizer_config, split=vocabulary))
    found = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert model.config.bits == bits
    assert found == pytest.approx(millions, rel=0.02 if len(vocabulary) > 1 else 1e-3)


@pytest.mark.parametrize("size", generator_sizes())
def test_every_size_exists(size: str) -> None:
    with torch.device("meta"):
        model = Generator(generator_config(size, "merge_ar", preset("tiny-32"), classes=10))
    assert model.config.name == size
