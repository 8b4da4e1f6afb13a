"""Networks that are used and never trained: the perceptual network and the teachers.

`EvalOnly` keeps a network in evaluation mode; `Frozen` hides one from the module that uses it, so that it is
in no state dict, optimiser, parameter count or distributed wrapper.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class EvalOnly(nn.Module):
    """A base class for networks that stay in evaluation mode, whatever mode their owner is in."""

    def train(self, mode: bool = True) -> EvalOnly:
        """Stay in evaluation mode: without it an owner's `.train()` would switch dropout on again."""
        return super().train(False)


def freeze(network: ModuleT) -> ModuleT:
    """The same network in evaluation mode, none of its parameters asking for a gradient."""
    return network.eval().requires_grad_(False)


class Frozen:
    """A reference to a network that is not a submodule of the module that holds it.

    `self.teacher = Frozen(network)` in a module leaves its parameters and its state dict as they were, as
    this is no `nn.Module`. It is called like the network, which follows its first input to whichever device
    that is on. Gradient still reaches the inputs. A deep copy of the owner shares the network.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = freeze(network)

    def __call__(self, inputs: torch.Tensor, *others: Any) -> Any:
        """The network's output on the device of `inputs`."""
        self.network.to(inputs.device)
        return self.network(inputs, *others)

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self
