"""The semantics of the vendor's operators that are easy to get wrong, against the references on the CPU."""

from __future__ import annotations

import pytest
import torch

from mergevq.backends import (
    decode_attention,
    lfq_quantize,
    merge,
    recover,
    rms_norm,
    rope,
    sized_attention,
    swiglu,
)

BF16 = torch.bfloat16


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def implementation(operator, name: str):
    return next(each for each in operator.implementations("npu") if each.name == name)


def on_npu(arguments, learned=()):
    return [
        value.to("npu").requires_grad_(place in learned) if isinstance(value, torch.Tensor) else value
        for place, value in enumerate(arguments)
    ]


def assert_like_the_cpu(operator, name: str, arguments, learned=(), tolerance=1e-5) -> None:
    """Outputs, and the gradients of the learned arguments, are those of the reference on the CPU."""
    chosen = implementation(operator, name)
    given = on_npu(arguments, learned)
    assert chosen.when(*given) is None
    wanted = [
        value.clone().requires_grad_(place in learned) if isinstance(value, torch.Tensor) else value
        for place, value in enumerate(arguments)
    ]
    one, other = chosen.run(*given), operator.reference(*wanted)
    assert one.dtype == other.dtype and one.device.type == "npu"
    torch.testing.assert_close(one.cpu(), other, rtol=tolerance, atol=tolerance)
    if learned:
        weight = normal(*other.shape, seed=9, dtype=other.dtype)
        found = torch.autograd.grad((one * weight.to("npu")).sum(), [given[place] for place in learned])
        expected = torch.autograd.grad((other * weight).sum(), [wanted[place] for place in learned])
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine.cpu(), theirs, rtol=tolerance, atol=tolerance)


def attention(width: int = 16, dtype: torch.dtype = torch.float32):
    query, key, value = (normal(2, 3, 10, width, seed=seed, dtype=dtype) for seed in range(3))
    return query, key, value, torch.arange(1.0, 21.0).view(2, 10).log()


@pytest.mark.parametrize("name", ["fusion_attention", "wider_keys"])
@pytest.mark.parametrize("width", [16, 64])
@pytest.mark.parametrize("sized", [True, False])
def test_the_bias_is_added_after_the_scale(name, width, sized):
    query, key, value, log_size = attention(width)
    arguments = (query, key, value, log_size if sized else None)
    assert_like_the_cpu(sized_attention, name, arguments, learned=(0, 1, 2))


@pytest.mark.parametrize("name", ["fusion_attention", "wider_keys"])
def test_the_bias_is_rounded_no_worse_than_the_references(name):
    query, key, value, log_size = attention(64, BF16)
    assert_like_the_cpu(
        sized_attention, name, (query, key, value, log_size), learned=(0, 1, 2), tolerance=3e-2
    )


def test_keys_of_another_length_than_the_queries():
    query, key, value = normal(2, 3, 7, 16), normal(2, 3, 5, 16, seed=1), normal(2, 3, 5, 16, seed=2)
    for name in ("fusion_attention", "wider_keys"):
        assert_like_the_cpu(sized_attention, name, (query, key, value, None), learned=(0, 1, 2))


def test_training_is_fused_and_inference_has_wider_keys():
    learned, fixed = on_npu(attention(), learned=(0, 1, 2)), on_npu(attention())
    assert sized_attention.resolve(*learned).name == "fusion_attention"
    assert sized_attention.resolve(*fixed).name == "wider_keys"
    with torch.inference_mode():
        assert sized_attention.resolve(*learned).name == "wider_keys"


def masks():
    valid = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    valid[..., 0] = True
    return [None, valid, valid[:1], valid[:, :1], valid[:1, :1]]


@pytest.mark.parametrize("valid", masks())
@pytest.mark.parametrize("new", [4, 1])
def test_the_cache_kernel_drops_what_is_not_valid(valid, new):
    query = normal(2, 3, new, 16, dtype=BF16)
    buffer = normal(2, 2, 3, 12, 16, seed=1, dtype=BF16)
    key, value = buffer[:, :, :, :9]  # a view of a larger buffer, as a cache gives it
    valid = valid if valid is None else valid[:, :new]
    assert_like_the_cpu(decode_attention, "fused_infer", (query, key, value, valid), tolerance=2e-2)


