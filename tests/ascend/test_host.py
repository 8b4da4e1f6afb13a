"""A training step stays on the card: no operator of it computes on the host, and the host waits once a step.

torch_npu has kernels that copy to the host, compute there and copy back, without a word: `scatter_reduce` other than
a sum, for one. The steps of all stages are recorded, and each call of them is made again in a process in which
torch_npu's own kernels run and CANN refuses everything: a call that is not refused has computed on the host.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch
from calls import Recorder
from tiny_runs import generator_run, tokenizer_run, train

from mergevq.training.engine.stepping import SteppedTraining

LIBRARIES = Path(os.environ["EMU_NPU_LIBRARIES"])
REFUSING_KERNELS = LIBRARIES.with_name("opapi")
REPLAY = Path(__file__).with_name("replay.py")
STEPS = 3
KINDS = ["tokenizer", "raster", "merge_ar", "rand_ar"]
FOUND = "on the host"  # as replay.py says it
SLOW_SORTS = {torch.int32, torch.int64, torch.bool, torch.bfloat16}
"""Sorted by the card's CPU, or not at all."""


@pytest.fixture(scope="module", params=itertools.product(KINDS, ("32", "bf16")), ids="-".join)
def record(request, token_home, tmp_path_factory):
    """The calls of a few steps of a stage."""
    kind, precision = request.param
    changes = {"train.steps": STEPS, "train.precision": precision, "train.validate_every": 1000}
    config = tokenizer_run(**changes) if kind == "tokenizer" else generator_run(token_home, kind, **changes)
    recorder = Recorder()
    step = SteppedTraining.training_step

    def recorded(self, batch, index):
        with recorder:
            step(self, batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SteppedTraining, "training_step", recorded)
        train(config, tmp_path_factory.mktemp("run") / "run", "npu")
    assert len(recorder.calls) > 100
    return recorder


def computed_on_the_host(recorder, run_python, folder):
    """What each recorded call that did was, and where it was made."""
    calls = {number: call for number, (call, _) in enumerate(recorder.calls.values())}
    places = [place for _, place in recorder.calls.values()]
    torch.save(calls, folder / "calls.pt")
    genuine = {"EMU_NPU_KERNELS": "0", "LD_LIBRARY_PATH": f"{REFUSING_KERNELS}:{LIBRARIES}"}
    done = run_python(REPLAY, folder / "calls.pt", check=False, **genuine)
    assert done.returncode == 0, done.stderr[-2000:]
    reports = [line.removeprefix(FOUND) for line in done.stdout.splitlines() if line.startswith(FOUND)]
    lines = (line.partition(": ") for line in reports)
    return [f"{places[int(number)]}: {calls[int(number)]} {outcome}" for number, _, outcome in lines]


def test_no_operator_computes_on_the_host(record, run_python, tmp_path):
    found = computed_on_the_host(record, run_python, tmp_path)
    assert not found, "\n".join(found)


def test_one_that_does_is_found(run_python, tmp_path):
    x, index = torch.zeros(2, 4, device="npu"), torch.zeros(2, 4, dtype=torch.int64, device="npu")
    with Recorder() as recorder:
        x.scatter_reduce(1, index, x, "amax")
        x.cos()
    found = computed_on_the_host(recorder, run_python, tmp_path)
    assert len(found) == 1 and "scatter_reduce" in found[0]


def has_kernel(operator):
    """Whether torch_npu has a kernel for it in any overload, or PyTorch takes it apart for any device."""
    space, _, rest = operator.partition("::")
    base = rest.partition(".")[0]
    overloads = getattr(getattr(torch.ops, space), base).overloads()
    names = [f"{space}::{base}" if name == "default" else f"{space}::{base}.{name}" for name in overloads]
    known = set(torch._C._dispatch_get_all_op_names())  # others exist for TorchScript alone
    keys = ("PrivateUse1", "CompositeImplicitAutograd", "CompositeExplicitAutograd")
    found = torch._C._dispatch_has_kernel_for_dispatch_key
    return any(found(name, key) for name in names if name in known for key in keys)


def test_every_operator_has_a_kernel(record):
    assert not has_kernel("aten::lgamma"), "then the test proves nothing"
    assert {call.operator for call, _ in record.calls.values() if not has_kernel(call.operator)} == set()


def test_the_host_waits_once_a_step(record):
    assert len(record.waits) == STEPS and all("(_step)" in place for place in record.waits), record.waits


def test_no_type_is_one_that_the_card_lacks(record):
    for call, place in record.calls.values():
        for shape in call.shapes:
            if shape.device == "npu":
                assert shape.dtype != torch.float64 and not shape.dtype.is_complex, (place, call)


def test_sorts_are_of_types_that_the_card_sorts(record):
    for call, place in record.calls.values():
        if call.operator.startswith(("aten::sort", "aten::argsort", "aten::topk")):
            assert call.shapes[0].dtype not in SLOW_SORTS, (place, call)


def test_no_mask_is_an_index(record):
    for call, place in record.calls.values():
        if call.operator.startswith(("aten::index.", "aten::index_put")):
            assert all(shape.dtype != torch.bool for shape in call.shapes[1:]), (place, call)
