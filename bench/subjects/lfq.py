"""The entropy loss of look-up free quantisation, here and in vector-quantize-pytorch, and the memory it takes.

Both compute the mean entropy of a token's code distribution less the entropy of the mean distribution at
temperature 0.01, and the gradient. The other library holds tensors of (tokens, 2^bits).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch

from mergevq.backends import lfq_entropies
from mergevq.bench.measuring.peak import STATUS, resident

Library = Literal["mergevq", "vector-quantize-pytorch"]
LIBRARIES: tuple[Library, ...] = ("mergevq", "vector-quantize-pytorch")
TEMPERATURE = 0.01
_CLEAR = Path("/proc/self/clear_refs")


def entropy_step(library: Library, bits: int, tokens: int, device: str = "cpu") -> Callable[[], torch.Tensor]:
    """A call that computes the loss and its gradient.

    Args:
        library: whose code.
        bits: d.
        tokens: n.
        device: where.

    Returns:
        A function that returns the gradient (n, d).
    """
    noise = torch.randn(tokens, bits, generator=torch.Generator().manual_seed(0)) / 10
    z = noise.to(device).requires_grad_()
    loss = entropy_loss(library, bits, device)

    def step() -> torch.Tensor:
        return torch.autograd.grad(loss(z), z)[0]

    return step


def entropy_loss(library: Library, bits: int, device: str = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
    """The loss as a function of (n, bits); the other library's logarithm treats p < 1e-5 as 1e-5."""
    return _theirs(bits, device) if library == "vector-quantize-pytorch" else _ours


def _ours(z: torch.Tensor) -> torch.Tensor:
    sample, codebook = lfq_entropies(z, TEMPERATURE)
    return sample - codebook


def _theirs(bits: int, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    from vector_quantize_pytorch import LFQ

    quantizer = LFQ(dim=bits, codebook_size=2**bits, entropy_loss_weight=1.0).to(device).train()

    def loss(z: torch.Tensor) -> torch.Tensor:
        return quantizer(z.unsqueeze(0), inv_temperature=1 / TEMPERATURE).entropy_aux_loss

    return loss


def can_measure_memory() -> bool:
    """Whether the system keeps a high-water mark that can be set back (Linux does)."""
    return STATUS.exists() and _CLEAR.exists()


def peak_memory(library: Library, bits: int, tokens: int) -> int:
    """Bytes that one step needs at its peak beyond what its process held before.

    The step runs in a process of its own: in this one, memory that earlier cases freed would be used again.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, library, bits, tokens).result()


def _measure(library: Library, bits: int, tokens: int) -> int:
    torch.set_num_threads(1)
    entropy_step(library, bits, 8)()  # whatever is loaded or reserved once is not the step's
    step = entropy_step(library, bits, tokens)
    # getrusage's mark would begin at the parent's size, which it inherits over the fork.
    _CLEAR.write_text("5")
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before
