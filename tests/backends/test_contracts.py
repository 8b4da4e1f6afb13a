"""Every implementation of every operator on every device that can be used, against the reference."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import pytest
import torch

from mergevq.backends import bipartite_match, devices, operators

USABLE = [name for name, device in devices().items() if device.probe().usable]
IMPLEMENTATIONS = [
    pytest.param(
        operator, implementation, id=f"{operator.name}-{implementation.device}-{implementation.name}"
    )
    for operator in operators().values()
    for device in USABLE
    for implementation in operator.implementations(device)
]


def attention_cases(generator: torch.Generator) -> Iterator[tuple]:
    for batch, tokens, sized in [(1, 1, True), (3, 7, True), (2, 16, False)]:
        query, key, value = (torch.randn(batch, 2, tokens, 8, generator=generator) for _ in range(3))
        log_size = torch.randint(1, 20, (batch, tokens), generator=generator).float().log() if sized else None
        yield query, key, value, log_size


def match_cases(generator: torch.Generator) -> Iterator[tuple]:
    for tokens in (4, 9, 16, 33):
        for protected in (0, 1, 2):
            most = (tokens - protected) // 2
            for merges in {0, 1, most // 2, most}:
                for batch in (1, 3):
                    metric = torch.randn(batch, tokens, 6, generator=generator)
                    yield metric, merges, protected
                    # Many equal tokens, some of them zero; no cosine is rounded, so that ties are ties anywhere.
                    yield metric[..., :4].sign() * (metric[..., 4:5] > -1), merges, protected
                yield torch.ones(2, tokens, 4), merges, protected
                yield torch.zeros(2, tokens, 4), merges, protected
                yield torch.eye(4)[torch.randint(4, (2, tokens), generator=generator)], merges, protected


def merge_cases(generator: torch.Generator) -> Iterator[tuple]:
    for batch, tokens, merges, width in [(1, 2, 1, 1), (3, 9, 4, 5), (2, 16, 1, 8), (1, 31, 15, 3)]:
        metric = torch.randn(batch, tokens, 6, generator=generator)
        size = torch.randint(1, 9, (batch, tokens), generator=generator).float()
        x = torch.randn(batch, tokens, width, generator=generator)
        yield x, size, bipartite_match.reference(metric, merges, 0), tokens - merges
        yield x, size, torch.arange(tokens).expand(batch, -1), tokens


def recover_cases(generator: torch.Generator) -> Iterator[tuple]:
    for batch, kept, length, width in [(1, 1, 4, 2), (3, 5, 9, 7), (2, 16, 16, 3)]:
        tokens = torch.randn(batch, kept, width, generator=generator)
        yield tokens, torch.randint(kept, (batch, length), generator=generator)


def quantize_cases(generator: torch.Generator) -> Iterator[tuple]:
    for shape in [(1, 1), (2, 5, 18), (3, 2, 2, 31)]:
        yield (torch.randn(*shape, generator=generator),)
        yield (torch.zeros(*shape),)


def entropy_cases(generator: torch.Generator) -> Iterator[tuple]:
    for shape in [(1, 1), (2, 5, 6), (40, 9)]:
        for temperature in (0.01, 1.0):
            yield torch.randn(*shape, generator=generator), temperature


def convolution_cases(generator: torch.Generator) -> Iterator[tuple]:
    for batch, channels, out, height, width in [
        (1, 3, 5, 7, 4),
        (2, 128, 130, 32, 29),
        (3, 130, 257, 21, 18),
    ]:
        x = torch.randn(batch, channels, height, width, generator=generator)
        weight = torch.randn(out, channels, 3, 3, generator=generator) / (12 * channels**0.5)
        yield x, weight, torch.randn(out, generator=generator)
        yield x.to(memory_format=torch.channels_last), weight, None


def preactivation_cases(generator: torch.Generator) -> Iterator[tuple]:
    for batch, channels, out, height, width, groups in [
        (2, 6, 5, 7, 4, 3),
        (2, 64, 65, 65, 67, 32),  # tiles stand out over the edge; in several chunks
        (1, 256, 300, 32, 34, 16),
    ]:
        x = 3 * torch.randn(batch, channels, height, width, generator=generator) + 1
        scale, shift = (torch.randn(channels, generator=generator) for _ in range(2))
        weight = torch.randn(out, channels, 3, 3, generator=generator) / (12 * channels**0.5)
        bias, residual = (
            torch.randn(*shape, generator=generator) for shape in [(out,), (batch, out, height, width)]
        )
        yield x, scale, shift, groups, 1e-6, weight
        yield (
            x.to(memory_format=torch.channels_last),
            scale,
            shift,
            groups,
            1e-6,
            weight,
            bias,
            residual,
            True,
        )


def decode_cases(generator: torch.Generator) -> Iterator[tuple]:
    for batch, new, slots in [(1, 1, 1), (3, 1, 9), (2, 4, 17)]:
        query = torch.randn(batch, 2, new, 8, generator=generator)
        key, value = (
            torch.randn(batch, 2, slots + 5, 8, generator=generator)[:, :, :slots] for _ in range(2)
        )
        yield query, key, value, None
        valid = torch.rand(batch, new, slots, generator=generator) < 0.5
        valid[..., 0] = True
        yield query, key, value, valid
        yield query, key, value, valid[:1, :1]


def norm_cases(generator: torch.Generator) -> Iterator[tuple]:
    for shape in [(1, 1), (2, 5, 64)]:
        yield torch.randn(*shape, generator=generator), torch.randn(shape[-1], generator=generator), 1e-5
        yield torch.zeros(*shape), torch.ones(shape[-1]), 1e-5


def rope_cases(generator: torch.Generator) -> Iterator[tuple]:
    for batch, tokens in [(1, 1), (3, 7)]:
        x = torch.randn(batch, 2, tokens, 8, generator=generator)
        for rows in {1, batch}:
            angles = torch.randn(rows, tokens, 4, generator=generator)
            yield x, angles.cos(), angles.sin()


def swiglu_cases(generator: torch.Generator) -> Iterator[tuple]:
    for shape in [(1, 1), (2, 5, 24)]:
        yield torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


CASES: dict[str, Callable[[torch.Generator], Iterator[tuple]]] = {
    "sized_attention": attention_cases,
    "bipartite_match": match_cases,
    "merge": merge_cases,
    "recover": recover_cases,
    "lfq_quantize": quantize_cases,
    "lfq_entropies": entropy_cases,
    "convolution3x3": convolution_cases,
    "preactivated_convolution3x3": preactivation_cases,
    "decode_attention": decode_cases,
    "rms_norm": norm_cases,
    "rope": rope_cases,
    "swiglu": swiglu_cases,
}


def cases_of(operator, device: torch.device) -> Iterator[tuple]:
    yield operator.example(device)
    if operator.name in CASES:
        generator = torch.Generator().manual_seed(zlib.crc32(operator.name.encode()))
        for case in CASES[operator.name](generator):
            yield tuple(value.to(device) if isinstance(value, torch.Tensor) else value for value in case)


CONSTANT = {"rope": (1, 2), "sized_attention": (3,)}
"""Arguments of operators, by place, that no training wants a gradient of: angles, sizes."""

MODES = (False, True)
"""Whether gradients are wanted; some implementations are for inference alone, some for training."""


def leaves_of(operator, arguments: tuple, differentiable: bool) -> list:
    """Copies of the arguments that may want a gradient."""
    constant = CONSTANT.get(operator.name, ())
    return [
        value.detach()
        .clone()
        .requires_grad_(differentiable and value.is_floating_point() and place not in constant)
        if isinstance(value, torch.Tensor)
        else value
        for place, value in enumerate(arguments)
    ]


def modes_of(operator, implementation, arguments: tuple) -> list[bool]:
    """The modes in which an implementation accepts a call."""
    return [mode for mode in MODES if implementation.when(*leaves_of(operator, arguments, mode)) is None]


def results(operator, run: Callable, arguments: tuple, differentiable: bool) -> tuple[tuple, tuple]:
    """The outputs, and the gradients of a fixed random functional of the floating ones."""
    leaves = leaves_of(operator, arguments, differentiable)
    outputs = run(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    floating = [output for output in outputs if output.is_floating_point() and output.requires_grad]
    inputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not floating:
        return outputs, ()
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(output.shape, generator=generator).to(output.device) for output in floating]
    total = sum((output * weight).sum() for output, weight in zip(floating, weights, strict=True))
    return outputs, torch.autograd.grad(total, inputs, allow_unused=True)


def lowered(arguments: tuple) -> tuple:
    """The arguments in bf16."""
    return tuple(
        value.bfloat16() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in arguments
    )


def assert_same(got: tuple, wanted: tuple, tolerance: float) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        if one is None or other is None:
            assert one is other
            continue
        exact = not other.is_floating_point()
        bound = 0 if exact else tolerance
        torch.testing.assert_close(one.cpu(), other.cpu(), rtol=bound, atol=bound)


@pytest.mark.parametrize(("operator", "implementation"), IMPLEMENTATIONS)
def test_agrees_with_the_reference(operator, implementation):
    device = torch.device(implementation.device)
    accepted = 0
    for arguments in cases_of(operator, device):
        for differentiable in modes_of(operator, implementation, arguments):
            accepted += 1
            got = results(operator, implementation.run, arguments, differentiable)
            wanted = results(operator, operator.reference, arguments, differentiable)
            assert_same(got[0], wanted[0], 1e-5)
            assert_same(got[1], wanted[1], 1e-5)
    # One that takes no float32 is left to the next test.
    assert accepted or any(
        modes_of(operator, implementation, lowered(arguments)) for arguments in cases_of(operator, device)
    )


@pytest.mark.parametrize(("operator", "implementation"), IMPLEMENTATIONS)
def test_agrees_with_the_reference_under_bf16(operator, implementation):
    device = torch.device(implementation.device)
    for arguments in cases_of(operator, device):
        inputs = lowered(arguments)
        for differentiable in modes_of(operator, implementation, inputs):
            with torch.autocast(device.type, dtype=torch.bfloat16):
                got, _ = results(operator, implementation.run, inputs, differentiable)
                wanted, _ = results(operator, operator.reference, inputs, differentiable)
            assert [output.dtype for output in got] == [output.dtype for output in wanted]
            assert_same(got, wanted, 2e-2)


@pytest.mark.parametrize("operator", operators().values(), ids=lambda operator: operator.name)
def test_reference_gives_finite_values_of_stable_type(operator):
    for arguments in cases_of(operator, torch.device("cpu")):
        plain, gradients = results(operator, operator.reference, arguments, differentiable=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed, _ = results(operator, operator.reference, arguments, differentiable=False)
        for output, other in zip(plain, mixed, strict=True):
            assert output.dtype in (torch.float32, torch.int64) and output.shape == other.shape
            assert not output.is_floating_point() or output.isfinite().all()
            assert output.is_floating_point() or torch.equal(output, other)
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("operator", operators().values(), ids=lambda operator: operator.name)
def test_reference_is_the_same_on_every_device(operator):
    wanted, _ = results(
        operator, operator.reference, operator.example(torch.device("cpu")), differentiable=False
    )
    for device in USABLE:
        outputs, _ = results(
            operator, operator.reference, operator.example(torch.device(device)), differentiable=False
        )
        assert_same(tuple(output.cpu() for output in outputs), wanted, 1e-3)
