"""Runs tests on the emulated Ascend NPU: `python tests/ascend/run.py [PYTEST ARGUMENTS]`, or `tox -e npu`.

Builds the stub libraries and starts pytest anew with them: a process finds its libraries when it starts. Where
the emulation cannot be, it says why and exits with 0.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import runpy
import shutil
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent

LIBRARIES = "EMU_NPU_LIBRARIES"
"""Environment variable that tells `conftest.py` where the stub libraries are."""

OPTIONS = (
    *("-p", "emulation.plugin"),
    *("-W", "ignore:TypedStorage is deprecated:UserWarning"),  # torch_npu's deep copy
)
"""Of pytest."""


def missing() -> str | None:
    """Why the emulation cannot be here; None where it can."""
    if sys.platform != "linux":
        return f"torch_npu runs on Linux, and this is {sys.platform}"
    absent = [name for name in ("gcc", "nm") if shutil.which(name) is None]
    if absent:
        return f"{' and '.join(absent)} cannot be found, which the stub of CANN is built with"
    try:
        torch, torch_npu = metadata.version("torch"), metadata.version("torch_npu")
    except metadata.PackageNotFoundError as error:
        return f"{error.name} is not installed"
    if torch.split(".")[:2] != torch_npu.split(".")[:2]:
        return f"torch_npu {torch_npu} does not belong to torch {torch}"
    built_for = runpy.run_path(f"{sysconfig.get_paths()['purelib']}/torch/version.py")
    if built_for.get("cuda") or built_for.get("hip"):
        return f"torch {torch} is not a CPU build, beside which torch_npu cannot be imported"
    return None


def environment(libraries: Path) -> dict[str, str]:
    """The environment of a process on the emulated NPU."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = [str(libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {
        **os.environ,
        LIBRARIES: str(libraries),
        "LD_LIBRARY_PATH": os.pathsep.join(found),
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "MERGEVQ_STRICT": "1",
        "TASK_QUEUE_ENABLE": "0",  # an error is raised where it happens
        "TORCH_NPU_FALLBACK_CPU_DISABLE": "1",  # no operator goes to the host without a word
    }


def libraries() -> Path:
    """The stub libraries: built once for these sources and this torch_npu, in the environment that has it."""
    from emulation.build_stub import HERE as sources
    from emulation.build_stub import build, build_refusing_kernels

    digest = hashlib.sha256(metadata.version("torch_npu").encode())
    for source in sorted([*sources.glob("*.[ch]"), sources / "build_stub.py"]):
        digest.update(source.read_bytes())
    home = Path(sys.prefix) / "emulated_ascend"
    folder = home / digest.hexdigest()[:16]
    if not folder.exists():
        home.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as made:
            built = build(Path(made) / "new" / "lib")
            build_refusing_kernels(built, built.with_name("opapi"))
            with contextlib.suppress(OSError):  # another process was faster
                built.parent.rename(folder)
    return folder / "lib"


def main(arguments: list[str]) -> None:
    """Builds, and becomes pytest."""
    problem = missing()
    if problem is not None:
        print(f"skipped: the tests on the emulated Ascend NPU were not run, as {problem}")
        return
    command = [sys.executable, "-m", "pytest", *OPTIONS, *(arguments or [str(HERE)])]
    found = environment(libraries())
    os.execve(sys.executable, command, found)


if __name__ == "__main__":
    main(sys.argv[1:])
