from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mergevq.backends import convolution3x3, reference_only, registry
from mergevq.backends.cpu import winograd
from mergevq.backends.cpu.winograd import convolve


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def kernel(out: int, channels: int) -> torch.Tensor:
    """Weights that keep the variance."""
    return picture(out, channels, 3, 3) / (9 * channels) ** 0.5


def taken(*arguments) -> str:
    return convolution3x3.resolve(*arguments).name


def laid_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values in another layout."""
    if layout == "channels_last":
        return x.to(memory_format=torch.channels_last)
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "strided":
        return x.repeat_interleave(2, dim=1)[:, ::2]
    return x


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    out=st.integers(1, 9),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    layout=st.sampled_from(["plain", "channels_last", "transposed", "strided"]),
    biased=st.booleans(),
    sizes=st.sampled_from([(128, 256, 64, 64), (4, 256, 64, 0), (1, 4, 3, 0), (128, 4, 3, 64), (7, 4, 2, 3)]),
)
def test_winograd_is_the_convolution(batch, channels, out, height, width, layout, biased, sizes):
    x, weight, bias = picture(batch, channels, height, width), kernel(out, channels), picture(out)
    wanted = F.conv2d(x.double(), weight.double(), bias.double() if biased else None, padding=1)
    cut = dict(zip(("_CHUNK", "_CHANNELS", "_CHANNELS_OF_ONE", "_FEW"), sizes, strict=True))
    with patch.multiple(winograd, **cut):
        got = convolve(laid_out(x, layout), laid_out(weight, layout), bias if biased else None)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=5e-5)


@pytest.mark.parametrize("shape", [(1, 2, 100, 30), (11, 2, 13, 12), (1, 2, 5, 600), (300, 2, 2, 3)])
def test_winograd_in_several_chunks(shape):
    x, weight = picture(*shape), kernel(600, 2)
    wanted = F.conv2d(x.double(), weight.double(), padding=1)
    torch.testing.assert_close(convolve(x, weight, None).double(), wanted, rtol=0, atol=5e-5)


@pytest.mark.parametrize("channels", [128, 512])
def test_winograd_is_accurate(channels):
    x, weight = picture(1, channels, 32, 32), kernel(128, channels)
    wanted = F.conv2d(x.double(), weight.double(), padding=1)
    assert (convolve(x, weight, None) - wanted).norm() < 3e-6 * wanted.norm()


def test_winograd_repeats_itself():
    x, weight = picture(2, 128, 32, 32), kernel(128, 128)
    assert torch.equal(convolve(x, weight, None), convolve(x, weight, None))


def test_values_that_are_not_finite_stay_within_their_picture():
    x = picture(2, 128, 32, 32)
    weight, other = kernel(128, 128), x[1:].clone()
    x[0, 3, 5, 7] = torch.nan
    got = convolve(x, weight, None)
    assert got[0].isnan().any()
    torch.testing.assert_close(got[1:], convolve(other, weight, None))


def test_no_gradient_takes_winograd():
    x, weight = picture(1, 128, 32, 32), torch.nn.Parameter(kernel(128, 128))
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert taken(x, weight) == "winograd"
            torch.testing.assert_close(
                convolution3x3(x, weight), F.conv2d(x, weight, padding=1), rtol=0, atol=5e-5
            )
            with reference_only():
                assert taken(x, weight) == "reference"
    assert taken(x, weight.detach()) == "winograd"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_gradient_takes_the_reference(which, monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    arguments = [picture(1, 128, 32, 32), kernel(128, 128), picture(128)]
    arguments[which].requires_grad_()
    assert taken(*arguments) == "reference"
    got, wanted = convolution3x3(*arguments), F.conv2d(*arguments, padding=1)
    assert torch.equal(got, wanted)
    gradients = [torch.autograd.grad(y.square().sum(), arguments[which])[0] for y in (got, wanted)]
    assert torch.equal(*gradients)


def test_what_does_not_pay_keeps_the_direct_convolution():
    assert taken(picture(1, 63, 64, 64), kernel(128, 63)) == "channels_last"
    assert taken(picture(1, 128, 64, 64), kernel(63, 128)) == "channels_last"
    assert taken(picture(1, 256, 12, 16), kernel(512, 256)) == "channels_last"
    assert taken(picture(1, 64, 56, 64), kernel(64, 64)) == "channels_last"
    assert taken(picture(1, 64, 64, 64), kernel(64, 64)) == "winograd"
    assert taken(picture(4, 128, 16, 16), kernel(128, 128)) == "winograd"


def test_other_precisions_take_the_reference(monkeypatch):
    monkeypatch.setattr(registry, "_STRICT", True)
    x, weight, bias = picture(1, 128, 32, 32), kernel(128, 128), picture(128)
    for dtype in (torch.float64, torch.bfloat16):
        assert taken(x.to(dtype), weight.to(dtype)) == "reference"
    assert taken(x, weight, bias.bfloat16()) == "reference"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert taken(x, weight) == "reference"
        assert convolution3x3(x, weight).dtype == torch.bfloat16


def test_a_single_picture_without_a_batch_takes_the_reference():
    x, weight = picture(128, 64, 64), kernel(128, 128)
    assert torch.equal(convolution3x3(x, weight), F.conv2d(x, weight, padding=1))


def test_compile_takes_the_reference_without_a_graph_break():
    weight = kernel(128, 128)
    compiled = torch.compile(lambda x: convolution3x3(x, weight), fullgraph=True, backend="eager")
    x = picture(1, 128, 32, 32)
    assert torch.equal(compiled(x), F.conv2d(x, weight, padding=1))
