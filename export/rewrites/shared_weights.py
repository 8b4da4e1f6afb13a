"""Large weights in files beside the graphs, each once however many graphs use it.

Encoders for two kept counts, or the first pass of a generator and its steps, are the same weights in another graph.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mergevq.export.manifest import GraphSpec

INLINE_BYTES = 32 * 2**20
"""Graphs with fewer weights than this hold them; a file of ONNX cannot hold 2 GiB."""
_SMALL = 4096
_PAGE = 4096  # run times map weights into memory, page by page


class _Place(NamedTuple):
    """Where a weight begins in its file, and how long it is."""

    offset: int
    length: int


class SharedWeights:
    """The files of a folder that weights of its graphs stand in.

    Args:
        folder: of the export.

    Attributes:
        folder: the same.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._held: dict[str, dict[bytes, _Place]] = {}

    def take(self, model: Any, spec: GraphSpec) -> None:
        """Moves a graph's weights to the file that it shares, where they are large; equal ones are written once.

        Args:
            model: of onnxscript's `ir`; its weights are left as references.
            spec: of the graph.
        """
        weights = model.graph.initializers.values()
        if sum(weight.const_value.nbytes for weight in weights) <= INLINE_BYTES:
            return
        held = self._held.setdefault(spec.data, {})
        with (self.folder / spec.data).open("ab") as file:
            for weight in weights:
                if weight.const_value.nbytes >= _SMALL:
                    place = _placed(weight.const_value.tobytes(), file, held)
                    weight.const_value = self._reference(weight, spec.data, place)

    def _reference(self, weight: Any, file: str, place: _Place) -> Any:
        from onnxscript import ir

        tensor = weight.const_value
        return ir.ExternalTensor(
            file, *place, tensor.dtype, shape=tensor.shape, name=weight.name, base_dir=self.folder
        )


def _placed(content: bytes, file: BinaryIO, held: dict[bytes, _Place]) -> _Place:
    """Where the file has this content, which is written if it is new."""
    digest = hashlib.sha256(content).digest()
    if digest not in held:
        file.write(bytes(-file.tell() % _PAGE))
        held[digest] = _Place(file.tell(), len(content))
        file.write(content)
    return held[digest]
