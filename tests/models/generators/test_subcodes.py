"""The head over the sub-codes of one token, with and without a context that its rotation makes vanish."""

from __future__ import annotations

import pytest
import torch

from mergevq.config import from_dict, to_dict
from mergevq.errors import ConfigError
from mergevq.export.generator.graphs import HeadGraph
from mergevq.generator_config import GeneratorConfig
from mergevq.models.generators.autoregressive import Generator
from mergevq.models.generators.subcodes import split_code


def make(rotation: str, split: tuple[int, ...] = (3, 2)) -> Generator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        kind="raster", width=128, depth=1, split=split, head_depth=1, classes=4, grid=2, counts=(4,),
        head_rotation=rotation,  # type: ignore[arg-type]  # a test's parameter
    )  # fmt: skip
    model = Generator(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def second_by_hand(model: Generator, context: torch.Tensor, first: torch.Tensor, zero: bool) -> torch.Tensor:
    """(N, 2^bits) logits of the second of two sub-codes, written out: one query over two keys, two heads."""
    block = model.head.transformer.blocks[0]
    x = torch.stack([context, model.codes.tables[0](first)], dim=1)  # (N, 2, D)
    query, key, value = block.attention.qkv(block.norm1(x)).unflatten(2, (3, 2, -1)).unbind(2)  # (N, 2, M, E)
    if zero:
        key[:, 0] = 0
    scores = torch.einsum("nme,ntme->nmt", query[:, 1], key) / 8
    attended = torch.einsum("nmt,ntme->nme", scores.softmax(dim=-1), value).flatten(1)
    hidden = x[:, 1] + block.attention.out(attended)
    return model.head.logits(hidden + block.mlp(block.norm2(hidden)), 1)


@pytest.mark.parametrize("rotation", ["identity", "zero"])
def test_the_second_sub_code_sees_the_context_as_its_rotation_says(rotation: str) -> None:
    model = make(rotation)
    context = torch.randn(5, 1, 128, generator=torch.Generator().manual_seed(1))
    codes = torch.tensor([[0], [7], [12], [31], [20]])
    logits = model.head(context, codes, model.codes)
    first = split_code(codes[:, 0], (3, 2))[0]
    wanted = second_by_hand(model, context[:, 0], first, rotation == "zero")
    torch.testing.assert_close(logits[1][:, 0], wanted, rtol=1e-4, atol=1e-4)
    graph = HeadGraph(model, 1)
    exported = torch.export.export(graph, (context[:, 0], first[:, None])).module()
    torch.testing.assert_close(exported(context[:, 0], first[:, None]), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rotation", ["identity", "zero"])
@pytest.mark.parametrize("split", [(5,), (3, 2), (2, 2, 1)])
def test_choosing_part_by_part_is_teacher_forcing(rotation: str, split: tuple[int, ...]) -> None:
    model = make(rotation, split)
    context = torch.randn(6, 128, generator=torch.Generator().manual_seed(2))
    chosen = model.head.sample(context, model.codes, lambda logits, part: logits.argmax(dim=-1))
    logits = model.head(context.unsqueeze(1), chosen.unsqueeze(1), model.codes)
    for scores, part in zip(logits, split_code(chosen, split), strict=True):
        assert torch.equal(scores[:, 0].argmax(dim=-1), part)


def test_generators_that_say_nothing_of_it_rotate_nothing() -> None:
    older = to_dict(make("zero").config)
    del older["head_rotation"]
    assert from_dict(GeneratorConfig, older).head_rotation == "identity"
    with pytest.raises(ConfigError, match="head_rotation is 'half'; it must be identity or zero"):
        GeneratorConfig(head_rotation="half")  # type: ignore[arg-type]  # which is the point
