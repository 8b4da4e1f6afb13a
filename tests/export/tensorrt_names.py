"""The names of TensorRT, read off its bindings without its libraries, which the public index does not have.

The bindings look their libraries' nine functions up by name when they are loaded. Empty functions of those names, made
with gcc, let them load; nothing of TensorRT can run, but every class with its methods and their signatures is there.

    pip download --no-deps tensorrt_cu13_bindings==11.4.0.106
    python tests/export/tensorrt_names.py tensorrt_cu13_bindings-11.4.0.106-cp311-none-manylinux_2_28_x86_64.whl

Writes tensorrt_names.json beside this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

NAMES = Path(__file__).with_suffix(".json")
LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")
CLASSES = (
    "Builder",
    "BuilderFlag",
    "ComputeCapability",
    "DataType",
    "EngineInvalidityDiagnostics",
    "EngineValidity",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorLocation",
)
"""Those that the package touches; where a flavour does not have one it is left out."""


def described(module: Any) -> dict[str, Any]:
    """Names at the top of a module, and of `CLASSES` every name with the signature of what can be called."""
    found = {name: getattr(module, name) for name in CLASSES if hasattr(module, name)}
    return {
        "top": sorted(name for name in dir(module) if not name.startswith("_")),
        "classes": {name: _members(each) for name, each in found.items()},
    }


def _members(each: Any) -> dict[str, str]:
    return {
        name: _signature(getattr(each, name))
        for name in sorted(dir(each))
        if not name.startswith("_") or name == "__init__"
    }


def _signature(member: Any) -> str:
    """As pybind11 writes it, without the name of the module; overloads one after the other; "" for no method."""
    lines = (getattr(member, "__doc__", None) or "").splitlines() if callable(member) else []
    signatures = [re.sub(r"^\d+\. ", "", line) for line in lines if re.match(r"(\d+\. )?\w+\(.*\) -> ", line)]
    return "; ".join(re.sub(r"\btensorrt\w*\.tensorrt\w*\.", "", line) for line in signatures)


def main(wheel: Path) -> None:
    """Unpacks, makes the libraries, and reads in another process: the loader must know where they are at its start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        binary = next(folder.glob("tensorrt_bindings/tensorrt.so"))
        symbols = subprocess.run(
            ["nm", "-D", "--undefined-only", binary], check=True, capture_output=True, text=True
        ).stdout
        missing = re.findall(r" U (\w*(?:Infer|NvOnnx|Plugin)\w*)$", symbols, flags=re.MULTILINE)
        source = "".join(f"void *{each}(void) {{ return 0; }}\n" for each in missing)
        for library in LIBRARIES:
            _compile(source if library == LIBRARIES[0] else "", folder / library)
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}
        command = [sys.executable, __file__, "--read"]
        read = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    origin = {"wheel": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    NAMES.write_text(json.dumps({**origin, **json.loads(read)}, indent=1) + "\n", encoding="utf-8")


def _compile(source: str, library: Path) -> None:
    command = ["gcc", "-shared", "-fPIC", "-x", "c", f"-Wl,-soname,{library.name}", "-o", str(library), "-"]
    subprocess.run(command, input=source, text=True, check=True)


def read() -> None:
    """Writes what the bindings hold to stdout."""
    import tensorrt_bindings

    sys.stdout.write(json.dumps({"version": tensorrt_bindings.__version__, **described(tensorrt_bindings)}))


if __name__ == "__main__":
    read() if sys.argv[1] == "--read" else main(Path(sys.argv[1]))
