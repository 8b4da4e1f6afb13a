"""Folders of tokenizers, generators and classifiers, and training checkpoints."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from fuzzing.case import Kind, Target
from fuzzing.mutators.arrays import SAFETENSORS
from fuzzing.mutators.places import PLACES
from fuzzing.mutators.tensors import TORCH
from fuzzing.mutators.trees import JSON

TINY = {
    **{
        f"{part}.{key}": value
        for part in ("encoder", "decoder")
        for key, value in {"channels": 8, "width": 32, "heads": 1, "depth": 2}.items()
    },
    "recovery.width": 32,
    "recovery.heads": 1,
    "recovery.depth": 1,
    "quantizer.bits": 8,
}
"""Overrides of tiny-32: 32 px, 64 positions, 32 kept."""


def tiny_tokenizer() -> Any:
    """The same weights each time."""
    import torch

    import mergevq

    torch.manual_seed(0)
    return mergevq.create("tiny-32", **TINY).eval()


def tiny_generator(kind: Any = "merge_ar") -> Any:
    """Of the tiny tokenizer, one block deep."""
    import torch

    import mergevq

    torch.manual_seed(1)
    return mergevq.create_generator("nano", kind, tiny_tokenizer(), width=64, depth=1, classes=3)


def senseless(values: Any, where: str = "") -> str | None:
    """The first number in plain values that no setting can be: not finite, below 0, or beyond 10^18; 10^5 processes."""
    if isinstance(values, dict):
        parts = [(f"{where}.{key}".lstrip("."), value) for key, value in values.items()]
        return next((found for name, value in parts if (found := senseless(value, name))), None)
    if isinstance(values, (list, tuple)):
        return next((found for value in values if (found := senseless(value, where))), None)
    most = 1e5 if where.endswith("workers") else 1e18
    if isinstance(values, (int, float)) and not 0 <= values < most:
        return f"{where} is {str(values)[:40]}"
    return None


def _make_tokenizer(folder: Path) -> None:
    import mergevq

    mergevq.save(tiny_tokenizer(), folder / "tok")


def _read_tokenizer(folder: Path) -> Any:
    import torch

    import mergevq
    from mergevq.config import to_dict

    tokenizer: Any = mergevq.load(folder / "tok")
    with torch.inference_mode():
        tokenizer.decode(tokenizer.encode(torch.zeros(1, 3, 32, 32)))
    return to_dict(tokenizer.config)


def _make_generator(folder: Path) -> None:
    import mergevq

    mergevq.save(tiny_generator(), folder / "gen")


def _read_generator(folder: Path) -> Any:
    import mergevq
    from mergevq.config import to_dict

    generator: Any = mergevq.load(folder / "gen")
    generator.generate([0], seed=0)
    return to_dict(generator.model.config)


def _make_classifier(folder: Path) -> None:
    import torch

    from mergevq.metrics.features.classifier import Classifier, ClassifierCard, save_classifier

    torch.manual_seed(0)
    card = ClassifierCard(
        data="x", classes=("a", "b"), size=8, train_images=4, test_images=4, accuracy=0.5, epochs=1, seed=0
    )
    save_classifier(Classifier(2), card, folder / "net")


def _read_classifier(folder: Path) -> Any:
    import dataclasses

    import torch

    from mergevq.metrics.features.judge import load_judge

    judge = load_judge(str(folder / "net"))
    judge(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    return dataclasses.asdict(judge.extract.card) if hasattr(judge.extract, "card") else {}


def _make_checkpoint(folder: Path) -> None:
    import torch

    from mergevq.config import to_dict

    tokenizer = tiny_tokenizer()
    averaged = {f"ema.{name}": value for name, value in tokenizer.state_dict().items()}
    described = {
        "config": {"model": to_dict(tokenizer.config)},
        "steps_done": 3,
        "circumstances": {"world": 1},
    }
    torch.save({"state_dict": averaged, "mergevq": described, "global_step": 3}, folder / "last.ckpt")


def _read_checkpoint(folder: Path) -> Any:
    import mergevq
    from mergevq.config import to_dict

    tokenizer: Any = mergevq.load(folder / "last.ckpt")
    return to_dict(tokenizer.config)


def _seal(name: str) -> Any:
    """The hash of the weights in the description beside them."""

    def seal(folder: Path) -> None:
        import hashlib

        home = folder / name
        try:
            described = json.loads((home / "config.json").read_text())
            described["sha256"] = hashlib.sha256((home / "model.safetensors").read_bytes()).hexdigest()
            (home / "config.json").write_text(json.dumps(described))
        except (OSError, ValueError, TypeError, RecursionError, MemoryError):
            pass

    return seal


def _name(draw: random.Random, path: Path) -> str:
    """Another name of a checkpoint."""
    if draw.random() < 0.25:
        text = "/".join("".join(draw.choices("abcxyz-_.0", k=draw.randrange(1, 9))) for _ in range(2))
        path.write_text(text)
        return text
    text = draw.choice(
        (
            "runs/tokk", "user/name", "", ".", "/", "~", "~/runs/tok", "~nobody/tok", "a/b/c",
            "http://host/x", "runs/tok\0", "x" * 5000, "user/" + "x" * 300, "\udcff/x", "a\rb/c",
            "\x1b[31m/x", "runs/", "/dev/zero", "/dev/null", "/dev/stdin", "..", "hf:/x", "C:\\x",
            "a b/c d", "-/-", "user/name@main", "%2e/%2e", "builtin:", "builtin:x", "file:///etc/passwd",
            "/proc/self/mem", "name",
        )
    )  # fmt: skip
    path.write_text(text, errors="surrogateescape")
    return repr(text[:60])


def _read_name(folder: Path) -> Any:
    import os

    import mergevq

    os.chdir(folder)
    text = os.fsdecode((folder / "name").read_bytes())
    try:
        return mergevq.load(text) if text != "ok" else None
    finally:
        os.chdir("/")


def _model(name: str, weight: float = 1.0) -> tuple[Target, ...]:
    return (
        Target(f"{name}/config.json", JSON, 8 * weight),
        Target(f"{name}/config.json", PLACES, 0.5 * weight),
        Target(f"{name}/model.safetensors", SAFETENSORS, 3 * weight),
        Target(f"{name}/model.safetensors", PLACES, 0.5 * weight),
    )


KINDS = {
    "tokenizer": Kind(
        make=_make_tokenizer,
        targets=(*_model("tok"), Target("tok", PLACES, 0.2)),
        read=_read_tokenizer,
        seal=_seal("tok"),
        check=senseless,
    ),
    "generator": Kind(
        make=_make_generator,
        targets=(*_model("gen"), *_model("gen/tokenizer", 0.2)),
        read=_read_generator,
        seal=_seal("gen"),
        check=senseless,
        share=0.5,
    ),
    "classifier": Kind(
        make=_make_classifier,
        targets=_model("net"),
        read=_read_classifier,
        seal=_seal("net"),
        check=senseless,
        default=12,
        share=0.5,
    ),
    "checkpoint": Kind(
        make=_make_checkpoint,
        targets=(Target("last.ckpt", TORCH, 12), Target("last.ckpt", PLACES)),
        read=_read_checkpoint,
        check=senseless,
    ),
    "name": Kind(
        make=lambda folder: (folder / "name").write_text("ok"),
        targets=(Target("name", (_name,)),),
        read=_read_name,
        share=0.2,
    ),
}
