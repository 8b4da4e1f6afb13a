"""One graph to one serialised engine.

Networks are strongly typed: every type is the graph's, and the only choice left is TF32. Weights are neither stripped
nor made refittable, and graphs are read by path, for their weights may stand in a file of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergevq.errors import ExportError
from mergevq.export.engines.flavors import Toolkit
from mergevq.export.engines.ranges import InputProfile
from mergevq.storage.files import write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """How an engine is built.

    Attributes:
        targets: compute capabilities that it is to run on, where the flavour can choose.
        tf32: whether float32 products may be rounded to ten bits of mantissa.
        timings: a file of measured times, read and written by a flavour that measures.
    """

    targets: tuple[str, ...]
    tf32: bool
    timings: Path | None


def build_engine(
    toolkit: Toolkit, graph: Path, profiles: Sequence[InputProfile], settings: BuildSettings
) -> bytes:
    """The engine of a graph.

    Args:
        toolkit: the flavour.
        graph: the .onnx file, its weights beside it.
        profiles: of its inputs.
        settings: the same for all graphs of a folder.

    Raises:
        ExportError: the parser does not take a node, or the builder fails.
    """
    toolkit.errors.clear()
    module = toolkit.module
    # All of these stay referenced until the end: they point at one another, and a temporary would be freed under them.
    builder = module.Builder(toolkit.logger)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, toolkit.logger)
    if not parser.parse_from_file(str(graph)):
        raise ExportError(_refused(toolkit, graph, parser))
    config = builder.create_builder_config()
    _configure(module, config, settings)
    profile = builder.create_optimization_profile()
    _describe(profile, network, profiles)
    config.add_optimization_profile(profile)
    _read_timings(config, settings.timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"{graph.name} cannot be built by {toolkit.name}: {toolkit.reason()}")
    _write_timings(config, settings.timings)
    return bytes(plan)


def _refused(toolkit: Toolkit, graph: Path, parser: Any) -> str:
    """The first complaint of the parser in one sentence."""
    if not parser.num_errors:
        return f"{graph.name} cannot be parsed by {toolkit.name}: {toolkit.reason()}"
    error = parser.get_error(0)
    where = error.node_operator()
    reason = " ".join(error.desc().split())
    if not where:
        return f"{graph.name} cannot be parsed by {toolkit.name}: {reason}"
    return f"{graph.name}: {toolkit.name} does not take the operator {where} at node {error.node_name()}: {reason}"


def _configure(module: Any, config: Any, settings: BuildSettings) -> None:
    if settings.tf32:
        config.set_flag(module.BuilderFlag.TF32)
    else:
        config.clear_flag(module.BuilderFlag.TF32)  # which is set in a new one
    if hasattr(config, "set_compute_capability"):
        config.num_compute_capabilities = len(settings.targets)
        for number, target in enumerate(settings.targets):
            capability = getattr(module.ComputeCapability, "SM" + target.replace(".", ""))
            config.set_compute_capability(capability, number)


def _describe(profile: Any, network: Any, profiles: Sequence[InputProfile]) -> None:
    """Tells the ranges of every input that has one."""
    known = {each.name: each for each in profiles}
    for number in range(network.num_inputs):
        tensor = network.get_input(number)
        each = known[tensor.name]
        if tensor.is_shape_tensor:
            profile.set_shape_input(each.name, each.least, each.usual, each.most)
        elif not each.values:
            profile.set_shape(each.name, each.least, each.usual, each.most)


def _read_timings(config: Any, path: Path | None) -> None:
    if path is not None:
        timings = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        config.set_timing_cache(timings, False)


def _write_timings(config: Any, path: Path | None) -> None:
    if path is not None:
        content = bytes(config.get_timing_cache().serialize())
        write_atomically(path, lambda temporary: temporary.write_bytes(content))
