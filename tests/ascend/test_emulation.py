"""The equipment itself: what is genuine is there, numbers are the CPU's, and what is not emulated is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F


def test_the_genuine_torch_npu_sees_a_card():
    assert torch.npu.is_available() and torch.npu.device_count() == 1
    assert torch.npu.get_device_name(0) == "Ascend910B2"
    assert torch.accelerator.current_accelerator().type == "npu"


def test_copies_keep_values_strides_and_types():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        x = (torch.arange(24).view(2, 3, 4) % 5).to(dtype)
        there = x.npu().transpose(0, 2)
        assert there.device.type == "npu" and there.stride() == x.transpose(0, 2).stride()
        assert torch.equal(there.cpu(), x.transpose(0, 2))
        assert torch.equal(there.contiguous().cpu(), x.transpose(0, 2))


def test_float64_becomes_float32_as_on_a_card():
    assert torch.ones(2, device="npu").to(torch.float64).dtype == torch.float32


def test_results_of_another_shape_reach_the_device():
    out = torch.empty(0, device="npu")
    torch.add(torch.ones(2, 3, device="npu"), 1, out=out)
    assert torch.equal(out.cpu(), torch.full((2, 3), 2.0))


def test_autocast_policy_is_the_vendors():
    layer = torch.nn.Linear(4, 4).npu()
    with torch.autocast("npu", dtype=torch.bfloat16):
        hidden = layer(torch.randn(2, 4).npu())
        assert hidden.dtype == torch.bfloat16
        assert F.layer_norm(hidden, (4,)).dtype == torch.float32


@pytest.mark.parametrize("mask", ["none", "causal", "bool"])
def test_attention_is_fused_and_right(mask):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 5, 16, generator=generator)
    options = {"none": {}, "causal": {"is_causal": True}}.get(mask)
    if options is None:
        options = {"attn_mask": torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()}
    found = []
    for device in ("cpu", "npu"):
        leaves = [each.to(device).detach().requires_grad_() for each in (query, key, value)]
        there = {name: each.to(device) if mask == "bool" else each for name, each in options.items()}
        attended = F.scaled_dot_product_attention(*leaves, **there)
        attended.sin().sum().backward()
        found.append([attended.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves)])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-6, rtol=1e-5)


def test_dropout_draws_what_it_draws_on_the_cpu():
    x = torch.randn(4, 8)
    torch.manual_seed(3)
    wanted = F.dropout(x, 0.3)
    torch.manual_seed(3)
    leaf = x.npu().requires_grad_()
    got = F.dropout(leaf, 0.3)
    got.sum().backward()
    assert torch.equal(got.detach().cpu(), wanted)
    assert torch.equal(leaf.grad.cpu(), (wanted != 0) / (1 - 0.3))


@pytest.mark.parametrize(
    ("pse", "complaint"),
    [
        (lambda: torch.zeros(2, 1, 1, 5), "pse is"),
        (lambda: torch.zeros(2, 3, 1, 5, dtype=torch.bfloat16), "the query torch.float32"),
    ],
    ids=["shape", "dtype"],
)
def test_what_the_documents_forbid_is_refused(pse, complaint):
    query = torch.randn(2, 3, 5, 16).npu()
    with pytest.raises(RuntimeError, match=complaint):
        torch.ops.npu.npu_fusion_attention(query, query, query, 3, "BNSD", pse=pse().npu())


def test_no_operator_goes_to_the_host_without_a_word():
    with pytest.raises(RuntimeError, match=r"logcumsumexp|[Ff]allback|CPU"):
        torch.randn(3).npu().logcumsumexp(0)


def test_an_operator_that_is_not_emulated_fails_the_test(run_python):
    """In a process of its own, as it would fail this one."""
    code = "import torch; torch.ops.npu.npu_fast_gelu(torch.ones(4, device='npu'))"
    done = run_python("-c", code, check=False)
    assert done.returncode and "[emu] un-emulated CANN call: " in done.stderr
