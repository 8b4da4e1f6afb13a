"""An exported ONNX model to a file: axes named, rewritten where run times gain, nothing of the machine in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mergevq.errors import ExportError
from mergevq.export.manifest import GraphSpec, TensorSpec
from mergevq.export.rewrites.half import fold_casts, norms_in_float32
from mergevq.export.rewrites.int8 import quantised
from mergevq.export.rewrites.key_transposes import transpose_keys_at_once
from mergevq.export.rewrites.layer_scale import fold_layer_scale
from mergevq.export.rewrites.projections import split_projections
from mergevq.export.rewrites.shared_weights import SharedWeights
from mergevq.export.rewrites.winograd import use_winograd


def write_graph(
    model: Any,
    spec: GraphSpec,
    weights: SharedWeights,
    notes: dict[str, str],
    *,
    winograd: bool = False,
    int8: bool = False,
) -> None:
    """Writes a model to the folder of `weights`.

    Args:
        model: of onnxscript's `ir`; it is changed.
        spec: what it is to be.
        weights: of the folder; large ones go there.
        notes: what the file says of itself (metadata_props).
        winograd: whether convolutions are rewritten to which that pays.
        int8: whether matrix products are to have weights of 8 bits.

    Raises:
        ExportError: an axis was fixed that was to be free, or the other way round.
    """
    from onnxscript import ir

    for values, tensors in ((model.graph.inputs, spec.inputs), (model.graph.outputs, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            _name_axes(value, tensor, spec.file)
    transpose_keys_at_once(model)
    split_projections(model)
    fold_layer_scale(model)
    if winograd:
        use_winograd(model)  # by shapes that are forgotten next
    _forget_origin(model)
    norms_in_float32(model)
    fold_casts(model)
    if int8:
        model = quantised(model, weights.folder)
    model.metadata_props.update(notes)
    weights.take(model, spec)
    ir.save(model, weights.folder / spec.file)


def _name_axes(value: Any, tensor: TensorSpec, file: str) -> None:
    """Gives the axes of an input or an output their names; the exporter's may be formulas."""
    from onnxscript import ir

    found = [dimension if isinstance(dimension, int) else None for dimension in value.shape]
    wanted = [length if isinstance(length, int) else None for length in tensor.shape]
    if found != wanted:
        raise ExportError(
            f"{file}: {tensor.name} came out of the exporter as {_shown(value.shape)} and should be "
            f"{_shown(tensor.shape)}"
        )
    value.shape = ir.Shape(tensor.shape)


def _forget_origin(model: Any) -> None:
    """Takes away what the exporter notes about itself: stack traces hold the paths of this machine.

    Shapes within the graph go where they speak of axes, by names that nobody knows any more.
    """
    model.doc_string = model.graph.doc_string = None
    for holder in (model, model.graph, *_nodes_and_values(model)):
        holder.metadata_props.clear()
        holder.meta.clear()
    for value in (value for node in model.graph.all_nodes() for value in node.outputs):
        if not value.is_graph_output() and value.shape is not None and not _is_fixed(value.shape):
            value.shape = None


def _nodes_and_values(model: Any) -> Iterator[Any]:
    yield from (*model.graph.inputs, *model.graph.initializers.values())
    for node in model.graph.all_nodes():
        node.doc_string = None
        yield node
        yield from node.outputs


def _is_fixed(shape: Any) -> bool:
    return all(isinstance(length, int) for length in shape)


def _shown(shape: Any) -> str:
    return "[" + ", ".join(str(length) for length in shape) + "]"
