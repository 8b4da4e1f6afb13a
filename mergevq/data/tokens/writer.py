"""Writing token shards: the folder's description once, and each shard whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mergevq.config import to_dict
from mergevq.data.tokens.checksums import checksums
from mergevq.data.tokens.meta import (
    ARRAYS,
    CHECKSUMS,
    FORMAT,
    META,
    SUMMARY,
    VERSION,
    ShardSummary,
    TokenMeta,
    Unreadable,
    read_meta,
    shard_folder,
)
from mergevq.errors import CheckpointError, ConfigError, UsageError
from mergevq.storage.files import sha256, write_atomically, writing
from mergevq.storage.leftovers import PART, clear, hidden, remove
from mergevq.storage.locks import holder, only_writer


def claim(folder: Path, meta: TokenMeta) -> None:
    """Makes a folder one for these tokens, or makes sure that it is one already.

    Raises:
        CheckpointError: it holds the tokens of another tokenizer.
        ConfigError: it holds tokens made with other settings; they are named.
        OutputError: it cannot be written.
    """
    if not (folder / META).exists():
        described = {"format": FORMAT, "version": VERSION} | to_dict(meta)
        write_atomically(folder / META, lambda path: path.write_text(json.dumps(described, indent=2) + "\n"))
    found = read_meta(folder)  # also after writing: another process may have been faster
    if found.fingerprint != meta.fingerprint:
        raise CheckpointError(
            f"{folder} holds tokens of another tokenizer (fingerprint {found.fingerprint[:12]}, this one has "
            f"{meta.fingerprint[:12]}); give another --out, or the checkpoint that they were made with"
        )
    fields = [field.name for field in dataclasses.fields(TokenMeta)]
    other = [name for name in fields if getattr(found, name) != getattr(meta, name)]
    if other:
        named = ", ".join(_difference(name, getattr(found, name), getattr(meta, name)) for name in other)
        raise ConfigError(
            f"{folder} holds tokens made with other settings: {named}; give another --out, or the same settings"
        )


@contextmanager
def only_rank(folder: Path, rank: int, world: int) -> Iterator[None]:
    """Within this context no other process makes the shards of this rank, nor any number of others shares them.

    Raises:
        UsageError: one does; it is named.
    """
    for other in folder.glob(".rank-*-of-*.lock"):
        if not other.name.endswith(f"-of-{world}.lock") and (who := holder(other)):
            raise UsageError(
                f"{folder} is in use: {who} makes shards there as {other.stem.lstrip('.').replace('-', ' ')}, and this "
                f"one is one of {world}; wait until it has ended, or choose another --out"
            )
    with only_writer(folder, f".rank-{rank}-of-{world}.lock", f"makes the shards of rank {rank} of {world}"):
        yield


def remove_leftovers(folder: Path, shards: Sequence[int]) -> None:
    """Removes what killed runs left: whatever there is of this rank's shards, which nobody else makes now."""
    clear(folder)
    own = {shard_folder(folder, shard).name for shard in shards}
    for path in folder.glob(f".shard-*{PART}"):
        if path.name.split(".")[1] in own:
            remove(path)


def write_shard(
    folder: Path, meta: TokenMeta, shard: int, arrays: dict[str, np.ndarray], unreadable: list[Unreadable]
) -> None:
    """Writes a shard under another name and renames it.

    Raises:
        OutputError: it cannot be written; nothing of it is left.
    """
    final = shard_folder(folder, shard)
    temporary = hidden(final)
    try:
        with writing(final):
            temporary.mkdir()
            paths = [temporary / f"{name}.npy" for name in ARRAYS]
            for name, path in zip(ARRAYS, paths, strict=True):
                _save(path, partial(np.save, arr=arrays[name], allow_pickle=False))
            sums = temporary / f"{CHECKSUMS}.npy"
            _save(sums, partial(np.save, arr=checksums(**arrays), allow_pickle=False))
            summary = ShardSummary(
                meta=meta.digest,
                rows=len(arrays["keep"]),
                sizes=tuple(path.stat().st_size for path in paths),
                unreadable=tuple(unreadable),
                checksums=sha256(sums),
            )
            text = json.dumps(dataclasses.asdict(summary), indent=2) + "\n"
            _save(temporary / SUMMARY, lambda file: file.write(text.encode()))
            _rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _rename(temporary: Path, final: Path) -> None:
    try:
        temporary.rename(final)
    except OSError:
        if not final.is_dir():  # else another process was faster, with the same shard
            raise


def _difference(name: str, there: Any, here: Any) -> str:
    labels = {"counts": "keep", "images": "number of pictures", "data": "names of the pictures"}
    texts = [_worded(name, value) for value in (there, here)]
    return f"{labels.get(name, name.replace('_', ' '))} ({texts[0]} there, {texts[1]} here)"


def _worded(name: str, value: Any) -> str:
    if name == "data":
        return str(value)[:12]
    if name == "class_names":
        return f"{len(value)} of them"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
