from __future__ import annotations

import copy

import torch
from torch import nn

from mergevq.models.frozen import EvalOnly, Frozen


def test_frozen_hides_the_network_from_its_owner():
    network, owner = nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.Linear(3, 3)
    owner.helper = Frozen(network)
    assert len(list(owner.parameters())) == 2 and set(owner.state_dict()) == {"weight", "bias"}
    owner.train()
    assert not network.training and not network[1].training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_gradient_passes_through_to_the_inputs():
    inputs = torch.ones(1, 2, requires_grad=True)
    Frozen(nn.Linear(2, 1))(inputs).sum().backward()
    assert inputs.grad.abs().sum() > 0


def test_follows_its_input_to_another_device():
    frozen = Frozen(nn.Linear(2, 1))
    assert frozen(torch.zeros(1, 2, device="meta")).device.type == "meta"


def test_copies_of_the_owner_share_the_network():
    owner = nn.Linear(1, 1)
    owner.helper = Frozen(nn.Linear(1, 1))
    assert copy.deepcopy(owner).helper.network is owner.helper.network


def test_eval_only_ignores_its_owner():
    class Network(EvalOnly):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout()

    owner = nn.Sequential(Network())
    owner.train()
    assert not owner[0].training and not owner[0].dropout.training
