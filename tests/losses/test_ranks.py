from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from mergevq.losses.lecam import LeCam
from mergevq.losses.ranks import mean_over_ranks

OTHER_RANK = """
import sys
import torch
import torch.distributed as dist

dist.init_process_group("gloo", init_method=sys.argv[1], rank=1, world_size=2)
dist.all_reduce(torch.tensor([3.0, 30.0]))
dist.all_reduce(torch.tensor([1.0, 4.0]))
dist.destroy_process_group()
"""


@pytest.fixture
def other_rank(tmp_path):
    """A second rank, which adds (3, 30) to the first reduction and (1, 4) to the second."""
    store = f"file://{tmp_path}/store"
    process = subprocess.Popen([sys.executable, "-c", OTHER_RANK, store])
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=2, timeout=timedelta(seconds=60))
    yield
    dist.destroy_process_group()
    assert process.wait(timeout=60) == 0


@pytest.mark.usefixtures("other_rank")
def test_two_ranks_agree_on_the_mean():
    value = torch.tensor([1.0, 10.0])
    assert mean_over_ranks(value).tolist() == [2.0, 20.0]
    assert value.tolist() == [1.0, 10.0]

    lecam = LeCam(decay=0.0)
    lecam.update(torch.zeros(2), torch.zeros(2))
    assert (lecam.ema_real.item(), lecam.ema_fake.item()) == (0.5, 2.0)


def test_alone_the_value_is_its_own_mean():
    value = torch.tensor([1.0, 2.0])
    assert mean_over_ranks(value) is value
