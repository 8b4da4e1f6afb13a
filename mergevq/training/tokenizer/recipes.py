"""How each preset is trained: the paper's settings, the released code's, and small ones for CPUs."""

from __future__ import annotations

from typing import Any, NamedTuple

from mergevq.config import TokenizerConfig, override
from mergevq.errors import UsageError, unknown_name
from mergevq.presets import preset
from mergevq.training.engine.config import OptimizerConfig
from mergevq.training.tokenizer.config import (
    AlignmentConfig,
    KeepConfig,
    LossConfig,
    TokenizerRun,
    TrainConfig,
)

RECIPES = ("default", "released")


class _Released(NamedTuple):
    """What the released configurations set by family: counts, length, and where the rate falls."""

    least: int
    most: int
    centre: int
    epochs: float
    milestones: tuple[float, float]


def recipe(name: str, kind: str = "default") -> TokenizerRun:
    """A complete run for a preset.

    Args:
        name: the preset.
        kind: "default", Table A1 of the paper for its presets; or "released", the losses and counts that
            the authors' released code in fact runs.

    Raises:
        UsageError: there is no such preset or recipe.
    """
    if kind not in RECIPES:
        raise UsageError(unknown_name("recipe", kind, RECIPES))
    model = preset(name)
    if model.image_size < 256:
        if kind != "default":
            raise UsageError(f"the recipe {kind!r} is for the paper's presets; {name!r} has only 'default'")
        return _small(model)
    family = name.split("-")[0]
    run = {"G": _generation, "G+R": _generation_and_representation, "R": _representation}[family](model)
    return run if kind == "default" else _released(run, family)


def _generation(model: TokenizerConfig) -> TokenizerRun:
    """Counts upwards from 256; weights 0.5 (source) and 0.1 (alignment)."""
    return TokenizerRun(
        model=model,
        loss=LossConfig(source=0.5, alignment=0.1),
        alignment=AlignmentConfig(head_layers=2),
        keep=KeepConfig(kind="exponential", least=256, most=1024),
    )


def _generation_and_representation(model: TokenizerConfig) -> TokenizerRun:
    """Counts around 144; weights 0.5 (source) and 1.0 (alignment)."""
    return TokenizerRun(model=model, keep=KeepConfig(kind="gaussian", least=121, most=225))


def _representation(model: TokenizerConfig) -> TokenizerRun:
    """Counts upwards from 36; weights 1.0 and 1.0; cosine decay over 300 epochs, clipped at 5."""
    return TokenizerRun(
        model=model,
        loss=LossConfig(source=1.0, alignment=1.0),
        keep=KeepConfig(kind="exponential", least=36, most=100),
        optimizer=OptimizerConfig(schedule="cosine", clip=5.0),
        train=TrainConfig(epochs=300.0),
    )


_RELEASED = {
    "G": _Released(least=225, most=529, centre=256, epochs=100.0, milestones=(90 / 100, 100 / 100)),
    "G+R": _Released(least=121, most=256, centre=144, epochs=200.0, milestones=(170 / 200, 190 / 200)),
    "R": _Released(least=49, most=144, centre=64, epochs=270.0, milestones=(220 / 270, 250 / 270)),
}


def _released(run: TokenizerRun, family: str) -> TokenizerRun:
    """L1, LPIPS 1.0, a constant 0.1 softplus generator loss, Gaussian counts, no source recovery loss, no warm-up.

    The released code draws counts by going through 100 evenly spaced numbers in rising order, the same on all ranks;
    here they come in random order. Its second milestone of G lies at the end of the run, where no step sees it.
    """
    theirs = _RELEASED[family]
    changes: dict[str, Any] = {
        "loss.reconstruction_kind": "l1",
        "loss.perceptual": 1.0,
        "loss.adversarial": 0.1,
        "loss.adversarial_kind": "non_saturating",
        "loss.adaptive": False,
        "loss.source": 0.0,
        "keep.kind": "gaussian",
        "keep.least": theirs.least,
        "keep.most": theirs.most,
        "keep.centre": theirs.centre,
        "keep.deviation": 0.5,
        "keep.floor": 0.05,
        "keep.draws": 100,
        "optimizer.schedule": "step",
        "optimizer.milestones": theirs.milestones,
        "optimizer.warmup": 0,
        "train.epochs": theirs.epochs,
    }
    if run.model.name.endswith("-d96"):
        changes["optimizer.clip"] = 5.0
    return override(run, changes)


def _small(model: TokenizerConfig) -> TokenizerRun:
    """Pixels, codes and source only: no network needs weights from elsewhere, and two cores suffice."""
    return TokenizerRun(
        model=model,
        loss=LossConfig(
            perceptual=0.0,
            adversarial=0.0,
            lecam=0.0,
            commitment=0.05,
            entropy=0.01,
            source=0.012,
            source_end=0.001,
            alignment=0.0,
        ),
        alignment=AlignmentConfig(kind="none"),
        keep=KeepConfig(kind="uniform", least=model.length // 4, most=model.length),
        optimizer=OptimizerConfig(
            rate=6e-3, betas=(0.9, 0.99), schedule="cosine", warmup=100, gamma=0.02, clip=1.0, ema=0.998
        ),
        train=TrainConfig(steps=4200, batch_size=64),
    )
