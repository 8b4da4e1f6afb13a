"""How far results are from each other, in units that mean something whatever the model is.

Legend: L positions.
"""

from __future__ import annotations

import math

import numpy as np

_HIGHEST = 100.0
"""dB given to pictures that are equal."""


def shared_pairs(first: np.ndarray, second: np.ndarray) -> float:
    """Pairs of positions that share a token in both maps / in either; (L,) each, any numbering. 1 without pairs."""
    joint = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(joint, (first, second), 1)

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both = pairs(joint)
    either = pairs(joint.sum(axis=1)) + pairs(joint.sum(axis=0)) - both
    return both / either if either else 1.0


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """dB between two pictures in [-1, 1]; minus infinity where one holds NaN or infinity."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2)) / 4
    if not math.isfinite(error):
        return -math.inf
    return min(_HIGHEST, -10 * math.log10(error)) if error else _HIGHEST


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The greatest difference in units of the root mean square, at least 1.

    Infinite where one is finite and the other is not, where one is no number, and where nothing is finite.
    """
    finite = np.isfinite(wanted)
    if (finite != np.isfinite(found)).any() or not finite.any() or np.isnan(wanted).any():
        return math.inf
    scale = max(1.0, float(np.sqrt(np.mean(wanted[finite].astype(np.float64) ** 2))))
    return float(np.abs(found[finite] - wanted[finite]).max()) / scale
