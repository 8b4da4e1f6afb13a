"""What the NPU's implementations accept, on tensors without memory; and those that any device can run."""

from __future__ import annotations

import pytest
import torch

from mergevq.backends import (
    bipartite_match,
    decode_attention,
    lfq_entropies,
    lfq_quantize,
    merge,
    recover,
    rms_norm,
    rope,
    sized_attention,
    swiglu,
)
from mergevq.backends.npu import attention, soc, transformer

BF16 = torch.bfloat16


@pytest.fixture(autouse=True)
def atlas_a2(monkeypatch):
    """The processor of most cards."""
    on(monkeypatch, "Ascend910B2")


def on(monkeypatch, processor: str) -> None:
    for module in (attention, transformer):
        monkeypatch.setattr(module, "has_fused_kernels", lambda: processor.startswith(soc._FUSED))


def meta(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta", requires_grad=grad)


def qkv(heads: int = 4, width: int = 64, **kind) -> list[torch.Tensor]:
    return [meta(2, heads, 10, width, **kind) for _ in range(3)]


def reason(operator, name: str, *arguments) -> str | None:
    """Why an implementation refuses a call; None where it accepts."""
    chosen = next(each for each in operator.implementations("npu") if each.name == name)
    verdict = chosen.when(*arguments)
    return None if verdict is None else verdict.reason


def sizes(grad: bool = False) -> torch.Tensor:
    return meta(2, 10, grad=grad)


@pytest.mark.parametrize("dtype", [torch.float16, BF16, torch.float32])
@pytest.mark.parametrize("log_size", [None, sizes()])
def test_fusion_attention_takes_training(dtype, log_size):
    assert reason(sized_attention, "fusion_attention", *qkv(dtype=dtype, grad=True), log_size) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*qkv(), sizes()), "documented for training only"),
        ((*qkv(grad=True), sizes(grad=True)), "a gradient of the sizes is wanted"),
        ((*qkv(heads=257, grad=True), sizes()), "257 heads, at most 256 are allowed"),
        ((*qkv(width=769, grad=True), sizes()), "heads are 769 wide, at most 768 is allowed"),
        (
            (*qkv(grad=True, dtype=torch.float64), sizes()),
            "query, key and value are float64, float64, float64",
        ),
        ((qkv(grad=True)[0], *qkv(dtype=BF16)[1:], sizes()), "query, key and value are float32, bfloat16"),
        ((*qkv(grad=True)[:2], meta(2, 4, 10, 32), sizes()), "keys and values differ in shape"),
    ],
)
def test_fusion_attention_refuses_what_the_vendor_forbids(arguments, words):
    assert words in reason(sized_attention, "fusion_attention", *arguments)


def test_fusion_attention_is_for_training_even_where_weights_want_a_gradient():
    with torch.no_grad():
        assert "training only" in reason(sized_attention, "fusion_attention", *qkv(grad=True), sizes())


def test_older_processors_take_the_reference(monkeypatch):
    on(monkeypatch, "Ascend910ProB")
    words = "this processor has no fused attention"
    assert reason(sized_attention, "fusion_attention", *qkv(grad=True), sizes()) == words
    assert reason(sized_attention, "wider_keys", *qkv(), sizes()) == words
    assert reason(decode_attention, "fused_infer", *qkv(dtype=BF16), None) == words
    assert "rotates halves only" in reason(rope, "npu_rotary_mul", meta(2, 4, 5, 64), *angles())


@pytest.mark.parametrize("processor", ["Ascend910B2", "Ascend910B4-1", "Ascend910_9382", "Ascend950PR_9589"])
def test_newer_processors_have_the_kernels(monkeypatch, processor):
    monkeypatch.setattr(soc, "soc_name", lambda: processor)
    assert soc.has_fused_kernels()


@pytest.mark.parametrize("processor", ["Ascend910ProB", "Ascend910A", "Ascend310P3"])
def test_older_processors_have_not(monkeypatch, processor):
    monkeypatch.setattr(soc, "soc_name", lambda: processor)
    assert not soc.has_fused_kernels()


def test_inference_leaves_the_bias_to_wider_keys():
    assert reason(sized_attention, "wider_keys", *qkv(), sizes()) is None
    assert reason(sized_attention, "wider_keys", *qkv(width=496), sizes()) is None
    assert "at most 496" in reason(sized_attention, "wider_keys", *qkv(width=497), sizes())
    asked = [implementation.name for implementation in sized_attention.implementations("npu")]
    assert asked == ["fusion_attention", "wider_keys"]


