"""Tensors that a tokenizer is given, checked before they reach a layer; what is checked says `mergevq.inputs`.

Types, shapes and devices cost nothing, and are looked at always. Values are looked at on the CPU, where that takes
microseconds; elsewhere it would wait for the device, and is done on request alone. While a graph is traced there are
none.

Legend: B batch, H W pixels, h w grid, L = h*w positions, K kept tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mergevq import inputs
from mergevq.config import TokenizerConfig
from mergevq.errors import UsageError


@dataclass(frozen=True, slots=True)
class TensorChecks:
    """What is checked of the tensors that one tokenizer is given.

    Attributes:
        config: of the tokenizer.
        device: where its weights are.
        values: whether values are looked at; None: on the CPU alone.
    """

    config: TokenizerConfig
    device: torch.device
    values: bool | None

    def images(self, images: Any) -> torch.Tensor:
        """(B, 3, H, W) of any floating-point type.

        Raises:
            UsageError: another type, shape or device, or values that are NaN or not in [-1, 1].
        """
        self._placed("images", images, "a PyTorch tensor")
        inputs.check_image_type(_name(images))
        inputs.check_image_shape(images.shape, self.config.stride)
        if self._readable(images):
            inputs.check_pixels(*_bounds(images))
        return images

    def indices(self, indices: Any, grid: tuple[int, int]) -> torch.Tensor:
        """(B, K) int64 codes with 1 <= K <= h*w.

        Raises:
            UsageError: another type, shape or device, or a code outside the vocabulary.
        """
        indices = self._integers("indices", indices, "Tokens or a PyTorch tensor of indices")
        inputs.check_index_shape(indices.shape, grid)
        self._check_range("indices", indices, 2**self.config.quantizer.bits)
        return indices

    def source(self, source: Any, indices: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, L) int64, which of its row's K tokens covers each position.

        Raises:
            UsageError: another type, shape or device, or a token that there is not.
        """
        source = self._integers("source", source)
        inputs.check_shape("source", source.shape, (indices.shape[0], grid[0] * grid[1]))
        self._check_range("source", source, indices.shape[1])
        return source

    def starts(self, starts: Any, indices: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """(B, K) int64, ascending from 0: the position at which each token begins.

        Raises:
            UsageError: another type, shape or device, or positions that do not ascend from 0 within the grid.
        """
        starts = self._integers("starts", starts)
        inputs.check_shape("starts", starts.shape, indices.shape)
        self._check_range("starts", starts, grid[0] * grid[1])
        if self._readable(starts):
            inputs.check_starts(not bool((starts[:, 0] != 0).any() or (starts.diff(dim=1) <= 0).any()))
        return starts

    def _integers(self, name: str, values: Any, called: str = "a PyTorch tensor") -> torch.Tensor:
        self._placed(name, values, called)
        inputs.check_integer_type(name, _name(values))
        tensor: torch.Tensor = values.to(torch.int64)
        return tensor

    def _placed(self, name: str, values: Any, called: str) -> None:
        """Makes sure that this is a tensor where the weights are."""
        inputs.check_kind(name, values, torch.Tensor, called)
        if values.device != self.device:
            raise UsageError(
                f"{name} are on {values.device} and the tokenizer on {self.device}; move one of them with .to()"
            )

    def _check_range(self, name: str, values: torch.Tensor, end: int) -> None:
        if self._readable(values):
            least, greatest = _bounds(values)
            inputs.check_range(name, int(least), int(greatest), end)

    def _readable(self, values: torch.Tensor) -> bool:
        """Whether values are there, and to be looked at."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if type(values).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:  # a fake one, say
            return False
        return values.device.type == "cpu" if self.values is None else self.values


def _bounds(values: torch.Tensor) -> tuple[float, float]:
    """The smallest and the greatest value; NaN where there is one."""
    least, greatest = torch.aminmax(values.detach())
    return least.item(), greatest.item()


def _name(values: torch.Tensor) -> str:
    """The element type as NumPy would call it."""
    return str(values.dtype).removeprefix("torch.")
