"""ONNX Runtime says nothing to anybody: no number of the machine is kept, no database of events."""

from __future__ import annotations

import os
from pathlib import Path

OPENED = """
from onnx import TensorProto, helper
from mergevq.export.runtime.providers import runtime_module

value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
runtime_module().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print("opened")
"""


def test_nothing_is_left_in_the_users_folders(tmp_path: Path, run_python) -> None:
    """Where continuous integration is not what keeps it quiet."""
    home = Path(__file__).parents[3]
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    result = run_python("-c", OPENED, env={**kept, "HOME": str(tmp_path), "PYTHONPATH": str(home)})
    assert result.stdout.strip() == "opened", result.stderr
    assert list(tmp_path.iterdir()) == []
