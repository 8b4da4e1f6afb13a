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
from typing import Any

from mergevq.export.manifest import Role
from mergevq.export.runtime.providers import runtime_module

QUANTISED: frozenset[Role] = frozenset({"prefill", "step", "head"})
"""What the graphs are for that may be quantised."""

ONE_FILE_BYTES = 2**30
"""Larger graphs are rounded with their weights in a file beside them: a file of ONNX cannot hold 2 GiB."""


def quantised(model: Any, folder: Path) -> Any:
    """A graph whose matrix products have weights of 8 bits.

    Args:
        model: a float32 graph, of onnxscript's `ir`.
        folder: with room for both; nothing stays there.

    Returns:
        Another, its weights in memory.
    """
    import onnx

    runtime_module()  # before anything of it is imported, or its telemetry is on
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxscript import ir

    size = sum(weight.const_value.nbytes for weight in model.graph.initializers.values())
    with tempfile.TemporaryDirectory(dir=folder, prefix=".quantised.") as name, _quiet():
        before, after = Path(name) / "before.onnx", Path(name) / "after.onnx"
        ir.save(model, before, external_data=f"{before.name}.data")
        plain = onnx.load(str(before), load_external_data=False)
        # Shapes of weights among them, which do not hold any more once ONNX Runtime has turned a product around.
        del plain.graph.value_info[:]
        onnx.save(plain, str(before))
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=size > ONE_FILE_BYTES,
        )
        made = ir.load(after)
        ir.external_data.load_to_model(made)
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to prepare the graph first, which ours does not need: it goes to the root of all loggers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
