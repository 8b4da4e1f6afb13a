"""Convolutions of many channels as Winograd's F(4x4, 3x3), in operators that ONNX Runtime's CPU provider runs well.

Its own convolutions multiply directly, near the peak of the processor; fewer products is all that makes them faster.
The transform of the input is a convolution of single channels with 36 outputs, that of the output one with 16 and
`DepthToSpace`; that of the kernels ONNX Runtime computes as it loads the graph, so files stay as small as they were.
Between the two stand 36 matrix products with a quarter of the multiplications. One thread took 3.4 ms in the place of
7.4 for 512 channels at 16 x 16, 5.8 in the place of 7.4 for 128 at 64 x 64, and with fewer channels more than before:
hence `pays`.

Source: Lavin & Gray (arXiv:1509.09308), Section 4; the matrices are those of `mergevq.backends.cpu.winograd`.
Legend: B batch, C channels in, O channels out, h w resolution, N tiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mergevq.backends.cpu.winograd import DATA, KERNEL, OUTPUT
from mergevq.export.rewrites.constants import add_constant, remove_unused

_TILE = 4
_CHANNELS = 128
_POSITIONS = 64 * 64


def use_winograd(model: Any) -> None:
    """Rewrites the convolutions to which it pays; float32 graphs alone gain.

    Args:
        model: of onnxscript's `ir`, with the shapes that the exporter found; it is changed.
    """
    for node in list(model.graph):
        if node.op_type == "Conv" and _pays(node):
            _rewrite(model.graph, node)


def _pays(node: Any) -> bool:
    """Whether a convolution is one of 3 x 3 with a border of one, with many channels at few positions."""
    x, weight = node.inputs[:2]
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    plain = (
        attributes.get("group", 1) == 1
        and all(step == 1 for name in ("strides", "dilations") for step in attributes.get(name, ()))
        and list(attributes.get("pads", ())) == [1, 1, 1, 1]
    )
    if not plain or x.shape is None or weight.const_value is None or list(weight.shape[2:]) != [3, 3]:
        return False
    sides = x.shape[2:]
    if not all(isinstance(side, int) and side % _TILE == 0 for side in sides):
        return False
    return min(weight.shape[:2]) >= _CHANNELS and sides[0] * sides[1] <= _POSITIONS


def _rewrite(graph: Any, node: Any) -> None:
    from onnxscript import ir

    x, weight, *bias = node.inputs
    made = _Nodes(graph, weight.name)
    painted = _painted(made, x, _kernels(made, weight.const_value.numpy()), weight.shape[0])
    if bias:
        column = bias[0].const_value.numpy().reshape(-1, 1, 1)
        painted = made.add("Add", painted, made.constant("bias", column))
    before = node.outputs[0]
    graph.insert_before(node, made.nodes)
    painted.name, painted.type, painted.shape = before.name, before.type, before.shape
    ir.convenience.replace_all_uses_with(before, painted, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    remove_unused(graph, (weight, *bias))


def _kernels(made: _Nodes, weight: np.ndarray) -> Any:
    """G g G^T of (O, C, 3, 3) kernels: (36, O, C)."""
    out, channels = weight.shape[:2]
    flat = np.ascontiguousarray(weight.transpose(2, 3, 0, 1)).reshape(9, -1)
    transformed = made.add("MatMul", made.constant("kernel", KERNEL.numpy()), made.constant("flat", flat))
    return made.reshaped(transformed, "matrices", 36, out, channels)


def _painted(made: _Nodes, x: Any, kernels: Any, out: int) -> Any:
    """A^T [(G g G^T) (B^T d B)] A of a picture (B, C, h, w): (B, O, h, w)."""
    _, channels, height, width = x.shape
    rows, columns = height // _TILE, width // _TILE
    tiles = made.reshaped(x, "single", -1, 1, height, width)  # (B C, 1, h, w)
    data = made.constant("data", DATA.numpy().reshape(36, 1, 6, 6))
    tiles = made.add("Conv", tiles, data, strides=[_TILE, _TILE], pads=[1, 1, 1, 1])  # (B C, 36, h/4, w/4)
    tiles = made.reshaped(tiles, "tiles", -1, channels, 36, rows * columns)
    tiles = made.add("MatMul", kernels, made.add("Transpose", tiles, perm=[0, 2, 1, 3]))  # (B, 36, O, N)
    tiles = made.reshaped(made.add("Transpose", tiles, perm=[0, 2, 1, 3]), "sums", -1, 36, rows, columns)
    tiles = made.add(
        "Conv", tiles, made.constant("output", OUTPUT.numpy().reshape(16, 36, 1, 1))
    )  # (B O, 16, ...)
    tiles = made.add("DepthToSpace", tiles, blocksize=_TILE)  # (B O, 1, h, w)
    return made.reshaped(tiles, "painted", -1, out, height, width)


class _Nodes:
    """Nodes and constants that stand in for a convolution, named after its weight."""

    def __init__(self, graph: Any, name: str):
        self.graph = graph
        self.name = name
        self.nodes: list[Any] = []

    def add(self, operator: str, *inputs: Any, **attributes: Any) -> Any:
        """A node's output."""
        from onnxscript import ir

        self.nodes.append(ir.node(operator, list(inputs), attributes))
        return self.nodes[-1].outputs[0]

    def reshaped(self, value: Any, suffix: str, *shape: int) -> Any:
        """The same numbers in another shape."""
        return self.add("Reshape", value, self.constant(suffix, np.array(shape, dtype=np.int64)))

    def constant(self, suffix: str, array: np.ndarray) -> Any:
        """An initializer of the graph."""
        return add_constant(self.graph, f"{self.name}.{suffix}", array)
