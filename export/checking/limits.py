"""How far graphs may be from the model: every threshold of the verification.

Calibrated on tiny-32 as trained on CIFAR-10, with ONNX Runtime on the CPU: MEASURED below. Merge decisions are
discontinuous: a difference in the last place may turn one over, and then a token, its code and all slots behind it
change although nothing is broken. So partitions are compared by the pairs of positions that share a token, codes only
in images whose partitions are equal, and pictures by their PSNR.
"""

from __future__ import annotations

from dataclasses import dataclass

from mergevq.export.manifest import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Thresholds of a precision."""

    partition: float
    """Mean over images of shared pairs / all pairs of positions with a token in common, at least; in float16 less where
    the model itself has less under autocast (see `encoder_checks`)."""
    margin: float
    """Logits nearer to 0 than this share of their root mean square may change sign."""
    psnr: float
    """dB between the pictures of model and graphs, end to end, mean over the images of a kind, at least."""
    flat: float
    """The same over flat pictures, in which everything ties."""
    pixel: float
    """Greatest difference of a pixel decoded from the same tokens, in [-1, 1]."""
    logit: float
    """Greatest difference of a logit of source recovery, in units of the logits' root mean square, at least 1."""
    step: float
    """The same of a generator's outputs and logits."""
    lost: float
    """Nats a position by which a recovered source map may be less likely than the model's."""
    divergence: float
    """Nats a token: divergence (Kullback-Leibler) of the graphs' distribution from the model's, mean over tokens, which
    is the likelihood that its tokens lose."""
    tie: float
    """Choices whose logits differ by less than twice this, in the same units, are equally good."""
    rollout: float
    """Share of tokens at which graph and model choose the same, at least, but for ties."""


# A grey level is 7.8e-3.
# MEASURED on the trained tiny-32 at 16, 31 and 32 kept, worst of all samples, fp32 and fp16: shared pairs 1.0 and 1.0;
# no bit beyond the margin; PSNR 100 dB (equal) and 84.7 dB (flat 80.5); pixel 1.3e-6 and 8.2e-4; logit of recovery
# 2.0e-6 and 1.1e-3. On trained generators of size nano: logit 3.8e-6 and 1.0e-2, every token the same. On a G+R of
# random weights, whose decoder is steeper: pixel 4.4e-5, PSNR 100 dB, flat 78 dB (one of them 33).
# int8, generators: logit 0.16, divergence 9.0e-4 of an entropy of 8.4 (fp16 8.8e-7, fp32 1e-12), tokens all equal.
LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(
        partition=0.99, margin=1e-3, psnr=60.0, flat=30.0, pixel=5e-4, logit=1e-4, lost=1e-4,
        step=1e-4, divergence=1e-6, tie=1e-4, rollout=1.0,
    ),
    "fp16": Limits(
        partition=0.95, margin=3e-2, psnr=50.0, flat=30.0, pixel=1e-2, logit=5e-2, lost=5e-2,
        step=5e-2, divergence=1e-3, tie=5e-2, rollout=1.0,
    ),
    "int8": Limits(  # of decoder and recovery, which stay in float32, those of fp32
        partition=0.99, margin=1e-3, psnr=60.0, flat=30.0, pixel=5e-4, logit=1e-4, lost=1e-4,
        step=0.5, divergence=2e-2, tie=5e-2, rollout=0.9,
    ),
}  # fmt: skip
