"""A generator's graph with weights of 8 bits: matrix products in integers, everything else in float32.

Weights are rounded once, a scale for each output; what they are multiplied by is rounded in every pass, with a scale
from its own range (dynamic quantisation), so no pictures are needed to calibrate anything. Nothing else of the package
is quantised: merging decisions, bits and source maps turn over by far smaller differences.

Source: ONNX operators DynamicQuantizeLinear-11 and MatMulInteger-10.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mergevq.export.manifest import Role

QUANTISED: frozenset[Role] = frozenset({"prefill", "step", "head"})
"""What the graphs are for that may be quantised."""

_INLINE_BYTES = 2**30


def quantise(file: Path) -> None:
    """Rounds the weights of a graph's matrix products to 8 bits; the file is replaced.

    Args:
        file: a float32 graph, its weights in it or in FILE.data beside it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    data = file.with_name(f"{file.name}.data")
    model = onnx.load(str(file), load_external_data=False)
    # Shapes of weights among them, which do not hold any more once ONNX Runtime has turned a product around.
    del model.graph.value_info[:]
    onnx.save(model, str(file))
    size = file.stat().st_size + (data.stat().st_size if data.exists() else 0)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".quantised.") as folder, _quiet():
        made = Path(folder) / file.name
        quantize_dynamic(
            file,
            made,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=size > _INLINE_BYTES,
        )
        data.unlink(missing_ok=True)
        for each in Path(folder).iterdir():
            each.replace(file.parent / each.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to prepare the graph first, which ours does not need: it goes to the root of all loggers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
