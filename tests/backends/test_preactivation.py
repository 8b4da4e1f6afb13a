from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.backends import preactivated_convolution3x3, reference_only, registry
from mergevq.backends.cpu import winograd
from mergevq.backends.cpu.group_norm import channel_affine
from mergevq.backends.cpu.preactivation import preactivated_winograd

EPS = 1e-6


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def weights(out: int, channels: int) -> torch.Tensor:
    """Weights that keep the variance."""
    return noise(out, channels, 3, 3) / (9 * channels) ** 0.5


def call(x: torch.Tensor, out: int, groups: int) -> tuple:
    """Arguments without a bias and a residual."""
    channels = x.shape[1]
    return x, 1 + noise(channels), noise(channels + 1)[1:], groups, EPS, weights(out, channels)


def exact(x, scale, shift, groups, eps, weight, bias=None, residual=None) -> torch.Tensor:
    """The definition, step by step in float64."""
    grouped = x.double().unflatten(1, (groups, -1))
    centred = grouped - grouped.mean(dim=(2, 3, 4), keepdim=True)
    normal = centred / (centred.square().mean(dim=(2, 3, 4), keepdim=True) + eps).sqrt()
    hidden = normal.flatten(1, 2) * scale.double()[:, None, None] + shift.double()[:, None, None]
    hidden = hidden / (1 + (-hidden).exp())
    result = F.conv2d(hidden, weight.double(), None if bias is None else bias.double(), padding=1)
    return result if residual is None else result + residual.double()


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another layout, in memory of their own."""
    if layout == "channels_last":
        return x.clone(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.transpose(2, 3).clone(memory_format=torch.contiguous_format).transpose(2, 3)
    if layout == "strided":
        return x.repeat_interleave(2, dim=1)[:, ::2]
    return x.clone()


layouts = st.sampled_from(["plain", "channels_last", "transposed", "strided"])


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    of_group=st.integers(1, 3),
    out=st.integers(1, 9),
    height=st.integers(2, 19),
    width=st.integers(1, 19),
    layout=layouts,
    residual_layout=layouts,
    beside=st.booleans(),
    consume=st.booleans(),
    sizes=st.sampled_from([(128, 256, 64, 64), (4, 256, 64, 0), (1, 4, 3, 0), (128, 4, 3, 64), (7, 4, 2, 3)]),
)
def test_strips_are_the_definition(
    batch, groups, of_group, out, height, width, layout, residual_layout, beside, consume, sizes
):
    _, *others = call(noise(1, groups * of_group, 1, 1), out, groups)
    x = 2 * noise(batch, groups * of_group, height, width) + 0.5
    bias = noise(out) if beside else None
    residual = laid_out(noise(batch, out, height, width), residual_layout) if beside else None
    wanted = exact(x, *others, bias, residual)
    given_x = laid_out(x, layout)
    cut = dict(zip(("_CHUNK", "_CHANNELS", "_CHANNELS_OF_ONE", "_FEW"), sizes, strict=True))
    with patch.multiple(winograd, **cut):
        got = preactivated_winograd(given_x, *others, bias, residual, consume)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-4)
    assert consume or torch.equal(given_x, x)


@pytest.mark.parametrize(("channels", "size"), [(64, 128), (256, 32), (512, 24)])
def test_norm_of_the_error_is_a_few_millionths(channels, size):
    arguments = call(3 * noise(1, channels, size, size) + 1, channels, 32)
    wanted = exact(*arguments)
    assert (preactivated_winograd(*arguments) - wanted).norm() < 2e-6 * wanted.norm()


@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 5e-7), (3.0, 2e-6), (1000.0, 5e-4)])
@pytest.mark.parametrize("size", [(128, 100), (5, 3), (1, 2)])
def test_moments_are_those_of_float64(mean, tolerance, size):
    x = noise(2, *size, 12) + mean * noise(12)
    scale, shift = noise(12), noise(13)[1:]
    factor, summand = channel_affine(x, scale, shift, 4, EPS)
    got = x.double() * factor[:, None, None] + summand[:, None, None]
    wanted = F.group_norm(x.double().permute(0, 3, 1, 2), 4, scale.double(), shift.double(), EPS)
    error = got - wanted.permute(0, 2, 3, 1)
    assert error.norm() < tolerance * wanted.norm()


def test_a_constant_picture_has_no_variance():
    x = torch.full((1, 8, 8, 4), 7.0)
    factor, summand = channel_affine(x, torch.ones(4), torch.full((4,), 0.25), 2, EPS)
    torch.testing.assert_close(x * factor + summand, torch.full_like(x, 0.25), rtol=0, atol=1e-3)


def test_values_that_are_not_finite_stay_within_their_picture():
    x, *others = call(noise(2, 64, 64, 64), 64, 32)
    x[0, 3, 5, 7] = torch.inf
    got = preactivated_winograd(x, *others)
    assert got[0].isnan().any()
    torch.testing.assert_close(got[1:], preactivated_winograd(x[1:], *others))


def taken(*arguments) -> str:
    return preactivated_convolution3x3.resolve(*arguments).name


def test_large_pictures_go_in_strips_and_others_in_place():
    large = call(noise(1, 64, 64, 64), 64, 32)
    assert taken(*large) == "winograd"
    assert taken(*call(noise(1, 64, 60, 64), 64, 32)) == "in_place"
    assert taken(*call(noise(1, 64, 64, 64), 3, 32)) == "in_place"
    assert taken(*call(noise(1, 8, 256, 256), 8, 4)) == "in_place"
    with reference_only():
        assert taken(*large) == "reference"


def test_consumed_memory_is_written_over_and_only_then():
    x, *others = call(noise(1, 64, 64, 64).to(memory_format=torch.channels_last), 64, 32)
    with torch.inference_mode():
        kept = preactivated_convolution3x3(x, *others)
        assert kept.data_ptr() != x.data_ptr()
        mine = x.clone(memory_format=torch.channels_last)
        written = preactivated_convolution3x3(mine, *others, None, None, True)
    assert written.data_ptr() == mine.data_ptr() and torch.equal(written, kept)


@pytest.mark.parametrize("which", [0, 1, 2, 5, 6, 7])
@pytest.mark.parametrize("size", [8, 64])
def test_a_gradient_takes_the_reference(which, size, monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    arguments = [*call(noise(1, 64, size, size), 64, 32), noise(64), noise(1, 64, size, size), True]
    arguments[which].requires_grad_()
    before = arguments[0].detach().clone()
    assert taken(*arguments) == "reference"
    got = preactivated_convolution3x3(*arguments)
    assert torch.equal(arguments[0], before)
    gradient = torch.autograd.grad(got.square().sum(), arguments[which])[0]
    doubles = [value.detach().double() if isinstance(value, torch.Tensor) else value for value in arguments]
    doubles[which].requires_grad_()
    wanted = torch.autograd.grad(exact(*doubles[:-1]).square().sum(), doubles[which])[0]
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item())


def test_other_precisions_take_the_reference(monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    arguments = call(noise(1, 64, 64, 64), 64, 32)
    lowered = [value.bfloat16() if isinstance(value, torch.Tensor) else value for value in arguments]
    assert taken(*lowered) == "reference"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert taken(*arguments) == "reference"
        assert preactivated_convolution3x3(*arguments).dtype == torch.bfloat16


class HalfBlock(torch.nn.Module):
    def forward(self, *arguments):
        return preactivated_convolution3x3(*arguments[:3], 32, EPS, *arguments[3:])


def test_compile_and_export_take_the_reference():
    x, scale, shift, _, _, weight = call(noise(1, 64, 64, 64), 64, 32)
    wanted = preactivated_convolution3x3.reference(x, scale, shift, 32, EPS, weight)
    with torch.no_grad():
        compiled = torch.compile(HalfBlock(), fullgraph=True, backend="eager")
        assert torch.equal(compiled(x, scale, shift, weight), wanted)
        program = torch.export.export(HalfBlock(), (x, scale, shift, weight))
        assert torch.equal(program.module()(x, scale, shift, weight), wanted)
