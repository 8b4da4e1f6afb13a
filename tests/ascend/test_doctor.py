"""`mergevq doctor` on a machine with an NPU, and on one whose NPU has a library missing."""

from __future__ import annotations

import json

from mergevq.backends import operators


def test_doctor_names_the_npu(run_python):
    done = run_python("-m", "mergevq", "doctor", "--device", "npu", "--json")
    found = json.loads(done.stdout)
    assert found["verdict"] == "usable" and found["selected"]["device"] == "npu"
    assert found["devices"]["npu"]["usable"] and "Ascend910B2" in json.dumps(found["devices"]["npu"])
    assert set(found["operators"]["npu"]) == set(operators())
    assert found["operators"]["npu"]["rms_norm"]["takes"] == "npu_rms_norm"


def test_the_npu_is_what_auto_takes(run_python):
    done = run_python("-m", "mergevq", "doctor", "--json")
    assert json.loads(done.stdout)["selected"]["device"] == "npu"


def test_without_a_card_the_doctor_says_so(run_python):
    done = run_python("-m", "mergevq", "doctor", "--device", "npu", check=False, EMU_NPU_COUNT="0")
    assert done.returncode == 2
    assert "npu cannot be used" in done.stdout and "Traceback" not in done.stdout + done.stderr


def test_without_cann_the_doctor_does_not_fall_over(run_python):
    """PyTorch itself cannot be imported then, as it imports torch_npu, which needs CANN's libraries."""
    done = run_python("-m", "mergevq", "doctor", "--device", "npu", check=False, LD_LIBRARY_PATH="")
    assert done.returncode == 2
    assert "CANN" in done.stdout and "set_env.sh" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
