"""Tokens in a file, and in a folder of shards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fuzzing.case import Kind, Target
from fuzzing.kinds.models import tiny_tokenizer
from fuzzing.mutators.arrays import NPY, ZIP
from fuzzing.mutators.places import PLACES
from fuzzing.mutators.trees import JSON


def _make_file(folder: Path) -> None:
    import torch

    from mergevq.data.tokens.file import TokenFile, save_tokens
    from mergevq.models.store import fingerprint

    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode(torch.zeros(2, 3, 32, 32))
    save_tokens(folder / "tokens.npz", TokenFile(tokens, ["a.png", "b.png"], 4, fingerprint(tokenizer)))


def _read_file(folder: Path) -> None:
    """As `mergevq decode` does, which takes names from the file too."""
    from mergevq.cli.decode import png_names
    from mergevq.data.tokens.array_file import load_token_arrays

    file = load_token_arrays(folder / "tokens.npz")
    file.check_maker(file.tokenizer, 8)
    png_names(file.names)


def _make_shards(folder: Path) -> None:
    from fuzzing.kinds.sets import _make_folder
    from mergevq.data.images.sources import open_source
    from mergevq.data.tokens.extraction import describe, extract

    _make_folder(folder)
    tokenizer = tiny_tokenizer()
    source = open_source(str(folder / "set"), "all")
    meta = describe(tokenizer, source, "all", counts=(24, 40), views=2, shard_size=2)
    extract(tokenizer, source, folder / "tokens", meta)


def _read_shards(folder: Path) -> Any:
    import numpy as np

    from mergevq.data.tokens.shards import TokenShards
    from mergevq.data.tokens.splits import hold_out

    shards = TokenShards(folder / "tokens")
    hold_out(shards, 0.5)
    batch = shards.batch(np.arange(len(shards)))
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)).hexdigest(), str(folder)


_SOUND: dict[str, str] = {}
"""The hash of the valid tokens, which the first reading of any case finds out beside its own."""


def _check_shards(found: Any) -> str | None:
    """Tokens that were read are those that were written: each record has its hash, or ought to have."""
    digest, folder = found
    valid = Path(folder).parent.parent / "valid" / "token-shards"
    if "token-shards" not in _SOUND:
        _SOUND["token-shards"] = _read_shards(valid)[0]
    return None if digest == _SOUND["token-shards"] else "other tokens than were written"


def _seal_shards(folder: Path) -> None:
    """The digest of the description, in the shards."""
    home = folder / "tokens"
    try:
        meta = json.loads((home / "meta.json").read_text())
        plain = {name: value for name, value in meta.items() if name not in ("format", "version")}
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        for summary in home.glob("shard-*/shard.json"):
            values = json.loads(summary.read_text())
            summary.write_text(json.dumps({**values, "meta": digest}))
            _seal_sizes(summary.parent, values)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        pass


def _seal_sizes(shard: Path, values: dict[str, Any]) -> None:
    names = ("indices", "source", "keep", "label")
    sizes = [(shard / f"{name}.npy").stat().st_size for name in names]
    summary = json.loads((shard / "shard.json").read_text())
    (shard / "shard.json").write_text(json.dumps({**summary, "sizes": sizes}))


_SHARD = "tokens/shard-00000"
KINDS = {
    "token-file": Kind(
        make=_make_file,
        targets=(Target("tokens.npz", ZIP, 15), Target("tokens.npz", PLACES)),
        read=_read_file,
    ),
    "token-shards": Kind(
        make=_make_shards,
        targets=(
            Target("tokens/meta.json", JSON, 4),
            Target(f"{_SHARD}/shard.json", JSON, 4),
            *(Target(f"{_SHARD}/{name}.npy", NPY, 2) for name in ("indices", "source", "keep", "label")),
            *(
                Target(f"tokens/{name}", PLACES, 0.2)
                for name in ("meta.json", "shard-00000", "shard-00000/shard.json")
            ),
            *(Target(f"{_SHARD}/{name}.npy", PLACES, 0.2) for name in ("indices", "keep")),
        ),
        read=_read_shards,
        seal=_seal_shards,
        check=_check_shards,
    ),
}
