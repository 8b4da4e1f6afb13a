"""A tokenizer or a generator in each of the run times, opened for timing; what cannot be is skipped with the reason.

A run time never gives way to another: what is not installed, has no device, or holds graphs that failed their
verification raises `Unavailable`, and no number is written.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

import mergevq
from mergevq import backends
from mergevq.backends import Device
from mergevq.bench.subjects import inputs
from mergevq.bench.subjects.exports import export_of, graph_bytes, make_engines
from mergevq.bench.subjects.models import generator, subjects, tokenizer
from mergevq.errors import DeviceUnavailableError, ExportError, UnusableExportError, UsageError
from mergevq.export.manifest import Precision as GraphPrecision
from mergevq.export.runtime.cuda import Cuda
from mergevq.generation.pipeline import ImageGenerator
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.tokens import TokenArrays

Runtime = Literal["eager", "compile", "onnx", "tensorrt"]
Precision = Literal["float32", "bf16", "float16"]
Task = Literal["encode", "decode", "roundtrip", "step", "images"]

SHOWN: dict[Runtime, str] = {
    "eager": "PyTorch",
    "compile": "torch.compile",
    "onnx": "ONNX Runtime",
    "tensorrt": "TensorRT",
}
"""As tables and plots name them."""

BASELINE: tuple[Runtime, Precision] = ("eager", "float32")
"""What every other case is timed beside."""

_GRAPHS: dict[str, GraphPrecision] = {"float32": "fp32", "float16": "fp16"}
_DTYPES = {"bf16": torch.bfloat16, "float16": torch.float16}
_PROVIDERS = {"cpu": "cpu", "cuda": "cuda", "npu": "cann"}


class Unavailable(Exception):
    """A case cannot be timed here; the message is the reason that is shown."""


@dataclass(frozen=True)
class Where:
    """What all run times of a case share."""

    device: Device
    threads: int
    exports: Path
    """Where exported graphs are kept."""


@dataclass(frozen=True)
class Opened:
    """A model in a run time.

    Attributes:
        model: has the methods of a tokenizer or of a generator.
        around: the context that calls run in.
        folder: of its graphs; None for PyTorch.
        settings: with which the folder was loaded.
    """

    model: Any
    around: Callable[[], contextlib.AbstractContextManager[Any]]
    folder: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def bytes(self, keep: int) -> int:
        """The size of its weights, or of its graphs, with the encoder for `keep` tokens."""
        if self.folder is not None:
            return graph_bytes(self.folder, keep)
        return sum(parameter.nbytes for parameter in self.model.parameters())

    def tensors(self, array: Any, device: Device) -> Any:
        """Pictures or tokens as this run time takes them."""
        if self.folder is not None:
            return array
        if isinstance(array, TokenArrays):
            return array.tensors().to(device.name)
        return torch.from_numpy(array).to(device.name)


def open_tokenizer(name: str, runtime: Runtime, precision: Precision, where: Where) -> Opened:
    """A tokenizer of `subjects` in a run time.

    Raises:
        Unavailable: it cannot be had here.
    """
    if runtime in ("onnx", "tensorrt"):
        keeps = tuple(sorted(keep for known, keep in subjects() if known == name))
        return _open_graphs(tokenizer(name), runtime, precision, keeps, where)
    model = _on_device(name, where.device)
    if runtime == "compile":
        check_compiler(where.device)
        return Opened(_CompiledTokenizer(model), _autocast(precision, where.device))
    return Opened(model, _autocast(precision, where.device))


def open_generator(kind: str, runtime: Runtime, precision: Precision, where: Where) -> Opened:
    """A generator of `kinds` in a run time; in PyTorch its weights are of the precision, and there is no autocast.

    Raises:
        Unavailable: it cannot be had here.
    """
    model = generator(kind)
    if runtime in ("onnx", "tensorrt"):
        return _open_graphs(model, runtime, precision, (), where)
    model = copy.deepcopy(model).to(where.device.name)
    if precision != "float32":
        model.model.to(_DTYPES[precision])
    if runtime == "compile":
        check_compiler(where.device)
        model.compile()
    return Opened(model, torch.inference_mode)


def tokenizer_call(task: Task, opened: Opened, keep: int, batch: int, where: Where) -> Callable[[], Any]:
    """What is timed: a method of the tokenizer on a batch that is where it should be."""
    config = opened.model.config
    images = opened.tensors(inputs.noise(config, batch), where.device)
    tokens = opened.tensors(inputs.random_tokens(config, keep, batch), where.device)
    model = opened.model
    calls: dict[Task, Callable[[], Any]] = {
        "encode": lambda: model.encode(images, keep),
        "decode": lambda: model.decode(tokens),
        "roundtrip": lambda: model.decode(model.encode(images, keep)),
    }
    return within(opened, calls[task], where.device)


def images_call(opened: Opened, batch: int, device: Device) -> Callable[[], Any]:
    """What is timed of a generator: images of as many classes, from seed 0."""
    model = opened.model
    config = model.model.config if isinstance(model, ImageGenerator) else model.config
    labels = [number % config.classes for number in range(batch)]
    return within(opened, lambda: model.generate(labels, seed=0), device)


def within(opened: Opened, call: Callable[[], Any], device: Device) -> Callable[[], Any]:
    """`call` in the context of its run time, returning when the device is done."""

    def run() -> Any:
        with opened.around():
            found = call()
        device.synchronize()
        return found

    return run


def check_compiler(device: Device) -> None:
    """Raises Unavailable where torch.compile has nothing to make machine code with."""
    try:
        backends.check_compiler(device.name)
    except UsageError as error:
        raise Unavailable(str(error)) from error
    if device.name == "npu":
        raise Unavailable("torch.compile has no backend for an NPU here")


class _CompiledTokenizer:
    """A tokenizer whose two directions torch.compile makes, each in one graph of fixed shapes."""

    def __init__(self, model: Tokenizer):
        self.config = model.config
        self.parameters = model.parameters
        self.encode = torch.compile(model.encode, dynamic=False)
        self.decode = torch.compile(model.decode, dynamic=False)


@functools.lru_cache(maxsize=1)
def _on_device(name: str, device: Device) -> Tokenizer:
    model = tokenizer(name)
    return model if device.name == "cpu" else copy.deepcopy(model).to(device.name)


def _autocast(precision: Precision, device: Device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if precision != "float32":
                stack.enter_context(torch.autocast(device.name, dtype=_DTYPES[precision]))
            yield

    return around


def _open_graphs(
    model: Tokenizer | ImageGenerator,
    runtime: Runtime,
    precision: Precision,
    keeps: tuple[int, ...],
    where: Where,
) -> Opened:
    if precision not in _GRAPHS:
        raise Unavailable(f"graphs are exported in float32 and float16, not in {precision}")
    try:
        if runtime == "tensorrt":
            Cuda()  # says so where there is no card, before minutes are spent on graphs
        folder = export_of(
            model,
            _GRAPHS[precision],
            keeps,
            where.exports,
            # What the export command is told for a CPU.
            winograd=runtime == "onnx" and where.device.name == "cpu" and precision == "float32",
        )
        if runtime == "tensorrt":
            make_engines(folder, model)
        settings = _settings(runtime, where)
        opened = _load(folder, runtime, tuple(settings.items()))
    except (DeviceUnavailableError, ExportError, UnusableExportError, UsageError) as error:
        raise Unavailable(str(error)) from error
    return Opened(opened, contextlib.nullcontext, folder, settings)


def _settings(runtime: Runtime, where: Where) -> dict[str, Any]:
    if runtime == "tensorrt":
        return {}
    return {"provider": _PROVIDERS.get(where.device.name, where.device.name), "threads": where.threads}


@functools.lru_cache(maxsize=1)
def _load(folder: Path, runtime: Runtime, settings: tuple[tuple[str, Any], ...]) -> Any:
    load: Any = mergevq.load  # its overloads want the name of the run time spelt out
    return load(folder, runtime=runtime, **dict(settings))
