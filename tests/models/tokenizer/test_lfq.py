from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mergevq
from mergevq.models.tokenizer.lfq import Quantized, Quantizer, commitment, entropies


def test_quantizer_is_norm_silu_projection_sign():
    quantizer, tokens = Quantizer(8, 5), torch.randn(2, 7, 8)
    z, codes, indices = quantizer(tokens)
    wanted = quantizer.project(torch.nn.functional.silu(quantizer.norm(tokens)))
    torch.testing.assert_close(z, wanted)
    assert torch.equal(codes, torch.where(wanted > 0, 1.0, -1.0))
    assert torch.equal(quantizer.codes(indices), codes)
    assert indices.dtype == torch.int64 and indices.shape == (2, 7)


def test_quantizer_works_on_each_token_alone():
    quantizer, tokens = Quantizer(8, 5), torch.randn(2, 7, 8)
    torch.testing.assert_close(quantizer(tokens[:1, 3:4]).z, quantizer(tokens).z[:1, 3:4])


def test_z_is_float32_under_autocast():
    quantizer, tokens = Quantizer(8, 5), torch.randn(2, 7, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, codes, _ = quantizer(tokens)
    assert z.dtype == codes.dtype == torch.float32 and codes.abs().eq(1).all()


def test_gradient_passes_the_sign():
    quantizer, tokens = Quantizer(8, 5), torch.randn(2, 7, 8, requires_grad=True)
    quantizer(tokens).codes.square().sum().backward()
    assert (tokens.grad.abs().sum(dim=-1) > 0).all()


def test_commitment_pulls_z_to_its_code():
    z = torch.tensor([[[0.5, -3.0]]], requires_grad=True)
    codes = torch.tensor([[[1.0, -1.0]]], requires_grad=True)
    loss = commitment(Quantized(z, codes, torch.zeros(1, 1)))
    loss.backward()
    assert loss.item() == pytest.approx((0.25 + 4) / 2)
    assert z.grad[0, 0].tolist() == pytest.approx([-0.5, -2.0]) and codes.grad is None


RANK = """
import sys, torch
import torch.distributed as dist
from mergevq.models.tokenizer.lfq import entropies

rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
z = torch.randn(2, 40, 9, generator=torch.Generator().manual_seed(3))
w = torch.linspace(0.5, 1.5, 9).requires_grad_()  # a shared parameter, as under DDP
sample, codebook = entropies(z[rank] * w, 0.3)
(sample - codebook).backward()
dist.all_reduce(w.grad)
torch.save({"sample": sample.detach(), "codebook": codebook.detach(), "gradient": w.grad / 2}, f"{out}/{rank}.pt")
dist.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_ranks_equal_one_process_with_all_tokens(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    port = str(free_port())
    home = Path(mergevq.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), port, str(tmp_path)], env=environment, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))

    z = torch.randn(2, 40, 9, generator=torch.Generator().manual_seed(3))
    weight = torch.linspace(0.5, 1.5, 9).requires_grad_()
    sample, codebook = entropies(z * weight, 0.3)
    (sample - codebook).backward()
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close((first["sample"] + second["sample"]) / 2, sample.detach(), **close)
    torch.testing.assert_close(first["codebook"], codebook.detach(), **close)
    assert torch.equal(first["codebook"], second["codebook"])
    torch.testing.assert_close(first["gradient"], weight.grad, **close)
