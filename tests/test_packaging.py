"""The wheel and the source distribution hold what they should, and nothing lands beside `mergevq`."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINKED = [name for name in ("backends", "export", "bench") if (ROOT / name / "__init__.py").exists()]
FILES = ["pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "tox.ini", "toxfile.py", "constraints.txt"]
DATA = (".py", ".yaml", ".json")
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cuda": "cuda-bindings",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
NEVER_IMPORTED = {
    "scikit-image": "its photographs are a built-in data set",
    "torchvision": "timm imports it, and which one there may be depends on PyTorch",
    "tensorboard": "Lightning imports it where a run asks for its log",
}
"""Dependencies that the package names and has another reason for."""


def source_files() -> Iterator[tuple[str, Path]]:
    """Every file that belongs in a wheel: its name there, and where it is in the checkout."""
    for top, prefix in [("mergevq", "mergevq"), *((name, f"mergevq/{name}") for name in LINKED)]:
        for path in sorted((ROOT / top).rglob("*")):
            relative = path.relative_to(ROOT / top)
            inside_link = top == "mergevq" and relative.parts[0] in LINKED
            if path.is_file() and not inside_link and (path.suffix in DATA or path.name == "py.typed"):
                yield f"{prefix}/{relative.as_posix()}", path


class Built(NamedTuple):
    """What the build made."""

    wheel: Path
    sdist: Path
    wheel_from_sdist: Path


def build(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Distributions of a copy of the checkout, so that no build folder is left in the checkout itself."""
    copy = tmp_path_factory.mktemp("build") / "mergevq"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ["mergevq", "tests", *LINKED]:
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignore)
    for name in FILES:
        shutil.copy2(ROOT / name, copy / name)
    build("--wheel", "--outdir", copy / "direct", copy)
    build("--outdir", copy / "both", copy)
    return Built(
        next((copy / "direct").glob("*.whl")),
        next((copy / "both").glob("*.tar.gz")),
        next((copy / "both").glob("*.whl")),
    )


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture
def unpacked(built: Built, tmp_path: Path) -> Path:
    """The wheel's content, as it would lie in site-packages."""
    with zipfile.ZipFile(built.wheel) as archive:
        archive.extractall(tmp_path / "site")
    return tmp_path / "site"


def test_every_folder_with_an_init_is_listed():
    folders = {name.rpartition("/")[0] for name, _ in source_files() if name.endswith("/__init__.py")}
    assert {name.replace("/", ".") for name in folders} == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_folder_of_modules_has_an_init():
    names = {name for name, _ in source_files()}
    folders = {name.rpartition("/")[0] for name in names if name.endswith(".py")}
    assert {folder for folder in folders if f"{folder}/__init__.py" not in names} == set()


def test_linked_folders_are_mapped():
    expected = {"mergevq": "mergevq"} | {f"mergevq.{name}": name for name in LINKED}
    assert PROJECT["tool"]["setuptools"]["package-dir"] == expected


@pytest.mark.parametrize("name", LINKED)
def test_links_lead_to_the_folders(name):
    link = ROOT / "mergevq" / name
    if not link.is_symlink():
        if not link.exists() or link.is_file():
            pytest.skip("a source distribution, or a checkout with core.symlinks=false, has no links")
        pytest.fail(f"{link} is a folder of its own; it should be a link to ../{name}")
    assert link.readlink() == Path("..") / name


def test_wheel_holds_every_source_file_and_no_other(built):
    found = {name for name in wheel_names(built.wheel) if ".dist-info/" not in name}
    assert found == {name for name, _ in source_files()}


def test_wheel_has_one_top_level_package(built):
    tops = {name.partition("/")[0] for name in wheel_names(built.wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mergevq"}


def test_wheel_from_the_sdist_is_the_same(built):
    with zipfile.ZipFile(built.wheel) as direct, zipfile.ZipFile(built.wheel_from_sdist) as through:
        assert sorted(direct.namelist()) == sorted(through.namelist())
        for name in direct.namelist():
            if ".dist-info/" not in name:
                assert direct.read(name) == through.read(name), name


def test_sdist_holds_what_the_tests_need(built):
    with tarfile.open(built.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    tests = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    missing = (tests | set(FILES) | {path.relative_to(ROOT).as_posix() for _, path in source_files()}) - names
    assert missing == set()


def test_wheel_carries_licence_and_entry_points(unpacked):
    info = next(unpacked.glob("*.dist-info"))
    assert (info / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    points = configparser.ConfigParser(delimiters="=")
    points.read(info / "entry_points.txt", encoding="utf-8")
    assert points["console_scripts"]["mergevq"] == "mergevq.cli:main"
    assert "mergevq.devices" not in points  # the package's own devices are found as folders


def test_scripts_lead_somewhere():
    for name, target in PROJECT["project"]["scripts"].items():
        module, _, attribute = target.partition(":")
        assert hasattr(importlib.import_module(module), attribute), f"{name} = {target}"


def test_unpacked_wheel_runs_from_another_directory(unpacked, run_python, tmp_path):
    environment = {"PYTHONPATH": str(unpacked), "PATH": "", "OMP_NUM_THREADS": "1"}
    code = "import mergevq, mergevq.backends; print(mergevq.__file__); print(mergevq.backends.__file__)"
    found = run_python("-c", code, env=environment)
    assert found.returncode == 0, found.stderr
    assert all(Path(line).is_relative_to(unpacked) for line in found.stdout.splitlines())
    helped = run_python("-m", "mergevq", "--help", env=environment)
    assert helped.returncode == 0, helped.stderr
    assert "usage: mergevq" in helped.stdout.lower()


def imported_names() -> set[str]:
    """The top-level name of everything that the package imports, at any depth."""
    found = set()
    for name, path in source_files():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"mergevq"}


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ;]", line)[0].lower().replace("_", "-") for line in requirements} - {
        "mergevq"
    }


def test_every_third_party_import_is_declared():
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = names_of([*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)])
    imported = {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in imported_names()}
    assert imported - declared == set()


def test_every_dependency_is_imported():
    project = PROJECT["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "test"}
    imported = {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in imported_names()}
    for requirements in (project["dependencies"], *extras.values()):
        assert names_of(requirements) - imported - NEVER_IMPORTED.keys() == set()
    assert NEVER_IMPORTED.keys() & imported == set()


def test_libraries_without_types_are_imported():
    excused = {name.removesuffix(".*") for name in PROJECT["tool"]["mypy"]["overrides"][0]["module"]}
    assert excused - imported_names() == set()


def test_constraints_pin_every_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[^ =]+", line)] == []
    project = PROJECT["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    assert names_of(needed) - names_of(pins) == set()