@pytest.mark.parametrize("valid", masks())
def test_float32_decodes_by_pytorchs_own_attention(valid):
    """Which is fused for masks of bool, and has a gradient: the masks of a generator's training."""
    arguments = (normal(2, 3, 4, 16), normal(2, 3, 9, 16, seed=1), normal(2, 3, 9, 16, seed=2), valid)
    given = on_npu(arguments, learned=(0, 1, 2))
    assert decode_attention.resolve(*given).name == "reference"
    wanted = [value.clone().requires_grad_() for value in arguments[:3]]
    one, other = decode_attention(*given), decode_attention.reference(*wanted, valid)
    torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(one.square().sum(), given[:3])
    for mine, theirs in zip(found, torch.autograd.grad(other.square().sum(), wanted), strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_the_rotation_turns_pairs_of_neighbours(rows, dtype):
    turn = normal(rows, 5, 8, seed=1)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    x = normal(2, 3, 5, 16, dtype=dtype)
    assert_like_the_cpu(
        rope, "npu_rotary_mul", (x, turn.cos(), turn.sin()), learned=(0,), tolerance=tolerance
    )
    wrong = torch.ops.npu.npu_rotary_mul(
        x.to("npu").float(),
        *(on_npu([torch.cat([each, each], -1).unsqueeze(1) for each in (turn.cos(), turn.sin())])),
    )
    right = rope.reference(x.float(), turn.cos(), turn.sin())
    assert (wrong.cpu() - right).abs().max() > 0.1  # the kernel's default turns halves


def test_a_large_batch_rotates_within_the_documented_limits():
    turn = normal(300, 2, 2, seed=1)
    assert_like_the_cpu(rope, "npu_rotary_mul", (normal(300, 4, 2, 4), turn.cos(), turn.sin()), learned=(0,))


def test_the_norms_epsilon_is_ours():
    for eps in (1e-5, 0.5):
        arguments = (normal(2, 5, 16) * 0.01, normal(16, seed=1), eps)
        assert_like_the_cpu(rms_norm, "npu_rms_norm", arguments, learned=(0, 1), tolerance=1e-4)


def test_the_norm_of_bf16_keeps_its_dtype_and_a_float32_weight():
    arguments = (normal(2, 5, 16, dtype=BF16), normal(16, seed=1), 1e-5)
    assert_like_the_cpu(rms_norm, "npu_rms_norm", arguments, tolerance=2e-2)


def test_the_gate_is_the_first_half():
    assert_like_the_cpu(swiglu, "npu_swiglu", (normal(3, 4, 8), normal(3, 4, 8, seed=1)), learned=(0, 1))


def test_halves_of_one_tensor_pass_their_gradient_on():
    whole = normal(3, 4, 10)
    one, other = whole.to("npu").requires_grad_(), whole.clone().requires_grad_()
    # Multiplied first, as a linear layer's output is: a leaf would be its own base.
    mine, theirs = swiglu(*(2 * one).chunk(2, dim=-1)), swiglu.reference(*(2 * other).chunk(2, dim=-1))
    torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-5, atol=1e-5)
    mine.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(one.grad.cpu(), other.grad, rtol=1e-5, atol=1e-5)


def test_recovery_and_merging_touch_no_scatter():
    tokens, source = normal(2, 5, 7), torch.randint(5, (2, 9), generator=torch.Generator().manual_seed(0))
    assert_like_the_cpu(recover, "one_hot", (tokens, source), learned=(0,))
    used: set[str] = set()

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            used.add(function.name())
            return function(*args, **(kwargs or {}))

    size = torch.ones(2, 9, device="npu")
    with Record():
        x = normal(2, 9, 7).to("npu").requires_grad_()
        merged, _ = merge(x, size, source.to("npu"), 5)
        recover(merged, source.to("npu")).sum().backward()
    assert used and not {name for name in used if "scatter" in name or "index" in name or "sort" in name}


def test_indices_are_the_cpus():
    z = normal(2, 5, 18)
    codes, indices = lfq_quantize(z.to("npu"))
    wanted_codes, wanted = lfq_quantize.reference(z)
    assert lfq_quantize.resolve(z.to("npu")).name == "int32" and indices.dtype == torch.int64
    assert torch.equal(indices.cpu(), wanted) and torch.equal(codes.cpu(), wanted_codes)
