"""Devices, and the operators that differ between them.

Models call the operators below; which implementation runs is decided a call at a time, from the
device and the metadata of the tensors (see `registry`).
"""

import os

if not __name__.startswith("mergevq."):
    raise ImportError("import mergevq.backends, not backends: two names would mean two operator registries")

from mergevq.backends.attention import decode_attention, sized_attention
from mergevq.backends.convolution import convolution3x3
from mergevq.backends.device import Device, Probe, check_compiler, devices, for_few_rows, select
from mergevq.backends.merging import bipartite_match, merge, recover
from mergevq.backends.preactivation import preactivated_convolution3x3
from mergevq.backends.quantization import codes_of, lfq_entropies, lfq_quantize
from mergevq.backends.registry import OK, Operator, Reject, op, operators, read_overrides, reference_only
from mergevq.backends.transformer import rms_norm, rope, swiglu

__all__ = [
    "OK",
    "Device",
    "Operator",
    "Probe",
    "Reject",
    "bipartite_match",
    "check_compiler",
    "codes_of",
    "convolution3x3",
    "decode_attention",
    "devices",
    "for_few_rows",
    "lfq_entropies",
    "lfq_quantize",
    "merge",
    "op",
    "operators",
    "preactivated_convolution3x3",
    "recover",
    "reference_only",
    "rms_norm",
    "rope",
    "select",
    "sized_attention",
    "swiglu",
]

# Importing a device's folder registers its operators; a device must be known before a tensor of
# its type reaches an operator, and a discovery inside a traced call would break the graph.
devices()
read_overrides(os.environ.get("MERGEVQ_OPS", ""))
