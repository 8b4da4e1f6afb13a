"""One TensorRT engine at work: shapes, addresses, copies. Arrays go in and come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mergevq.errors import ExportError, UnusableExportError, UsageError
from mergevq.export.engines.flavors import Toolkit
from mergevq.export.engines.ranges import InputProfile
from mergevq.export.engines.sidecar import Sidecar
from mergevq.export.manifest import GraphSpec, TensorSpec
from mergevq.export.runtime.cuda import Buffer, Cuda


class Engine:
    """Runs an engine; memory on the card is kept from call to call.

    Args:
        toolkit: the flavour.
        cuda: the card.
        spec: the graph that it was built from.
        sidecar: what it is.
        content: the engine.

    Raises:
        UnusableExportError: it cannot be opened.
    """

    def __init__(self, toolkit: Toolkit, cuda: Cuda, spec: GraphSpec, sidecar: Sidecar, content: bytes):
        toolkit.errors.clear()
        self._toolkit, self._cuda, self._spec, self._sidecar = toolkit, cuda, spec, sidecar
        # Referenced as long as what was made from it.
        self._runtime = toolkit.module.Runtime(toolkit.logger)
        _check_validity(toolkit, self._runtime, sidecar, content)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise UnusableExportError(
                f"{sidecar.file} cannot be opened by {toolkit.name}: {toolkit.reason()}"
            )
        self._check_tensors()
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise UnusableExportError(f"{sidecar.file} cannot be made ready to run: {toolkit.reason()}")
        host = toolkit.module.TensorLocation.HOST
        self._on_host = {
            tensor.name for tensor in spec.inputs if self._engine.get_tensor_location(tensor.name) == host
        }
        self._buffers = {tensor.name: Buffer(cuda) for tensor in (*spec.inputs, *spec.outputs)}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name.

        Args:
            inputs: by name; what the graph does not take is left out.

        Raises:
            UsageError: a shape or a value that the engine was not built for.
            ExportError: TensorRT or CUDA fails.
        """
        arrays = {
            tensor.name: np.ascontiguousarray(inputs[tensor.name], dtype=tensor.dtype)
            for tensor in self._spec.inputs
        }
        for profile in self._sidecar.profiles:
            _check_profile(profile, arrays[profile.name], self._spec)
        self._toolkit.errors.clear()
        for name, array in arrays.items():
            self._feed(name, array)
        unknown = self._context.infer_shapes()
        if unknown:
            raise ExportError(f"{self._sidecar.file} does not know the shapes of {', '.join(unknown)}")
        outputs = {tensor.name: self._room(tensor) for tensor in self._spec.outputs}
        if not self._context.execute_async_v3(self._cuda.stream):
            raise ExportError(f"{self._sidecar.file} fails: {self._toolkit.reason()}")
        for name, array in outputs.items():
            self._cuda.download(self._buffers[name].of(array.nbytes), array)
        self._cuda.wait()
        return outputs

    def _feed(self, name: str, array: np.ndarray) -> None:
        """Tells an input's shape, and where it is; one that decides shapes is read on the host."""
        accepted = self._context.set_input_shape(name, array.shape)
        if name in self._on_host:
            address = array.ctypes.data
        else:
            address = self._buffers[name].of(array.nbytes)
            self._cuda.upload(array, address)
        if not (accepted and self._context.set_tensor_address(name, address)):
            raise ExportError(
                f"{self._sidecar.file} does not take {name} of {array.shape}: {self._toolkit.reason()}"
            )

    def _room(self, tensor: TensorSpec) -> np.ndarray:
        """An array for an output, whose shape is known now, and memory on the card."""
        shape = tuple(self._context.get_tensor_shape(tensor.name))
        if min(shape) < 0:
            raise ExportError(f"{self._sidecar.file} does not say the shape of {tensor.name}: {shape}")
        array = np.empty(shape, dtype=tensor.dtype)
        if not self._context.set_tensor_address(tensor.name, self._buffers[tensor.name].of(array.nbytes)):
            raise ExportError(
                f"{self._sidecar.file} takes no address for {tensor.name}: {self._toolkit.reason()}"
            )
        return array

    def _check_tensors(self) -> None:
        """Makes sure that names and types are the graph's: what is copied goes by them."""
        module, engine = self._toolkit.module, self._engine
        names = {engine.get_tensor_name(number) for number in range(engine.num_io_tensors)}
        wanted = {tensor.name: np.dtype(tensor.dtype) for tensor in (*self._spec.inputs, *self._spec.outputs)}
        if names != set(wanted):
            raise UnusableExportError(
                f"{self._sidecar.file} has tensors {', '.join(sorted(names))}, which are not those of {self._spec.file}"
            )
        for name, dtype in wanted.items():
            found = np.dtype(module.nptype(engine.get_tensor_dtype(name)))
            if found != dtype:
                raise UnusableExportError(f"{self._sidecar.file} has {name} as {found} and not as {dtype}")


def _check_validity(toolkit: Toolkit, runtime: Any, sidecar: Sidecar, content: bytes) -> None:
    """Asks the library before it opens an engine, where it can be asked."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(content)
    if validity == toolkit.module.EngineValidity.INVALID:
        reasons = toolkit.module.EngineInvalidityDiagnostics.__members__
        named = [name.lower().replace("_", " ") for name, each in reasons.items() if diagnostics & each.value]
        raise UnusableExportError(
            f"{sidecar.file} is not valid here for {toolkit.name}: {', '.join(named) or toolkit.reason()}"
        )


def _check_profile(profile: InputProfile, array: np.ndarray, spec: GraphSpec) -> None:
    """Makes sure that an input is within what the engine was built for."""
    found = tuple(array.tolist()) if profile.values else array.shape
    fits = len(found) == len(profile.most) and all(
        least <= each <= most for least, each, most in zip(profile.least, found, profile.most, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{spec.file}: {profile.name} {'is' if profile.values else 'has the shape'} {list(found)}, and the engine "
            f"was built for {list(profile.least)} to {list(profile.most)}; take less at a time, or build with wider "
            "ranges (`mergevq export engine --help`)"
        )
