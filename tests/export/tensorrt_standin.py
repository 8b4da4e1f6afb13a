"""A stand-in for TensorRT, which computes with ONNX Runtime in the memory of a stand-in for a card.

It has the names that the package uses and their rules: what is missing, out of a profile, out of bounds or not waited
for goes wrong here too. It proves what the host does, and nothing about TensorRT. An "engine" is a line of JSON with
the path of its graph.
"""

from __future__ import annotations

import ctypes
import enum
import json
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

_INT64 = 7  # of ONNX


class DataType(enum.Enum):
    FLOAT = np.float32
    INT64 = np.int64
    BOOL = np.bool_


class TensorLocation(enum.Enum):
    DEVICE = 0
    HOST = 1


class BuilderFlag(enum.Enum):
    TF32 = 5


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 0


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class IBuilderConfig:
    def __init__(self) -> None:
        self._flags = {BuilderFlag.TF32}
        self._profiles: list[Any] = []
        self._timings: Any = None

    def _chosen(self) -> list[str]:
        return []

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized: bytes) -> Any:
        return ITimingCache(serialized)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self._timings = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._timings


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        return self._content + b"t"


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}
        self._values: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self._shapes[name] = [list(least), list(usual), list(most)]

    def set_shape_input(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self._values[name] = [list(least), list(usual), list(most)]


class ITensor:
    def __init__(self, value: Any):
        kind = value.type.tensor_type
        self._name = value.name
        self._shape = tuple(-1 if axis.dim_param else axis.dim_value for axis in kind.shape.dim)
        self._shapes_others = kind.elem_type == _INT64 and len(self._shape) == 1
        self._shapes_others &= -1 not in self._shape

    @property
    def name(self) -> str:
        return self._name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def is_shape_tensor(self) -> bool:
        return self._shapes_others


class INetworkDefinition:
    def __init__(self) -> None:
        self._path = ""
        self._inputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger):
        self._network = network

    @property
    def num_errors(self) -> int:
        return 0

    def parse_from_file(self, model: str) -> bool:
        import onnx  # for building alone: what runs engines does not have it

        self._network._path = model
        graph = onnx.load(model, load_external_data=False).graph
        self._network._inputs = [ITensor(value) for value in graph.input]
        return True


class Builder:
    def __init__(self, logger: ILogger):
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        (profile,) = config._profiles
        for tensor in network._inputs:
            known = profile._values if tensor.is_shape_tensor else profile._shapes
            if tensor.name not in known and (tensor.is_shape_tensor or -1 in tensor.shape):
                self._logger.log(ILogger.Severity.ERROR, f"{tensor.name} has no profile")
                return None
        plan = {"path": network._path, "shapes": profile._shapes, "values": profile._values}
        settings = {"tf32": BuilderFlag.TF32 in config._flags, "targets": config._chosen()}
        return json.dumps({**plan, "settings": settings}).encode()


class Runtime:
    def __init__(self, logger: ILogger):
        self._logger = logger

    def deserialize_cuda_engine(self, serialized: bytes) -> ICudaEngine | None:
        try:
            return ICudaEngine(self._card, **json.loads(serialized))  # type: ignore[attr-defined]
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "the magic tag does not match")
            return None


