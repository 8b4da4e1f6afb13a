"""Damage to what PyTorch saved: other values under the same names, other names, whole modules, code."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing.mutators import arrays, raw, trees


def saved(draw: random.Random, path: Path) -> str:
    """Changes the plain values or the tensors in a file of `torch.save`."""
    import torch

    values = torch.load(path, weights_only=True)
    name, act = draw.choice(_ACTIONS)
    changed = act(draw, values)
    with contextlib.suppress(Exception):  # what cannot be saved stays as it was
        torch.save(changed, path)
    return name


def old_form(draw: random.Random, path: Path) -> str:
    """Writes the same values in PyTorch's older form, or as a bare pickle of a protocol."""
    import torch

    values = torch.load(path, weights_only=True)
    if draw.random() < 0.6:
        torch.save(values, path, _use_new_zipfile_serialization=False)
        return "in the older form"
    plain = dict.fromkeys(values, 1) if isinstance(values, dict) else values
    path.write_bytes(pickle.dumps(plain, protocol=draw.randrange(6)))
    return "a bare pickle"


def whole_module(draw: random.Random, path: Path) -> str:
    """A pickled module in the place of its tensors."""
    import torch

    torch.save(
        draw.choice((torch.nn.Linear(2, 2), {"state_dict": torch.nn.Linear(2, 2)}, [torch.ones(1)], "x")),
        path,
    )
    return "a pickled module"


def _tree(draw: random.Random, values: Any) -> Any:
    """The configuration in a checkpoint, damaged as JSON is."""
    if not isinstance(values, dict) or "mergevq" not in values:
        return values
    text, _ = trees.damage(draw, values["mergevq"], "json")
    with contextlib.suppress(ValueError, RecursionError):
        values["mergevq"] = json.loads(text)
    return values


def _tensors(values: Any) -> dict[Any, Any]:
    """The dict that holds the tensors."""
    inner = values.get("state_dict") if isinstance(values, dict) else None
    return inner if isinstance(inner, dict) else values


def _one(change: Callable[[random.Random, Any], Any]) -> Callable[[random.Random, Any], Any]:
    """Changes one tensor."""

    def act(draw: random.Random, values: Any) -> Any:
        tensors = _tensors(values)
        name = draw.choice(list(tensors))
        tensors[name] = change(draw, tensors[name])
        return values

    return act


def _other(draw: random.Random, tensor: Any) -> Any:
    """Something else in a tensor's place."""
    import torch

    return draw.choice(
        (
            None, 1, "x", [tensor], {"a": tensor}, float("nan"), torch.ones(0), torch.ones(1),
            tensor[None], tensor.double(), tensor.half(), tensor.to(torch.complex64), tensor.long(),
            tensor.bool(), tensor.to_sparse(), tensor * float("nan"), tensor.to("meta"),
            torch.nn.Parameter(tensor.clone()), tensor.expand(3, *tensor.shape), torch.Size([1]),
            torch.float32, torch.empty(1).expand(10**12),
            torch.zeros(1, dtype=torch.uint8).as_strided((10**6, 10**6), (0, 0)),
        )
    )  # fmt: skip


def _renamed(draw: random.Random, values: Any) -> Any:
    tensors = _tensors(values)
    name = draw.choice(list(tensors))
    tensors[
        draw.choice(
            (f"{name}.x", "", 1, None, ("a",), "blocks.x.y", "blocks.", "x" * 3000, "a\nb", "\x1b[31m")
        )
    ] = tensors.pop(name)
    return values


def _missing(draw: random.Random, values: Any) -> Any:
    container = draw.choice((values, _tensors(values)))
    del container[draw.choice(list(container))]
    return values


def _outer(draw: random.Random, values: Any) -> Any:
    values[draw.choice(list(values))] = draw.choice((None, 1, "x", [], {}, {1: 2}, [1, 2]))
    return values


_ACTIONS: tuple[tuple[str, Callable[[random.Random, Any], Any]], ...] = (
    ("another configuration", _tree),
    ("another configuration", _tree),
    ("another configuration", _tree),
    ("another value for a tensor", _one(_other)),
    ("another value for a tensor", _one(_other)),
    ("another name", _renamed),
    ("something missing", _missing),
    ("another value at the top", _outer),
    ("a list", lambda draw, values: list(values)),
    ("deeper", lambda draw, values: {"model": values}),
    ("nothing", lambda draw, values: {}),
)
TORCH = (saved, saved, saved, old_form, whole_module, arrays.members, arrays.central, *raw.BYTES[:5])
"""For files of `torch.save`."""
