"""Operators for NVIDIA GPUs: which calls they take, without a GPU; and on one, what they compute."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mergevq.backends import (
    bipartite_match,
    decode_attention,
    devices,
    lfq_entropies,
    merge,
    operators,
    sized_attention,
)
from mergevq.backends.cuda import checks
from mergevq.backends.cuda.attention import sized_attention_flash

ON_A_CARD = devices()["cuda"].probe().usable
needs_card = pytest.mark.skipif(not ON_A_CARD, reason="no CUDA device can be used")


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def card(monkeypatch):
    """Stands for a GPU, of compute capability 9.0 unless it is told otherwise; tensors may be anywhere."""
    properties = SimpleNamespace(major=9)
    monkeypatch.setattr(checks, "_HAS_TRITON", True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr("torch.cuda.current_device", lambda: None)
    return properties


def verdict(operator, name: str, *arguments) -> str | None:
    """Why an implementation refuses a call; None if it does not."""
    (found,) = [each for each in operator.implementations("cuda") if each.name == name]
    refusal = found.when(*arguments)
    return refusal and refusal.reason


def test_nothing_that_was_not_measured_is_taken_by_itself():
    found = [each for operator in operators().values() for each in operator.implementations("cuda")]
    assert len(found) >= 5
    assert all(each.on_request and each.optional for each in found)


def test_kernels_ask_for_triton_a_recent_card_and_the_current_one(card, monkeypatch):
    arguments = noise(2, 9, 4), 3, 1
    assert verdict(bipartite_match, "triton", *arguments) is None
    card.major = 7
    assert verdict(bipartite_match, "triton", *arguments) == "compute capability 7.x, at least 8.0 is needed"
    card.major = 8
    monkeypatch.setattr("torch.cuda.current_device", lambda: 3)
    assert verdict(bipartite_match, "triton", *arguments) == "on cpu, which is not the current GPU"
    monkeypatch.setattr(checks, "_HAS_TRITON", False)
    assert verdict(bipartite_match, "triton", *arguments) == "Triton is not installed"


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("operator", "arguments", "reason"),
    [
        (bipartite_match, (noise(2, 9, 4, dtype=torch.float64), 3, 1), "float64"),
        (bipartite_match, (noise(2, 9, 129), 3, 1), "129 features, at most 128 fit"),
        (merge, (noise(1, 2, 4).double(), torch.ones(1, 2), torch.zeros(1, 2).long(), 1), "float64"),
        (merge, (noise(1, 2, 4), torch.ones(1, 2).long(), torch.zeros(1, 2).long(), 1), "int64"),
        (lfq_entropies, (noise(4, 18).double(), 0.01), "float64"),
        (lfq_entropies, (noise(4, 1), 0.01), "1 bits, from 2 to 24 are taken"),
        (lfq_entropies, (noise(4, 26), 0.01), "26 bits"),
    ],
)
def test_refusals_have_a_reason(operator, arguments, reason):
    assert reason in verdict(operator, "triton", *arguments)


@pytest.mark.usefixtures("card")
def test_decode_attention_takes_one_query_at_inference():
    query, cache = noise(2, 3, 1, 64), noise(2, 3, 9, 64)
    assert verdict(decode_attention, "triton", query, cache, cache, None) is None
    assert "2 queries a row" in verdict(decode_attention, "triton", noise(2, 3, 2, 64), cache, cache, None)
    wide = noise(2, 3, 1, 512), noise(2, 3, 9, 512)
    assert "heads of 512" in verdict(decode_attention, "triton", *wide, wide[1], None)
    assert "one dtype" in verdict(decode_attention, "triton", query, cache.bfloat16(), cache, None)
    wanted = query.clone().requires_grad_()
    assert "a gradient is wanted" in verdict(decode_attention, "triton", wanted, cache, cache, None)
    with torch.no_grad():
        assert verdict(decode_attention, "triton", wanted, cache, cache, None) is None
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=ON_A_CARD):
        lowered = verdict(decode_attention, "triton", query, cache, cache, None)
    assert lowered == ("autocast lowers float32 first" if ON_A_CARD else None)


def test_flash_takes_what_the_flash_kernel_takes():
    heads, log_size = noise(2, 3, 5, 64, dtype=torch.bfloat16), torch.zeros(2, 5)
    assert verdict(sized_attention, "flash", heads, heads, heads, log_size) is None
    assert "has the flash kernel already" in verdict(sized_attention, "flash", heads, heads, heads, None)
    assert "no torch.float32" in verdict(sized_attention, "flash", *[heads.float()] * 3, log_size)
    assert "heads of 12" in verdict(sized_attention, "flash", *[heads[..., :12]] * 3, log_size)
    wide = noise(1, 1, 5, 256, dtype=torch.float16)
    assert "heads of 256" in verdict(sized_attention, "flash", wide, wide, wide, log_size)


def test_flash_is_the_attention_with_sizes():
    inputs = [noise(2, 3, 7, 8, seed=seed) for seed in range(3)]
    log_size = torch.randint(1, 200, (2, 7), generator=torch.Generator().manual_seed(3)).float().log()
    found = []
    for run, dtype in [(sized_attention_flash, torch.float32), (sized_attention.reference, torch.float64)]:
        leaves = [value.to(dtype).requires_grad_() for value in (*inputs, log_size)]
        out = run(*leaves)
        total = (out * noise(*out.shape, seed=4)).sum()
        found.append([value.double() for value in (out, *torch.autograd.grad(total, leaves))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_flash_in_bf16_keeps_more_of_the_sizes_than_a_bias_in_bf16():
    """Queries of zero weigh values by their sizes alone; the value is read in float32 steps of the share of one."""
    heads = torch.zeros(1, 1, 2, 8, dtype=torch.bfloat16)
    value = torch.zeros_like(heads)
    value[:, :, 0] = 1
    for size in (3.0, 50.0, 190.0):
        out = sized_attention_flash(heads, heads, value, torch.tensor([[size, 1.0]]).log())
        assert out[0, 0, 0, 0].item() == pytest.approx(size / (1 + size), rel=2**-8)


CASES = {
    "sized_attention": lambda dtype: (
        *(noise(2, 3, 257, 64, seed=seed, dtype=dtype) for seed in range(3)),
        torch.arange(1.0, 258.0).log().expand(2, 257),
    ),
    "decode_attention": lambda dtype: (
        noise(2, 16, 1, 64, dtype=dtype),
        *(noise(2, 16, 300, 64, seed=seed, dtype=dtype)[:, :, :290] for seed in (1, 2)),
        (torch.arange(290) < torch.tensor([[290], [33]])).unsqueeze(1),
    ),
    "bipartite_match": lambda dtype: (noise(2, 1025, 64, dtype=dtype), 200, 1),
    "merge": lambda dtype: (
        noise(2, 1025, 512, dtype=dtype),
        torch.ones(2, 1025),
        bipartite_match.reference(noise(2, 1025, 64), 400, 1),
        625,
    ),
    "lfq_entropies": lambda dtype: (noise(500, 18, dtype=dtype) / 10, 0.01),
}
IMPLEMENTATIONS = [
    pytest.param(operator, each, id=f"{operator.name}-{each.name}")
    for operator in operators().values()
    for each in operator.implementations("cuda")
]


def outcome(run, arguments: tuple, differentiable: bool) -> list[torch.Tensor]:
    """Outputs, and the gradients of their weighted sum."""
    leaves = [
        value.detach().clone().requires_grad_(differentiable and value.is_floating_point())
        if isinstance(value, torch.Tensor)
        else value
        for value in arguments
    ]
    outputs = run(*leaves)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    sources = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not sources or not outputs[0].is_floating_point():
        return outputs
    weights = (noise(*output.shape, seed=9).to(output.device) for output in outputs)
    total = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
    return outputs + [
        grad for grad in torch.autograd.grad(total, sources, allow_unused=True) if grad is not None
    ]


@pytest.mark.gpu
@needs_card
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize(("operator", "implementation"), IMPLEMENTATIONS)
def test_on_a_card_in_typical_shapes(operator, implementation, dtype, compiled):
    arguments = tuple(
        value.to("cuda") if isinstance(value, torch.Tensor) else value
        for value in CASES[operator.name](dtype)
    )
    refused = implementation.when(*arguments)
    if refused is not None:
        assert dtype == torch.float32 and "no torch.float32" in refused.reason
        pytest.skip(refused.reason)
    run = implementation.run
    run = torch.compile(run, fullgraph=True, dynamic=False) if compiled else run
    differentiable = operator.name != "decode_attention"
    exact = tuple(
        value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in arguments
    )
    exact = arguments if operator.name == "bipartite_match" else exact
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    for one, other in zip(
        outcome(run, arguments, differentiable),
        outcome(operator.reference, exact, differentiable),
        strict=True,
    ):
        if other.is_floating_point():
            torch.testing.assert_close(one.double(), other.double(), rtol=tolerance, atol=tolerance)
        else:  # a near-tie may fall otherwise
            assert (one == other).all(dim=1).any() and one.max() == other.max()
