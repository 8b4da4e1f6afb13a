"""Runs that have every part of a stage in them and take seconds, and what to compare of them.

On the module path of the tests on the emulated NPU, and of none else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import mergevq
from mergevq.backends import select
from mergevq.config import override
from mergevq.data.images.sources import open_source
from mergevq.data.tokens.extraction import describe, extract
from mergevq.generator_config import generator_config
from mergevq.training.engine.checkpoint import LAST
from mergevq.training.generator.config import GeneratorRun
from mergevq.training.generator.recipes import generator_recipe
from mergevq.training.generator.run import train_generator
from mergevq.training.tokenizer.recipes import recipe
from mergevq.training.tokenizer.run import train_tokenizer

MODEL = {
    "encoder.channels": 8,
    "encoder.width": 32,
    "encoder.heads": 2,
    "encoder.depth": 2,
    "decoder.channels": 8,
    "decoder.width": 32,
    "decoder.heads": 2,
    "decoder.depth": 1,
    "recovery.width": 32,
    "recovery.heads": 2,
    "recovery.depth": 1,
    "quantizer.bits": 8,
}
PACE = {
    "train.batch_size": 4,
    "train.precision": "32",
    "train.log_every": 1,
    "train.validate_every": 1000,
    "train.checkpoint_every": 1000,
    "optimizer.warmup": 2,
    "optimizer.rate": 0.003,
    "optimizer.clip": 1.0,
}
TOKENIZER = {
    **{f"model.{name}": value for name, value in MODEL.items()},
    **PACE,
    "data.path": "builtin:photos",
    "data.workers": 0,
    "train.validate_images": 4,
    "keep.least": 24,
    "keep.most": 64,
    "loss.adversarial": 0.8,
    "loss.discriminator_layers": 1,
    "loss.adversarial_start": 1,
    "loss.lecam": 0.01,
    "loss.alignment": 1.0,
    "alignment.kind": "self",
    "alignment.view": 24,
    "alignment.prototypes": 16,
    "alignment.head_layers": 2,
}
COUNTS = (24, 40)


def tokenizer_run(**changes: Any) -> Any:
    """tiny-32 with fewer channels; with the adversary, LeCAM and the self-teacher."""
    return override(recipe("tiny-32"), TOKENIZER | changes)


def write_tokens(home: Path, pictures: Path) -> None:
    """A tokenizer, `tok`, and the tokens of the pictures, `tokens`, made on the CPU."""
    torch.manual_seed(0)
    tokenizer = mergevq.create("tiny-32", **MODEL).eval()
    mergevq.save(tokenizer, home / "tok")
    source = open_source(str(pictures), "all")
    meta = describe(tokenizer, source, "all", counts=COUNTS, views=2, shard_size=8)
    extract(tokenizer, source, home / "tokens", meta)


def generator_run(home: Path, kind: str, **changes: Any) -> Any:
    """A nano generator of the tokens in `home`, with everything that draws: dropout, class dropout, orders."""
    tokenizer = mergevq.load(home / "tok").config
    model = generator_config("nano", kind, tokenizer, counts=COUNTS, classes=2, width=64, depth=1)
    data = {"data.tokenizer": str(home / "tok"), "data.path": str(home / "tokens"), "data.holdout": 0.25}
    rest = {"train.samples": 0, "model.dropout": 0.1, "model.window": 4}
    return override(generator_recipe(model), PACE | data | rest | changes)


def train(config: Any, out: Path, device: str) -> Path:
    """Trains in this process, on one device."""
    stage = train_generator if isinstance(config, GeneratorRun) else train_tokenizer
    return stage(config, out, select(device))


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a run has trained or averaged."""
    checkpoint = torch.load(out / LAST, weights_only=True)
    return dict(checkpoint["state_dict"])


def trained(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of `weights` that an optimiser of the model moves, as they are."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(("tokenizer.", "model."))}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between two runs in any weight."""
    assert one.keys() == other.keys()
    return max(
        (one[name].double() - other[name].double()).abs().max().item() for name in one if one[name].numel()
    )
