"""What doctor finds below an NPU, and the first thing that it would do about it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from mergevq.cli.doctor import ascend
from mergevq.cli.doctor.ascend import CANN_OF, AscendStack, cann_version, look, set_env

MISSING = {"libhccl.so": "libhccl.so: cannot open shared object file"}


@pytest.fixture(autouse=True)
def _no_cann(monkeypatch):
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("stack", "remedy"),
    [
        (AscendStack("2.12.1", None, None, MISSING, None), 'pip install "mergevq[npu]" torch-npu==2.12.*'),
        (AscendStack(None, None, None, MISSING, None), 'pip install "mergevq[npu]"'),
        (AscendStack("2.14.0", "2.13.0", None, MISSING, None), 'pip install "torch==2.13.*"'),
        (AscendStack("2.12.0", "2.12.0", None, MISSING, None), "source /"),
        (AscendStack("2.12.0", "2.12.0", "9.1.0", {}, None), "install the Ascend driver"),
        (AscendStack("2.12.0", "2.12.0", "8.5.0", {}, "8 cards"), "install CANN 9.1.0"),
        (AscendStack("2.12.0", "2.12.0", "9.1.0", {}, "8 cards"), "see what `npu-smi info`"),
    ],
)
def test_the_first_thing_to_do(stack, remedy):
    assert stack.remedy().startswith(remedy)
    assert all(isinstance(value, str) and value for value in stack.shown().values())


def test_versions_that_belong_together_are_no_mismatch():
    assert AscendStack("2.8.0", "2.8.0", "8.3.rc1", {}, None).mismatches() == []
    assert AscendStack("2.13.0", "2.13.0", "9.9.9", {}, None).mismatches() == []  # not in the table
    assert len(AscendStack("2.9.0", "2.8.0", "9.1.0", {}, None).mismatches()) == 2


@pytest.mark.parametrize(
    ("name", "text", "version"),
    [
        (
            "{}-linux/ascend_toolkit_install.info",
            "package_name=Ascend-cann-toolkit\nversion=8.3.RC1\n",
            "8.3.RC1",
        ),
        ("{}-linux/ascend_toolkit_install.info", "version=9.1.0\ninnerversion=V100\n", "9.1.0"),
        ("version.cfg", "[TOOLKIT]\ntoolkit_running_version=[7.0.0.5.242:8.0.RC2]\n", "8.0.RC2"),
        ("version.cfg", "nothing", None),
        ("elsewhere", "version=9.1.0", None),
    ],
)
def test_the_version_of_cann(tmp_path, monkeypatch, name, text, version):
    path = tmp_path / name.format(platform.machine())
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert cann_version() is None
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    assert cann_version() == version


def test_the_script_that_is_there_is_named(tmp_path, monkeypatch):
    assert set_env().endswith("set_env.sh")
    home = tmp_path / "ascend-toolkit" / "latest"
    home.mkdir(parents=True)
    (tmp_path / "ascend-toolkit" / "set_env.sh").touch()
    monkeypatch.setenv("ASCEND_HOME_PATH", str(home))
    assert set_env() == str(tmp_path / "ascend-toolkit" / "set_env.sh")


def test_looking_loads_libraries_elsewhere(monkeypatch):
    monkeypatch.setattr(ascend, "LIBRARIES", ("libno_such_thing.so", "libc.so.6"))
    stack = look("2.12.0", "2.12.0", None)
    assert list(stack.missing) == ["libno_such_thing.so"] and "no_such_thing" in stack.shown()["libraries"]


def test_the_page_for_clusters_has_the_same_table():
    page = Path(__file__).resolve().parents[3] / "docs" / "clusters" / "ascend.md"
    rows = [line.strip("|").split("|") for line in page.read_text().splitlines() if line.startswith("| 2.")]
    shown = {version.strip(): cann.strip() for versions, cann in rows for version in versions.split(",")}
    assert shown == CANN_OF
