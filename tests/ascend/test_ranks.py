"""Two ranks through the genuine ProcessGroupHCCL train what two ranks over gloo do, from the command line.

The processor is a 950 here: for those before it ProcessGroupHCCL pads with a kernel of CANN, which is refused.
"""

from __future__ import annotations

import pytest
import torch
import yaml
from tiny_runs import furthest, generator_run, tokenizer_run, trained, weights

import mergevq
from mergevq.config import to_dict

ASCEND = {"EMU_NPU_COUNT": "2", "EMU_NPU_SOC": "Ascend950PR_9589"}


@pytest.mark.parametrize("kind", ["tokenizer", "merge_ar"])
def test_two_ranks_equal_two_over_gloo(kind, token_home, run_python, tmp_path):
    stage = "tokenizer" if kind == "tokenizer" else "generator"
    changes = {"train.steps": 4}
    config = tokenizer_run(**changes) if stage == "tokenizer" else generator_run(token_home, kind, **changes)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    for device, settings in (("cpu", {}), ("npu", ASCEND)):
        command = ("-m", "mergevq", "train", stage, "--config", tmp_path / "run.yaml")
        run_python(*command, "--out", tmp_path / device, "--device", device, "--devices", "2", **settings)
    cpu, npu = weights(tmp_path / "cpu"), weights(tmp_path / "npu")
    assert furthest(trained(cpu), trained(npu)) < 1e-5
    state = torch.load(tmp_path / "npu/checkpoints/last.ckpt", weights_only=True)["mergevq"]
    assert state["steps_done"] == 4
    mergevq.load(tmp_path / "npu")


COLLECTIVES = """
import sys
import torch
import torch.distributed as dist

rank = int(sys.argv[1])
torch.npu.set_device(rank)
store = dist.FileStore(sys.argv[2], 2)
dist.init_process_group("hccl", store=store, rank=rank, world_size=2)
for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32):
    mine = torch.arange(5, dtype=dtype, device="npu") + rank
    for op, wanted in ((dist.ReduceOp.SUM, [1, 3, 5, 7, 9]), (dist.ReduceOp.MAX, [1, 2, 3, 4, 5])):
        value = mine.clone()
        dist.all_reduce(value, op)
        assert value.tolist() == wanted, (dtype, value)
    parts = [torch.empty_like(mine) for _ in range(2)]
    dist.all_gather(parts, mine)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]], dtype
    dist.broadcast(mine, 1)
    assert mine.tolist() == [1, 2, 3, 4, 5], dtype
large = torch.full((9_000_000,), float(rank), device="npu")  # more than a slot of the emulated HCCL
dist.all_reduce(large)
assert bool((large == 1).all())
scattered = torch.empty(2, device="npu")
dist.reduce_scatter_tensor(scattered, torch.arange(4.0, device="npu"))
assert scattered.tolist() == [[0, 2], [4, 6]][rank]
mean = torch.full((3,), float(rank), device="npu")
dist.all_reduce(mean, dist.ReduceOp.AVG)
assert mean.tolist() == [0.5] * 3
dist.barrier(device_ids=[rank])
dist.destroy_process_group()
"""


def test_collectives_of_every_type(run_python, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def rank(number):
        return run_python("-c", COLLECTIVES, number, tmp_path / "store", **ASCEND)

    with ThreadPoolExecutor(2) as pool:
        assert [done.returncode for done in pool.map(rank, ["0", "1"])] == [0, 0]
