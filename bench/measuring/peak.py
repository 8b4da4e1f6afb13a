"""Peak memory of one case, in a process that does nothing else; one without PyTorch where graphs run without it.

    python -m mergevq.bench.measuring.peak \
        '{"folder": "deployed", "task": "encode", "keep": 144, "batch": 1, "threads": 2}'

The number is the most that the process ever had in memory: interpreter, libraries, weights, and a single call.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mergevq
from mergevq.bench.subjects import inputs

STATUS = Path("/proc/self/status")
_TIMEOUT = 600


def peak_memory(case: Mapping[str, Any]) -> dict[str, int]:
    """What a case takes.

    Args:
        case: task (encode, decode, roundtrip or images), keep, batch, threads, and either the folder, provider and
            runtime of graphs, or the subject, runtime and precision of a model of PyTorch.

    Returns:
        peak_bytes of the process, and device_peak_bytes of an accelerator where PyTorch ran on one; nothing where
        this system does not tell.

    Raises:
        subprocess.CalledProcessError: the case fails.
    """
    command = [sys.executable, "-m", "mergevq.bench.measuring.peak", json.dumps(case)]
    home = str(Path(mergevq.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={**os.environ, "PYTHONPATH": path},
    )
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def resident(field: str) -> int:
    """A line of /proc/self/status, such as VmRSS or VmHWM, in bytes."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024


def _graphs(case: Mapping[str, Any]) -> None:
    load: Any = mergevq.load  # its overloads want the name of the run time spelt out
    settings = {name: case[name] for name in ("provider", "threads") if name in case}  # TensorRT has neither
    model = load(case["folder"], runtime=case["runtime"], **settings)
    if case["task"] == "images":
        model.generate(np.arange(case["batch"]) % model.config.classes)
        return
    images = inputs.noise(model.config, case["batch"])
    tokens = inputs.random_tokens(model.config, case["keep"], case["batch"])
    if case["task"] != "decode":
        tokens = model.encode(images, case["keep"])
    if case["task"] != "encode":
        model.decode(tokens)


def _pytorch(case: Mapping[str, Any]) -> dict[str, int]:
    import torch

    from mergevq.backends import select
    from mergevq.bench.subjects import runtimes

    device = select()
    torch.set_num_threads(case["threads"])
    where = runtimes.Where(device, case["threads"], Path())
    if case["task"] == "images":
        opened = runtimes.open_generator(case["subject"], case["runtime"], case["precision"], where)
        runtimes.images_call(opened, case["batch"], device)()
    else:
        opened = runtimes.open_tokenizer(case["subject"], case["runtime"], case["precision"], where)
        runtimes.tokenizer_call(case["task"], opened, case["keep"], case["batch"], where)()
    if device.name == "cpu":
        return {}
    return {"device_peak_bytes": torch.accelerator.max_memory_allocated()}


def main() -> int:
    """Runs the case of the command line once, and prints what it took."""
    case = json.loads(sys.argv[1])
    if "folder" in case:
        found: dict[str, int] = {}
        _graphs(case)
    else:
        found = _pytorch(case)
    if STATUS.exists():  # not getrusage, whose mark begins at that of the parent
        found["peak_bytes"] = resident("VmHWM")
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
