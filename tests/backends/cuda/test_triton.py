"""The Triton kernels without a GPU: their results in Triton's interpreter, and whether they compile for one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

# The functions that launch kernels run as they are, on tensors of the CPU. Only the last step is missing: what
# stands for the driver names a GPU that is not there, and every kernel is compiled and not launched.
COMPILE = """
import json, os, sys
os.environ["TRITON_CACHE_DIR"], os.environ["TRITON_INTERPRET"] = sys.argv[2], "0"
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

class Card:
    def get_current_target(self):
        return GPUTarget("cuda", int(sys.argv[1]), 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

triton.runtime.driver.set_active(Card())
launch, shared = JITFunction.run, {}

def compile_only(self, *args, **options):
    kernel = launch(self, *args, **{**options, "warmup": True})
    assert kernel.asm["cubin"]
    shared[self.__name__] = max(kernel.metadata.shared, shared.get(self.__name__, 0))

JITFunction.run = compile_only
from mergevq.backends.cuda import triton_decode, triton_lfq, triton_match, triton_merge

for dtype in (torch.float32, torch.bfloat16):
    query, cache = torch.zeros(1, 16, 1, 64, dtype=dtype), torch.zeros(1, 16, 300, 64, dtype=dtype)
    triton_decode.decode_attention(query, cache, cache, torch.ones(1, 1, 300, dtype=torch.bool))
    triton_decode.decode_attention(query, cache[:, :, :7], cache[:, :, :7], None)
    triton_match.bipartite_match(torch.zeros(1, 257, 64, dtype=dtype), 20, 1)
    x, assign = torch.zeros(1, 257, 768, dtype=dtype, requires_grad=True), torch.arange(257)[None]
    triton_merge.merge(x, torch.ones(1, 257), assign, 257)[0].sum().backward()
triton_match.bipartite_match(torch.zeros(1, 257, 128), 20, 1)
logits = torch.zeros(8, 18, requires_grad=True)
triton_lfq.half_distribution(logits[:, :9]).sum().backward()
print(json.dumps(shared))
"""

INTERPRET = """
import os, sys
os.environ["TRITON_INTERPRET"] = "1"
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-o", "pythonpath=", sys.argv[1]]))
"""

KERNELS = {
    *("_attend", "_combine", "_normalise", "_propose", "_join", "_number"),
    *("_list_members", "_gather", "_spread", "_distribute", "_gradient"),
}


def test_results_in_the_interpreter(run_python):
    ran = run_python("-c", INTERPRET, str(Path(__file__).with_name("triton_kernels.py")))
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]


@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles(run_python, tmp_path, capability):
    ran = run_python("-c", COMPILE, str(capability), str(tmp_path / "kernels"))
    assert ran.returncode == 0, ran.stderr[-4000:]
    shared = json.loads(ran.stdout)
    assert set(shared) == KERNELS
    assert max(shared.values()) <= 99 * 1024  # what a block of threads may have on the smallest of these GPUs