@pytest.mark.parametrize("width", [3, 8, 15, 16, 64])
@pytest.mark.parametrize("sized", [True, False])
def test_wider_keys_are_the_same_attention(width, sized):
    generator = torch.Generator().manual_seed(width)
    query, key, value = (
        torch.randn(2, 3, 7, width, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    log_size = torch.randint(1, 200, (2, 7), generator=generator).double().log() if sized else None
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]
    got = attention.sized_attention_wider_keys(*inputs, log_size)
    wanted = sized_attention.reference(*inputs, log_size)
    torch.testing.assert_close(got, wanted)
    weight = torch.randn(got.shape, generator=generator, dtype=torch.float64)
    pairs = zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((wanted * weight).sum(), inputs),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_wider_keys_have_an_aligned_width(monkeypatch):
    seen = []

    def spy(query, key, value, **options):
        seen.append((query.shape[-1], key.shape[-1], value.shape[-1]))
        return value

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", spy)
    for width in (8, 15, 16, 64):
        attention.sized_attention_wider_keys(*qkv(width=width), sizes())
    assert seen == [(16, 16, 16), (16, 16, 16), (32, 32, 32), (80, 80, 80)]


def test_the_cache_kernel_takes_inference_in_16_bits():
    for dtype in (torch.float16, BF16):
        assert reason(decode_attention, "fused_infer", *qkv(dtype=dtype), None) is None
    wide = [meta(65_537, 1, 1, 16, dtype=BF16) for _ in range(3)]
    for arguments, words in [
        (qkv(), "float32"),
        (qkv(dtype=BF16, grad=True), "documented for inference only"),
        (qkv(dtype=BF16, width=24), "24 wide, a multiple of 16 is wanted"),
        (qkv(dtype=BF16, width=528), "528 wide, at most 512 is allowed"),
        (qkv(dtype=BF16, heads=300), "300 heads, at most 256 are allowed"),
        (wide, "a batch of 65537, at most 65536 is allowed"),
    ]:
        assert words in reason(decode_attention, "fused_infer", *arguments, None)


def angles(rows: int = 1, tokens: int = 5, half: int = 32, grad: bool = False) -> list[torch.Tensor]:
    return [meta(rows, tokens, half, grad=grad) for _ in range(2)]


def test_the_rotation_takes_any_batch_and_refuses_what_the_vendor_forbids():
    for rows in (1, 3000):
        assert reason(rope, "npu_rotary_mul", meta(3000, 16, 5, 64, grad=True), *angles(rows)) is None
    for arguments, words in [
        ((meta(2, 4, 5, 896), *angles(half=448)), "heads are 896 wide, less than 896 is wanted"),
        ((meta(2, 1000, 5, 64), *angles()), "1000 heads, less than 1000 are wanted"),
        ((meta(2, 4, 5, 64), *angles(grad=True)), "a gradient of the angles is wanted"),
        ((meta(2, 4, 5, 64, dtype=torch.float64), *angles()), "16 and 32 bit"),
        ((meta(4, 5, 64), *angles()), "3 dimensions; the kernel takes 4 to 8"),
    ]:
        assert words in reason(rope, "npu_rotary_mul", *arguments)


def test_norm_and_gate_refuse_other_dtypes_and_dimensions():
    weight = meta(8)
    assert reason(rms_norm, "npu_rms_norm", meta(2, 8, dtype=BF16), weight, 1e-5) is None
    assert "1 dimensions" in reason(rms_norm, "npu_rms_norm", meta(8), weight, 1e-5)
    assert "float64" in reason(rms_norm, "npu_rms_norm", meta(2, 8, dtype=torch.float64), weight, 1e-5)
    assert reason(swiglu, "npu_swiglu", meta(2, 8), meta(2, 8)) is None
    assert "differ" in reason(swiglu, "npu_swiglu", meta(2, 8), meta(2, 8, dtype=BF16))
    assert "differ" in reason(swiglu, "npu_swiglu", meta(2, 8), meta(1, 8))


def side_by_side(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    joined = transformer._side_by_side(gate, up)
    torch.testing.assert_close(joined, torch.cat([gate, up], dim=-1), rtol=0, atol=0)
    return joined


def test_halves_of_one_tensor_are_not_copied():
    whole = torch.randn(3, 4, 10, requires_grad=True) * 1.0
    gate, up = whole.chunk(2, dim=-1)
    assert side_by_side(gate, up) is whole
    side_by_side(gate, up).sum().backward()
    with torch.no_grad():
        assert side_by_side(*whole.chunk(2, dim=-1)) is whole


@pytest.mark.parametrize(
    "parts",
    [
        lambda whole: whole.chunk(2, dim=-1)[::-1],  # the gate is the first half
        lambda whole: (whole[..., :4], whole[..., 5:9]),
        lambda whole: (whole[:, :2, :5], whole[:, :2, 5:]),
        lambda whole: (whole[..., ::2], whole[..., 1::2]),
        lambda whole: (whole[..., :5].clone(), whole[..., 5:].clone()),
        lambda whole: (whole[..., :5], whole.clone()[..., 5:]),
    ],
)
def test_other_parts_are_copied(parts):
    whole = torch.randn(3, 4, 10)
    assert side_by_side(*parts(whole)) is not whole


def test_merging_keeps_to_its_references():
    for operator in (bipartite_match, merge, lfq_entropies):
        assert operator.implementations("npu") == []


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_recovery_by_a_product_is_exact(dtype):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 5, 7, generator=generator).to(dtype).requires_grad_()
    source = torch.randint(5, (3, 9), generator=generator)
    product = recover.implementations("npu")[0].run
    with torch.autocast("cpu", dtype=BF16):
        got = product(tokens, source)
    wanted = recover.reference(tokens, source)
    assert got.dtype == dtype and torch.equal(got, wanted)
    weight = torch.randn(got.shape, generator=generator).to(dtype)
    one, other = (torch.autograd.grad((each * weight).sum(), tokens)[0] for each in (got, wanted))
    torch.testing.assert_close(one, other, rtol=2e-2 if dtype == BF16 else 1e-6, atol=1e-2)


@pytest.mark.parametrize("bits", [1, 18, 31])
def test_indices_of_up_to_31_bits_fit(bits):
    z = torch.randn(4, 6, bits, generator=torch.Generator().manual_seed(bits))
    z[0, 0] = z[0, 0].abs() + 1  # the largest index
    quantise = lfq_quantize.implementations("npu")[0].run
    for one, other in zip(quantise(z), lfq_quantize.reference(z), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    assert "32 bits, at most 31 fit" in reason(lfq_quantize, "int32", meta(2, 32))
    assert reason(lfq_quantize, "int32", meta(2, 31)) is None
