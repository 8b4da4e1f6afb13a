"""How each size of generator is trained: the paper's settings, and others for small ones on a CPU."""

from __future__ import annotations

from dataclasses import replace

from mergevq.generator_config import GeneratorConfig
from mergevq.training.engine.config import OptimizerConfig
from mergevq.training.generator.config import GeneratorPaceConfig, GeneratorRun

_SMALL = ("nano", "tiny", "small")
_BATCH = {"XL": 64, "XXL": 64}


def generator_recipe(model: GeneratorConfig) -> GeneratorRun:
    """A complete run for a generator but for its tokens.

    Args:
        model: its size decides the recipe and its kind the second moment's decay; B to XXL get Table A2 of
            MergeVQ (arXiv:2504.00999), the smaller sizes a larger rate that falls faster and less dropout.
    """
    betas = (0.9, 0.95 if model.kind == "rand_ar" else 0.99)
    return _small(model, betas) if model.name in _SMALL else _paper(model, betas)


def _paper(model: GeneratorConfig, betas: tuple[float, ...]) -> GeneratorRun:
    """4e-4 for a batch of 1024 in steps, over 300 epochs; an average over about 10,000 steps."""
    return GeneratorRun(
        model=model,
        optimizer=OptimizerConfig(
            rate=1e-4, betas=betas, weight_decay=0.05, schedule="step", warmup=5000, clip=1.0, ema=0.9999
        ),
        train=GeneratorPaceConfig(
            epochs=300.0, batch_size=_BATCH.get(model.name, 128), validate_every=5000, checkpoint_every=1000
        ),
    )


def _small(model: GeneratorConfig, betas: tuple[float, ...]) -> GeneratorRun:
    """Minutes to hours on two cores."""
    return GeneratorRun(
        model=replace(model, dropout=0.1 if model.name == "small" else 0.0),
        optimizer=OptimizerConfig(
            rate=2e-3,
            betas=betas,
            weight_decay=0.05,
            schedule="cosine",
            warmup=100,
            gamma=0.02,
            clip=1.0,
            ema=0.999,
        ),
        train=GeneratorPaceConfig(steps=3000, batch_size=128),
    )