class ICudaEngine:
    def __init__(
        self, card: Any, path: str, shapes: dict[str, Any], values: dict[str, Any], settings: dict[str, Any]
    ):
        self._card, self._shapes, self._values = card, shapes, values
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = {each.name: each for each in self._session.get_inputs()}
        self._outputs = {each.name: each for each in self._session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_dtype(self, name: str) -> DataType:
        kinds = {
            "tensor(float)": DataType.FLOAT,
            "tensor(int64)": DataType.INT64,
            "tensor(bool)": DataType.BOOL,
        }
        return kinds[{**self._inputs, **self._outputs}[name].type]

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self._values else TensorLocation.DEVICE

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine):
        self._engine = engine
        self._given: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._found: dict[Any, dict[str, tuple[int, ...]]] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name in self._engine._shapes:
            least, _, most = self._engine._shapes[name]
            if len(shape) != len(most) or not all(map(_within, least, shape, most)):
                return False
        self._given[name] = tuple(shape)
        return name in self._engine._inputs

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return isinstance(memory, int) and memory != 0

    def infer_shapes(self) -> list[str]:
        engine = self._engine
        return [
            name
            for name in engine._inputs
            if name not in self._given or (name in engine._values and name not in self._addresses)
        ]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if self.infer_shapes():
            return tuple(-1 if isinstance(axis, str) else axis for axis in self._engine._outputs[name].shape)
        hosts = {each: self._read(each) for each in self._engine._values}
        key = (*self._given.items(), *((each, array.tobytes()) for each, array in hosts.items()))
        if key not in self._found:
            blank = {
                each: np.zeros(shape, dtype=self._engine.get_tensor_dtype(each).value)
                for each, shape in self._given.items()
            }
            arrays = self._engine._session.run(None, {**blank, **hosts})
            shapes = (array.shape for array in arrays)
            self._found[key] = dict(zip(self._engine._outputs, shapes, strict=True))
        return self._found[key][name]

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self._engine._card.owns(stream_handle) and not self.infer_shapes()
        inputs = {name: self._read(name) for name in self._engine._inputs}
        for name, values in inputs.items():
            if name in self._engine._values:
                least, _, most = self._engine._values[name]
                if not all(map(_within, least, values.tolist(), most)):
                    return False
        arrays = self._engine._session.run(None, inputs)
        for name, array in zip(self._engine._outputs, arrays, strict=True):
            whole = np.ascontiguousarray(array)
            target = self._engine._card.view(self._addresses[name], whole.nbytes)
            ctypes.memmove(target, whole.ctypes.data, whole.nbytes)
        return True

    def _read(self, name: str) -> np.ndarray:
        """What lies at an input's address."""
        array = np.empty(self._given[name], dtype=self._engine.get_tensor_dtype(name).value)
        address = self._addresses[name]
        if self._engine.get_tensor_location(name) == TensorLocation.DEVICE:
            address = self._engine._card.view(address, array.nbytes)
        else:
            self._engine._card.deny(address)
        ctypes.memmove(array.ctypes.data, address, array.nbytes)
        return array


class ComputeCapability(enum.IntEnum):
    NONE = 0
    CURRENT = 1
    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM120 = 120


class EngineValidity(enum.Enum):
    VALID = 0
    INVALID = 2


class EngineInvalidityDiagnostics(enum.IntEnum):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2


class RtxBuilderConfig(IBuilderConfig):
    """Of TensorRT-RTX, whose timing cache is never to be touched."""

    def __init__(self) -> None:
        super().__init__()
        self.num_compute_capabilities = 0
        self._targets: dict[int, Any] = {}

    def _chosen(self) -> list[str]:
        return [self._targets[number].name for number in range(self.num_compute_capabilities)]

    def set_compute_capability(self, compute_capability: ComputeCapability, index: int) -> bool:
        assert 0 <= index < self.num_compute_capabilities
        self._targets[index] = compute_capability
        return True

    def create_timing_cache(self, serialized: bytes) -> Any:
        raise AssertionError("a timing cache of TensorRT-RTX asks for a card")

    def get_timing_cache(self) -> Any:
        raise AssertionError("a timing cache of TensorRT-RTX asks for a card")


class RtxBuilder(Builder):
    def create_builder_config(self) -> IBuilderConfig:
        return RtxBuilderConfig()


class RtxRuntime(Runtime):
    diagnostics = 0

    def get_engine_validity(self, buffer: bytes) -> tuple[EngineValidity, int]:
        found = EngineValidity.INVALID if self.diagnostics else EngineValidity.VALID
        return found, self.diagnostics


SHARED = (
    BuilderFlag,
    DataType,
    IBuilderConfig,
    ICudaEngine,
    IExecutionContext,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    TensorLocation,
)
ONLY_RTX = (ComputeCapability, EngineInvalidityDiagnostics, EngineValidity)


def tensorrt_module(card: Any, rtx: bool = False, version: str = "11.4.0.106") -> ModuleType:
    """tensorrt, or tensorrt_rtx."""
    module = ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    for each in (*SHARED, *(ONLY_RTX if rtx else ())):
        setattr(module, each.__name__, each)
    runtime = type("Runtime", (RtxRuntime if rtx else Runtime,), {"_card": card})
    values = {
        "__version__": version,
        "Builder": RtxBuilder if rtx else Builder,
        "Runtime": runtime,
        "nptype": lambda dtype: dtype.value,
    }
    for name, value in values.items():
        setattr(module, name, value)
    return module


def _within(least: int, value: int, most: int) -> bool:
    return bool(least <= value <= most)
