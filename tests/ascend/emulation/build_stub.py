"""Stub libraries in place of CANN, so that the genuine torch_npu imports and works on a machine without it.

In: an installed torch_npu, and the system's C compiler. Out: a folder for LD_LIBRARY_PATH. Every symbol that
torch_npu asks for and nobody defines is made up: functions of the C interface refuse aloud, except settings; C++
ones, which only the graph compiler reaches, return 0. All are in one library, on which those that torch_npu opens
by name depend, so that there is one state however it is reached.
"""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
SHARED = "libascend_emulation.so"
NAMES = ("ascendcl", "hccl", "acl_op_compiler", "ge_runner", "graph", "acl_tdt_channel")
SYSTEM = ("c", "m", "stdc++", "gcc_s", "dl", "pthread", "rt")

_SETTINGS = re.compile(r"acl(rt|op|mdl|prof)?(Ctx)?(Set|Init|Finalize|Destroy)")
"""What may be taken without a word: it computes nothing."""

# Names that torch_npu looks up at run time: strings of it that are a function's name and nothing else.
_LOOKED_UP = re.compile(rb"\x00((?:acl(?!nn)[a-z]*|Hccl)[A-Z][A-Za-z0-9]*)(?=\x00)")
# Python's, the compiler's, and those of libraries that torch_npu can do without.
_OTHERS = re.compile(r"Py|_Py|__|_ITM|_ZTH|_ZN3atb")


def build(out: Path) -> Path:
    """Compiles the libraries.

    Args:
        out: where to; made where it is missing.

    Returns:
        The folder, for LD_LIBRARY_PATH.

    Raises:
        RuntimeError: the compiler failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    objects = [out / "acl_host.o", out / "hccl_host.o"]
    for made in objects:
        _compile("-O2", "-c", HERE / f"{made.stem}.c", "-o", made)
    missing = wanted() - set().union(*(_symbols(made, "--defined-only", dynamic=False) for made in objects))
    (out / "stubs.c").write_text(_stubs(missing))
    _compile("-I", HERE, "-shared", out / "stubs.c", *objects, "-lrt", "-o", out / SHARED)
    for name in NAMES:
        _alias(out, name)
    return out


def build_refusing_kernels(libraries: Path, out: Path) -> Path:
    """A folder with libopapi.so, in which every kernel that torch_npu looks up is there and refuses.

    Args:
        libraries: of `build`.
        out: where to; before `libraries` in LD_LIBRARY_PATH.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = sorted(_strings(_library(), re.compile(rb"\x00(aclnn[A-Z][A-Za-z0-9]*)(?=\x00)")))
    (out / "opapi_names.h").write_text("".join(f"REFUSE({name})\n" for name in names))
    source = HERE / "opapi_refusing.c"
    _compile("-I", out, "-I", HERE, "-shared", source, *_linked(libraries), "-o", out / "libopapi.so")
    return out


def wanted() -> set[str]:
    """The symbols that torch_npu needs and nothing that it is loaded with defines."""
    package = _site("torch_npu")
    own = [*package.glob("lib/*.so"), *package.glob("_C*.so")]
    asked = set().union(*(_symbols(path, "--undefined-only") for path in own))
    asked |= _strings(_library(), _LOOKED_UP)
    there = [*own, *_site("torch").glob("lib/*.so"), *_system_libraries()]
    asked -= set().union(*(_symbols(path, "--defined-only") for path in there))
    return {symbol for symbol in asked if not _OTHERS.match(symbol)}


def _stubs(symbols: set[str]) -> str:
    """C source that defines them."""
    lines = ['#include "refusal.h"']
    for number, symbol in enumerate(sorted(symbols)):
        refuses = symbol.startswith(("acl", "Hccl")) and not _SETTINGS.match(symbol)
        answer = f'emu_refuse("{symbol}")' if refuses else "0"
        lines.append(f'long stub_{number}(void) __asm__("{symbol}");')
        lines.append(f"long stub_{number}(void) {{ return {answer}; }}")
    return "\n".join(lines) + "\n"


def _alias(out: Path, name: str) -> None:
    """A library without content that depends on the one that has it all."""
    library = f"lib{name}.so"
    empty = out / "empty.c"
    empty.write_text("")
    _compile("-shared", empty, f"-Wl,-soname,{library}", *_linked(out), "-o", out / library)


def _linked(out: Path) -> list[str]:
    return ["-Wl,--no-as-needed", f"-L{out}", f"-l:{SHARED}", "-Wl,-rpath,$ORIGIN"]


def _compile(*arguments: str | Path) -> None:
    command = ["gcc", "-w", "-fPIC", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[:2000]}")


def _symbols(path: Path, which: str, *, dynamic: bool = True) -> set[str]:
    """Symbols of an object or library, without their versions."""
    command = ["nm", *(["-D"] if dynamic else []), which, str(path)]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines if line.strip()}


def _strings(path: Path, pattern: re.Pattern[bytes]) -> set[str]:
    return {found.decode() for found in pattern.findall(path.read_bytes())}


def _library() -> Path:
    return _site("torch_npu") / "lib" / "libtorch_npu.so"


def _site(package: str) -> Path:
    return Path(sysconfig.get_paths()["purelib"]) / package


def _system_libraries() -> list[Path]:
    """The C and C++ run-time libraries, wherever the compiler has them."""
    names = [f"lib{name}.so{version}" for name in SYSTEM for version in ("", ".1", ".2", ".6")]
    asked = (
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in names
    )
    return [Path(path) for path in asked if "/" in path]
