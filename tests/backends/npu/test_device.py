"""What the NPU's probe says on machines without one, each in a different way; and what Lightning is told."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from importlib import metadata

import pytest
import torch

from mergevq.backends import devices, select
from mergevq.backends import npu as backend
from mergevq.errors import DeviceUnavailableError

NPU = devices()["npu"]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_npu") is not None, reason="torch_npu is installed: see tests/ascend"
)


class Runtime:
    """Stands in for torch_npu.npu."""

    def __init__(self, count: int = 2, available: bool = True):
        self.count, self.available = count, available

    def device_count(self) -> int:
        return self.count

    def is_available(self) -> bool:
        return self.available

    def get_device_name(self, index: int) -> str:
        return f"Ascend910B{index}"


@pytest.fixture
def installed(monkeypatch):
    """Pretends that torch_npu of some version is installed."""

    def install(version: str) -> None:
        find_spec, find_version = importlib.util.find_spec, metadata.version
        spec = importlib.machinery.ModuleSpec("torch_npu", None)
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: spec if name == "torch_npu" else find_spec(name)
        )
        monkeypatch.setattr(
            metadata, "version", lambda name: version if name == "torch_npu" else find_version(name)
        )

    return install


@pytest.fixture
def working(installed, monkeypatch):
    """Pretends that torch_npu and CANN are installed, with this runtime."""

    def install(runtime: Runtime) -> None:
        installed(torch.__version__)
        module = types.ModuleType("torch_npu")
        module.npu = runtime
        monkeypatch.setitem(sys.modules, "torch_npu", module)

    return install


def test_without_torch_npu_it_says_what_to_install_and_imports_nothing(monkeypatch):
    imported = []
    monkeypatch.setattr(backend.importlib, "import_module", imported.append)
    probe = NPU.probe()
    assert not probe.usable and probe.count == 0 and imported == []
    assert "torch_npu is not installed" in probe.reason and "pip install mergevq[npu]" in probe.reason
    with pytest.raises(DeviceUnavailableError, match="device npu cannot be used: torch_npu is not installed"):
        select("npu")


def test_another_minor_version_is_named_before_it_is_imported(installed, monkeypatch):
    imported = []
    monkeypatch.setattr(backend.importlib, "import_module", imported.append)
    installed("2.1.0.post8")
    reason = NPU.probe().reason
    assert "torch_npu 2.1.0.post8 does not belong to torch" in reason and imported == []
    assert f"pip install torch_npu=={'.'.join(torch.__version__.split('.')[:2])}.*" in reason


def test_a_post_release_of_the_same_minor_version_belongs(installed):
    installed(".".join(torch.__version__.split(".")[:2]) + ".0.post6")
    assert "does not belong" not in NPU.probe().reason


def test_without_cann_it_says_which_script_to_source(installed, monkeypatch):
    imported = []
    monkeypatch.setattr(backend.importlib, "import_module", imported.append)
    installed(torch.__version__)
    reason = NPU.probe().reason
    assert "libascendcl.so" in reason and "set_env.sh" in reason and imported == []


@pytest.mark.parametrize("runtime", [Runtime(count=0), Runtime(available=False)])
def test_without_a_card_it_names_the_vendors_tool(working, runtime):
    working(runtime)
    assert "npu-smi info" in NPU.probe().reason and not NPU.probe().usable


def test_a_card_that_cannot_allocate_is_not_usable(working, monkeypatch):
    working(Runtime())

    def broken(*_, **__):
        raise RuntimeError("driver is not ready\nlong trace")

    monkeypatch.setattr(torch, "zeros", broken)
    probe = NPU.probe()
    assert not probe.usable and probe.reason.endswith("cannot be used: driver is not ready")


@pytest.mark.parametrize(
    ("environment", "card"), [({}, 0), ({"LOCAL_RANK": "1"}, 1), ({"SLURM_LOCALID": "1"}, 1)]
)
def test_each_process_tries_its_own_card(working, monkeypatch, environment, card):
    working(Runtime())
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tried = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: tried.append(device))
    probe = NPU.probe()
    assert probe.usable and probe.count == 2 and tried == [f"npu:{card}"]
    assert probe.reason == f"Ascend910B{card}, torch_npu {torch.__version__}"


def test_lightning_knows_the_names_that_the_trainer_is_given():
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    one, several = NPU.trainer_arguments(1, "bf16"), NPU.trainer_arguments(8, "32")
    assert one["accelerator"] == several["accelerator"] == "npu" and several["devices"] == 8
    assert "npu" in AcceleratorRegistry.available_accelerators()
    for arguments in (one, several):
        assert "precision" not in arguments  # Lightning's string would autocast on CUDA
        assert arguments["strategy"] in StrategyRegistry.available_strategies()
    strategy = StrategyRegistry.get(several["strategy"])
    assert strategy._get_process_group_backend() == NPU.distributed_backend == "hccl"


@pytest.mark.parametrize(
    ("asked", "cards"),
    [(2, [0, 1]), ("3", [0, 1, 2]), ("1,3", [1, 3]), ([2], [2]), (-1, [0, 1]), ("-1", [0, 1])],
)
def test_cards_are_counted_or_listed(working, asked, cards):
    from mergevq.backends.npu.lightning import NpuAccelerator

    working(Runtime(count=2))
    assert NpuAccelerator.parse_devices(asked) == cards


def test_an_accelerator_without_a_card_is_not_available():
    from mergevq.backends.npu.lightning import NpuAccelerator

    assert not NpuAccelerator.is_available()


def test_another_device_is_refused():
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from mergevq.backends.npu.lightning import NpuAccelerator

    with pytest.raises(MisconfigurationException, match="the device is cpu, an NPU was asked for"):
        NpuAccelerator().setup_device(torch.device("cpu"))
