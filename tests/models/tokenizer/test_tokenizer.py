from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

import mergevq
from mergevq.errors import UsageError
from mergevq.models.tokenizer.source_map import most_likely_source
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import Tokens

SMALL = {
    "encoder.depth": 3,
    "encoder.channels": 24,
    "encoder.width": 32,
    "encoder.heads": 2,
    "decoder.depth": 1,
    "decoder.channels": 24,
    "decoder.width": 32,
    "decoder.heads": 2,
    "recovery.width": 32,
    "recovery.heads": 2,
    "recovery.depth": 1,
    "quantizer.bits": 10,
}


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    torch.manual_seed(0)
    return mergevq.create("tiny-32", **SMALL).eval().requires_grad_(False)


def images_of(batch=2, height=32, width=32, seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, height, width, generator=generator) * 2 - 1


@given(st.integers(1, 3), st.integers(1, 10), st.integers(1, 10), st.data())
@settings(deadline=None, max_examples=25)
def test_any_size_batch_and_reachable_count(small, batch, rows, columns, data):
    length = rows * columns
    keep = data.draw(st.integers(-(-length // 8), length))
    tokens = small.encode(images_of(batch, 4 * rows, 4 * columns), keep)
    assert tokens.indices.shape == tokens.sizes.shape == (batch, keep) and tokens.grid == (rows, columns)
    assert (tokens.indices >= 0).all() and (tokens.indices < 2**10).all()
    assert torch.equal(tokens.sizes.sum(dim=1), torch.full((batch,), length))
    for row in range(batch):
        assert torch.equal(torch.bincount(tokens.source[row], minlength=keep), tokens.sizes[row])
        seen = torch.cat([torch.tensor([-1]), tokens.source[row].cummax(dim=0).values])
        assert (seen.diff() <= 1).all()
    painted = small.decode(tokens)
    assert painted.shape == (batch, 3, 4 * rows, 4 * columns)
    assert painted.min() >= -1 and painted.max() <= 1
    recovered = small.decode(tokens.indices, (rows, columns))
    assert recovered.shape == painted.shape


def test_the_full_tiny_preset_works_at_its_default():
    tokenizer = mergevq.create("tiny-32").eval()
    tokens = tokenizer.encode(images_of())
    assert tokens.keep == tokenizer.config.merge.keep
    assert tokenizer.decode(tokens).shape == tokenizer.decode(tokens.indices).shape == (2, 3, 32, 32)
    assert tokenizer.device.type == "cpu"


@pytest.mark.parametrize("name", ["G", "R"])
def test_the_papers_presets_run_at_a_small_size(name):
    thin = {
        "encoder.width": 32,
        "encoder.heads": 2,
        "decoder.width": 32,
        "decoder.heads": 2,
        "decoder.channels": 4,
    }
    thin |= {"encoder.channels": 4, "encoder.depth": 6, "decoder.depth": 1, "recovery.width": 32}
    tokenizer = mergevq.create(name, **thin).eval()
    tokens = tokenizer.encode(images_of(1, 64, 96))
    assert tokens.keep == round(tokenizer.config.merge.keep * 64 * 96 / 256**2)
    assert tokenizer.decode(tokens).shape == (1, 3, 64, 96)


def test_keeping_everything_is_the_identity_source(small):
    tokens = small.encode(images_of(), 64)
    assert torch.equal(tokens.source, torch.arange(64).expand(2, -1)) and tokens.sizes.eq(1).all()


@pytest.mark.parametrize(
    ("height", "width", "keep"), [(32, 32, 32), (32, 48, 48), (64, 64, 128), (8, 8, 2), (4, 4, 1)]
)
def test_the_share_of_kept_tokens_follows_the_resolution(small, height, width, keep):
    assert small.encode(images_of(1, height, width)).keep == keep


@pytest.mark.parametrize("side", [12, 20, 28])
def test_the_default_count_can_always_be_reached(side):
    """A share of exactly one halving, of an odd number of positions."""
    tokenizer = mergevq.create("tiny-32", **{**SMALL, "encoder.depth": 1})
    tokens = tokenizer.encode(images_of(1, side, side))
    assert tokens.keep == -(-((side // 4) ** 2) // 2)


def test_decoding_depends_on_the_tokens_alone(small):
    first, second = images_of(2, seed=1), images_of(3, 32, 48, seed=2)
    tokens = small.encode(first, 20)
    painted, recovered = small.decode(tokens), small.decode(tokens.indices)
    other = small.encode(second, 40)
    small.decode(other)
    small.encode(first, 64)
    assert torch.equal(small.decode(tokens), painted) and torch.equal(small.decode(tokens.indices), recovered)
    copy = Tokens(tokens.indices.clone(), tokens.source.clone(), tokens.sizes.clone(), tokens.grid)
    assert torch.equal(small.decode(copy), painted)
    again = small.encode(first, 20)
    assert torch.equal(again.indices, tokens.indices) and torch.equal(again.source, tokens.source)


def test_the_source_decides_the_picture(small):
    tokens = small.encode(images_of(1), 32)
    turned = Tokens(tokens.indices, tokens.source.flip(1), tokens.sizes, tokens.grid)
    assert not torch.equal(small.decode(turned), small.decode(tokens))


def test_rows_of_a_batch_do_not_see_each_other(small):
    images = images_of(3)
    together = small.encode(images, 24)
    painted = small.decode(together)
    for row in range(3):
        alone = small.encode(images[row : row + 1], 24)
        assert torch.equal(alone.indices, together.indices[row : row + 1])
        assert torch.equal(alone.source, together.source[row : row + 1])
        torch.testing.assert_close(
            small.decode(together[row : row + 1]), painted[row : row + 1], rtol=1e-4, atol=1e-5
        )


def test_evaluation_and_training_mode_agree(small):
    images = images_of()
    before = small.encode(images, 24)
    try:
        assert torch.equal(small.train().encode(images, 24).indices, before.indices)
    finally:
        small.eval()


def test_a_training_pass_says_the_same_as_encode_and_decode(small):
    images = images_of()
    output, tokens = small(images, 24), small.encode(images, 24)
    assert torch.equal(output.quantized.indices, tokens.indices)
    assert torch.equal(output.encoding.source, tokens.source)
    torch.testing.assert_close(output.images.clamp(-1, 1), small.decode(tokens), rtol=1e-4, atol=1e-5)
    assert torch.equal(most_likely_source(output.source_logits), small.recover_source(tokens.indices))


def test_every_parameter_takes_part_in_training():
    tokenizer = mergevq.create("tiny-32", **SMALL)
    output = tokenizer(images_of(), 24)
    logits = output.source_logits.clamp_min(-1e4)
    (
        output.images.square().mean() + logits.logsumexp(dim=-1).mean() + output.encoding.cls.square().mean()
    ).backward()
    assert [name for name, parameter in tokenizer.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in tokenizer.parameters())


def test_source_recovery_trains_the_encoder():
    tokenizer = mergevq.create("tiny-32", **SMALL)
    output = tokenizer(images_of(), 24)
    torch.nn.functional.cross_entropy(output.source_logits.transpose(1, 2), output.encoding.source).backward()
    assert tokenizer.encoder.stem.weight.grad.abs().max() > 0
    assert tokenizer.decoder.out.weight.grad is None


def test_encodes_under_autocast(small):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = small.encode(images_of(), 24)
        painted = small.decode(tokens)
    assert painted.dtype == torch.float32 and painted.isfinite().all()
    assert (tokens.sizes.sum(dim=1) == 64).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 32), r"images are \(3, 32, 32\); \(B, 3, H, W\) is wanted"),
        ((1, 1, 32, 32), r"images are \(1, 1, 32, 32\)"),
        ((1, 3, 30, 32), r"30 x 32 px; both sides must be multiples of 4 px"),
        ((1, 3, 32, 2), r"32 x 2 px"),
        ((1, 3, 0, 32), r"0 x 32 px"),
    ],
)
def test_images_that_do_not_fit_are_refused(small, shape, message):
    with pytest.raises(UsageError, match=message):
        small.encode(torch.zeros(shape))


@pytest.mark.parametrize(("keep", "nearest"), [(0, 8), (7, 8), (65, 64), (1000, 64)])
def test_an_unreachable_count_names_the_nearest(small, keep, nearest):
    with pytest.raises(UsageError, match=f"cannot keep {keep} .* reached is {nearest}"):
        small.encode(images_of(), keep)


@pytest.mark.parametrize("shape", [(5,), (1, 65), (1, 0), (1, 2, 2)])
def test_indices_that_do_not_fit_are_refused(small, shape):
    with pytest.raises(UsageError, match="a 8 x 8 grid takes"):
        small.decode(torch.zeros(shape, dtype=torch.long))


def test_compiles_without_graph_breaks_or_recompilation(small):
    counter = CompileCounterWithBackend("aot_eager")
    encode = torch.compile(small.encode, fullgraph=True, backend=counter)
    decode = torch.compile(small.decode, fullgraph=True, backend=counter)
    for seed in range(3):
        images = images_of(2, seed=seed)
        tokens, wanted = encode(images, 24), small.encode(images, 24)
        assert torch.equal(tokens.indices, wanted.indices) and torch.equal(tokens.source, wanted.source)
        assert torch.equal(tokens.sizes, wanted.sizes) and tokens.grid == (8, 8)
        torch.testing.assert_close(decode(tokens), small.decode(tokens), rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 2
    torch.testing.assert_close(decode(tokens.indices), small.decode(tokens.indices), rtol=1e-4, atol=1e-5)


def test_a_training_step_compiles_without_graph_breaks():
    tokenizer = mergevq.create("tiny-32", **SMALL)
    step = torch.compile(tokenizer, fullgraph=True, backend="aot_eager")
    images = images_of()
    wanted = torch.autograd.grad(tokenizer(images, 24).images.square().sum(), tokenizer.encoder.stem.weight)
    got = torch.autograd.grad(step(images, 24).images.square().sum(), tokenizer.encoder.stem.weight)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_encode_compiles_with_inductor():
    tokenizer = mergevq.create("tiny-32", **{**SMALL, "encoder.depth": 1}).eval().requires_grad_(False)
    images = images_of()
    tokens, wanted = torch.compile(tokenizer.encode, fullgraph=True)(images, 40), tokenizer.encode(images, 40)
    # A product in another order may flip a sign that is nearly zero, or a match that is nearly level.
    assert (tokens.indices == wanted.indices).float().mean() > 0.9
    assert (tokens.sizes.sum(dim=1) == 64).all()


class Painter(torch.nn.Module):
    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        return self.tokenizer.decode(indices)


def test_a_training_pass_and_recovered_decoding_export(small):
    images = images_of()
    wanted = small(images, 24)
    exported = torch.export.export(small, (images, 24)).module()(images, 24)
    torch.testing.assert_close(exported[0], wanted.images, rtol=1e-4, atol=1e-5)
    indices = wanted.quantized.indices
    painted = torch.export.export(Painter(small), (indices,)).module()(indices)
    torch.testing.assert_close(painted, small.decode(indices), rtol=1e-4, atol=1e-5)
