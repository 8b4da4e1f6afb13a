"""What a tokenizer takes, what it refuses in one sentence, and when it looks at values."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._subclasses import FakeTensorMode

import mergevq
from mergevq.errors import UsageError
from mergevq.models.tokenizer.inputs import TensorChecks
from mergevq.models.tokenizer.lfq import entropies
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import Tokens

THIN = {
    f"{part}.{key}": value
    for part in ("encoder", "decoder")
    for key, value in {"channels": 8, "width": 32, "heads": 1, "depth": 2}.items()
} | {"recovery.width": 32, "recovery.heads": 1, "recovery.depth": 1, "quantizer.bits": 10}
HALVES = (torch.float16, torch.bfloat16)


@pytest.fixture(scope="module")
def thin() -> Tokenizer:
    torch.manual_seed(0)
    return mergevq.create("tiny-32", **THIN).eval().requires_grad_(False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


CODES, SOURCE = torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 64, dtype=torch.int64)


def tokens_of(codes=CODES, source=SOURCE, grid=(8, 8)) -> Tokens:
    return Tokens(codes, source, torch.ones_like(codes), grid)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda it, images: it.encode(images * 127.5),
            r"values from -127\.\d to 127\.\d; .* lie in \[-1, 1\]",
        ),
        (lambda it, images: it.encode(images / 0), "images hold values from -inf to inf"),
        (lambda it, images: it.encode(images.to(torch.uint8)), r"images are uint8; .* value / 127\.5 - 1"),
        (lambda it, images: it.encode(images.numpy()), "of type ndarray; a PyTorch tensor is wanted"),
        (lambda it, images: it.encode(images.to("meta")), "on meta and the tokenizer on cpu; move one"),
        (lambda it, images: it.encode(images[:0]), "with at least one image"),
        (lambda it, images: it.encode(images, 3.5), r"keep is 3\.5; an integer is wanted"),
        (lambda it, _: it.decode(CODES + 2**10), r"indices hold 1024; they must lie in \[0, 1024\)"),
        (lambda it, _: it.decode(CODES - 1), "indices hold -1"),
        (lambda it, _: it.decode(CODES + 0.5), "indices are float32; integers are wanted"),
        (lambda it, _: it.decode(CODES[:0]), "with at least one row"),
        (lambda it, _: it.decode(CODES.to("meta")), "indices are on meta"),
        (lambda it, _: it.decode(CODES, 8), r"grid is 8; a pair \(h, w\)"),
        (lambda it, _: it.decode(CODES, (8, 0)), r"grid is \(8, 0\); a pair"),
        (lambda it, _: it.decode(tokens_of(), (4, 4)), r"grid is \(4, 4\), .* on one of 8 x 8; leave it out"),
        (lambda it, _: it.decode(tokens_of().arrays()), "type TokenArrays; Tokens or a PyTorch tensor"),
        (lambda it, _: it.decode(tokens_of()[:0]), "with at least one row"),
        (lambda it, _: it.decode(tokens_of(codes=CODES + 2**10)), "indices hold 1024"),
        (lambda it, _: it.decode(tokens_of(source=SOURCE + 4)), r"source hold 4; .* \[0, 4\)"),
        (lambda it, _: it.decode(tokens_of(source=SOURCE - 1)), "source hold -1"),
        (lambda it, _: it.decode(tokens_of(source=SOURCE * 1.0)), "source are float32"),
        (lambda it, _: it.recover_source(CODES, starts=CODES), "starts do not ascend from 0"),
        (lambda it, _: it.recover_source(CODES, starts=CODES[:1]), r"shape of starts is \(1, 4\)"),
        (lambda it, _: it.recover_source(CODES, starts=CODES + 64), "starts hold 64"),
    ],
)
def test_what_it_cannot_take_is_one_sentence(thin, images, call, said):
    with pytest.raises(UsageError, match=said) as caught:
        call(thin, images)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8, torch.uint16])
def test_indices_of_any_integer_type_are_taken(thin, dtype):
    codes = torch.arange(8).view(2, 4)
    tokens, narrow = tokens_of(codes), tokens_of(codes.to(dtype), SOURCE.to(dtype))
    assert torch.equal(thin.decode(narrow), thin.decode(tokens))
    assert torch.equal(thin.decode(narrow.indices), thin.decode(codes))


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
@pytest.mark.parametrize("keep", [64, 32])
def test_models_and_images_of_other_types_give_nearly_the_same(thin, images, dtype, keep):
    """Merging is a choice: where two pairs are nearly as alike, rounding decides, and what follows differs."""
    wanted = thin.encode(images, keep)
    model = copy.deepcopy(thin).to(dtype)
    assert model.dtype == dtype
    found = model.encode(images.to(dtype), keep)
    mixed = model.encode(images, keep)
    assert found.indices.dtype == mixed.source.dtype == torch.int64
    same = model.quantizer.codes(found.indices) == thin.quantizer.codes(wanted.indices)
    assert same.float().mean() > (0.99 if keep == 64 else 0.9)
    painted = model.decode(wanted)
    assert painted.dtype == torch.float32
    torch.testing.assert_close(painted, thin.decode(wanted), rtol=0, atol=0.05)
    assert model.decode(wanted.indices).isfinite().all()
    into = thin.encode(images.to(dtype), keep)  # a float32 model, and images of another type
    assert (into.source == wanted.source).float().mean() > 0.9


def test_a_float64_default_type_changes_nothing(thin, images):
    wanted = thin.encode(images), thin.decode(CODES)
    torch.set_default_dtype(torch.float64)
    try:
        tokens, painted = thin.encode(images), thin.decode(CODES)
        made = mergevq.create("tiny-32", **THIN).eval()
        assert made.dtype == torch.float64
        assert made.decode(made.encode(images)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(tokens.indices, wanted[0].indices) and torch.equal(painted, wanted[1])


@pytest.mark.parametrize("dtype", HALVES)
def test_entropies_are_float32_whatever_comes_in(dtype):
    z = torch.linspace(-1, 1, 60).view(10, 6).to(dtype)
    found, wanted = entropies(z, 0.1), entropies(z.float(), 0.1)
    assert all(each.dtype == torch.float32 for each in found)
    assert torch.equal(torch.stack(found), torch.stack(wanted))


def test_values_are_looked_at_on_request_and_where_they_are(thin, images, monkeypatch):
    looked = []
    bounds = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda values: looked.append(values.shape) or bounds(values))
    thin.encode(images)
    assert looked == [images.shape]
    for wanted in (False, True):
        monkeypatch.setattr(thin, "check_values", wanted, raising=False)
        looked.clear()
        thin.encode(images * (1 if wanted else 3))
        assert bool(looked) is wanted
    looked.clear()
    thin(images, 32)  # a training pass
    checks = TensorChecks(thin.config, thin.device, values=True)
    torch.compile(checks.images, fullgraph=True, backend="eager")(images * 3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert thin.encode(torch.empty(2, 3, 32, 32)).indices.shape == (2, 32)
    assert looked == []


def test_pixels_that_are_learned_are_taken(thin, images):
    assert torch.equal(thin.encode(torch.nn.Parameter(images)).indices, thin.encode(images).indices)
