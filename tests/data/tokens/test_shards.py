"""Token shards: what comes back, in which order, and every way in which a folder can be spoilt."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mergevq
from mergevq.data.tokens.meta import TokenMeta, Unreadable
from mergevq.data.tokens.shards import TokenShards, token_loader
from mergevq.data.tokens.writer import claim, write_shard
from mergevq.errors import CheckpointError, ConfigError, DataError, UsageError
from mergevq.tokens import TokenBatch

LENGTH, COUNTS = 12, (3, 5, 12)
NO_RECORDS = {7, *range(10, 15)}
"""One picture of shard 1, all of shard 2."""
META = TokenMeta(
    fingerprint="f" * 64,
    tokenizer="tiny-32",
    bits=8,
    image_size=16,
    grid=(3, 4),
    counts=COUNTS,
    class_names=("ant", "bee", "cow"),
    split="train",
    images=23,
    data="d" * 64,
    views=2,
    seed=0,
    shard_size=5,
)


def _arrays(images: list[int]) -> dict[str, np.ndarray]:
    """Sound records that differ from picture to picture and from view to view."""
    records = [(image, view) for image in images for view in range(META.views)]
    arrays = {name: np.zeros(shape, dtype) for name, (dtype, shape) in META.layout(len(records)).items()}
    for row, (image, view) in enumerate(records):
        generator = np.random.default_rng(100 * image + view)
        keep = generator.choice(COUNTS)
        arrays["indices"][row, :keep] = generator.integers(0, 256, keep)
        arrays["source"][row] = generator.integers(0, keep, LENGTH)
        arrays["keep"][row], arrays["label"][row] = keep, image % 3
    return arrays


def _write(folder: Path, meta: TokenMeta = META) -> Path:
    claim(folder, meta)
    for shard in range(meta.shards):
        images = meta.shard_images(shard)
        unreadable = [
            Unreadable(image, f"{image}.png", "it is cut") for image in images if image in NO_RECORDS
        ]
        write_shard(folder, meta, shard, _arrays([i for i in images if i not in NO_RECORDS]), unreadable)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return _write(tmp_path_factory.mktemp("tokens") / "made" / "here")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """To be spoilt."""
    return Path(shutil.copytree(written, tmp_path / "tokens"))


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return _arrays([image for image in range(META.images) if image not in NO_RECORDS])


def _equal(batch: TokenBatch, expected: dict[str, np.ndarray], rows: list[int]) -> bool:
    names = ("label", "indices", "source", "keep")
    assert all(part.dtype == torch.int64 for part in batch)
    return all(
        np.array_equal(part.numpy(), expected[name][rows]) for part, name in zip(batch, names, strict=True)
    )


def test_all_records_in_order(written: Path, expected: dict[str, np.ndarray]) -> None:
    shards = TokenShards(written)
    assert len(shards) == 2 * (23 - 6) and shards.meta == META and shards.meta.classes == 3
    assert _equal(shards.batch(np.arange(len(shards))), expected, list(range(len(shards))))
    assert [one.image for one in shards.unreadable] == sorted(NO_RECORDS)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.integers(0, 33), max_size=40), max_open=st.integers(1, 3))
def test_any_rows_in_any_order(
    written: Path, expected: dict[str, np.ndarray], rows: list[int], max_open: int
) -> None:
    assert _equal(TokenShards(written, max_open).batch(np.array(rows, np.int64)), expected, rows)


@pytest.mark.parametrize("rows", [[34], [0, -1]])
def test_rows_that_are_not_there(written: Path, rows: list[int]) -> None:
    with pytest.raises(UsageError, match="there are 34 records"):
        TokenShards(written).batch(np.array(rows))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux does")
def test_few_files_stay_open(written: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    shards = TokenShards(written, max_open=2)
    shards.batch(np.arange(34))
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 2


def test_a_tokenizer_is_known_by_its_fingerprint(written: Path) -> None:
    with pytest.raises(CheckpointError, match="made by another tokenizer"):
        TokenShards(written).check_tokenizer(mergevq.create("tiny-32", **{"encoder.depth": 1}))


_order = {
    "batch_size": st.integers(1, 9),
    "seed": st.integers(0, 2**64),
    "world": st.integers(1, 3),
}


def _label_rows(batches: list[TokenBatch], expected: dict[str, np.ndarray]) -> list[int]:
    """Which records these are: each differs from every other."""
    known = {
        (*a, *b): row for row, (a, b) in enumerate(zip(expected["indices"], expected["source"], strict=True))
    }
    assert len(known) == 34
    return [
        known[(*a.tolist(), *b.tolist())]
        for batch in batches
        for a, b in zip(batch.indices, batch.source, strict=True)
    ]


@settings(deadline=None, max_examples=25)
@given(**_order)
def test_every_record_once_an_epoch_over_all_ranks(
    written: Path, expected: dict[str, np.ndarray], batch_size: int, seed: int, world: int
) -> None:
    shards = TokenShards(written)
    steps = -(-2 * 34 // (batch_size * world))
    loaders = [token_loader(shards, batch_size, seed=seed, rank=r, world_size=world) for r in range(world)]
    together = [
        batch for step in zip(*(islice(one, steps) for one in loaders), strict=True) for batch in step
    ]
    rows = _label_rows(together, expected)
    assert sorted(rows[:34]) == sorted(rows[34:68]) == list(range(34))
    assert rows[:34] != rows[34:68]


@settings(deadline=None, max_examples=25)
@given(start=st.integers(0, 12), **_order)
def test_a_resumed_loader_yields_the_rest(
    written: Path, start: int, batch_size: int, seed: int, world: int
) -> None:
    shards = TokenShards(written)
    options = {"seed": seed, "rank": start % world, "world_size": world, "steps": 14}
    whole = list(token_loader(shards, batch_size, **options))
    rest = list(token_loader(shards, batch_size, start_step=start, **options))
    assert len(whole) == 14 and _same(rest, whole[start:])


def _same(first: list[TokenBatch], second: list[TokenBatch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one, other)
        for pair in zip(first, second, strict=True)
        for one, other in zip(*pair, strict=True)
    )


def test_processes_that_read_change_nothing(written: Path) -> None:
    shards = TokenShards(written)
    shards.batch(np.arange(5))  # maps are open when the processes start
    alone, shared = (list(token_loader(shards, 4, seed=1, steps=6, workers=n)) for n in (0, 2))
    assert _same(alone, shared) and isinstance(shared[0], TokenBatch)
    copy = pickle.loads(pickle.dumps(shards))
    assert _same([copy.batch(np.arange(34))], [shards.batch(np.arange(34))])
    assert len(pickle.dumps(shards)) < 4000  # no map went along


def test_global_randomness_is_untouched(written: Path) -> None:
    before = torch.get_rng_state()
    list(token_loader(TokenShards(written), 4, seed=0, steps=3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"start_step": -1}])
def test_impossible_loaders(written: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        token_loader(TokenShards(written), **{"batch_size": 2, "seed": 0, **options})


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _replace_by_foreign(folder: Path) -> None:
    other = _write(folder.parent / "other", replace(META, seed=1))
    shutil.rmtree(folder / "shard-00003")
    shutil.copytree(other / "shard-00003", folder / "shard-00003")


def _resave(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.save(path, change(np.load(path)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: shutil.rmtree(f / "shard-00003"), r"1 of 5 shards are missing, first shard-00003; run"),
        (lambda f: [shutil.rmtree(p) for p in f.glob("shard-*")], "5 of 5 shards are missing"),
        (lambda f: _truncate(f / "shard-00001/indices.npy"), r"indices\.npy has \d+ bytes instead of"),
        (lambda f: (f / "shard-00001/keep.npy").write_bytes(b""), r"keep\.npy has 0 bytes"),
        (lambda f: (f / "shard-00001/source.npy").unlink(), r"source\.npy is missing; delete"),
        (lambda f: (f / "shard-00001/shard.json").unlink(), r"has no shard\.json; delete that folder"),
        (lambda f: (f / "shard-00001/shard.json").write_text("{"), r"shard\.json cannot be read"),
        (lambda f: _edit(f / "shard-00001/shard.json", rows="8"), r"shard\.json is damaged: rows must be int"),
        (lambda f: _edit(f / "shard-00001/shard.json", rows=9), "has 9 records and should have 8; delete"),
        (lambda f: _edit(f / "shard-00001/shard.json", unreadable=[]), "has 8 records and should have 10"),
        (lambda f: _edit(f / "shard-00001/shard.json", sizes=[]), r"shard\.json is damaged"),
        (_replace_by_foreign, "shard-00003 belongs to other tokens"),
        (lambda f: _resave(f / "shard-00004/keep.npy", lambda a: a + 1), "shard-00004 is damaged"),
        (lambda f: _resave(f / "shard-00004/label.npy", lambda a: a + 3), "shard-00004 is damaged"),
        (lambda f: _resave(f / "shard-00001/label.npy", lambda a: a.view(np.float32)), "it holds float32"),
        (lambda f: _edit(f / "meta.json", seed=1), "shard-00000 belongs to other tokens"),
        (lambda f: _edit(f / "meta.json", format="x"), "does not describe tokens"),
        (lambda f: _edit(f / "meta.json", version=2), "has version 2 and this mergevq reads version 1"),
        (lambda f: _edit(f / "meta.json", counts=[99]), "do not fit a grid"),
        (lambda f: _edit(f / "meta.json", grid=[-3, -4]), "grid is -3; it must be a whole number"),
        (lambda f: _edit(f / "meta.json", images=10**12), "200000000000 shards; make larger ones"),
        (lambda f: (f / "meta.json").write_text("[" * 100_000), r"meta\.json cannot be read"),
        (lambda f: _flip(f / "shard-00001/checksums.npy", -1), r"checksums\.npy is missing or damaged"),
        (lambda f: (f / "shard-00001/checksums.npy").unlink(), r"checksums\.npy is missing or damaged"),
        (lambda f: (f / "meta.json").write_text('{"format": "mergevq-tokens", "version": 1}'), "is damaged"),
        (lambda f: (f / "meta.json").write_text("[]"), "holds no description"),
    ],
)  # fmt: skip
def test_a_spoilt_folder_is_one_sentence(folder: Path, spoil: Callable[[Path], object], said: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=said):
        TokenShards(folder)


@pytest.mark.parametrize(("name", "value"), [("indices", 256), ("indices", -1), ("source", 12)])
def test_values_out_of_range_are_found_when_read(folder: Path, name: str, value: int) -> None:
    path = folder / "shard-00004" / f"{name}.npy"
    array = np.load(path)
    array[1, 0] = value
    np.save(path, array)
    shards = TokenShards(folder)
    shards.batch(np.arange(28))
    with pytest.raises(DataError, match="shard-00004 is damaged"):
        shards.batch(np.arange(34))


def _flip(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "byte", "row"), [("indices", 0, 0), ("source", 0, 0), ("label", 16, 4)])
def test_a_bit_that_was_turned_is_found_when_its_record_is_read(
    folder: Path, name: str, byte: int, row: int
) -> None:
    """The value that it makes might have been: another code, token or class."""
    path = folder / "shard-00004" / f"{name}.npy"
    _flip(path, path.stat().st_size - np.load(path).nbytes + byte)
    shards = TokenShards(folder)
    shards.batch(np.delete(np.arange(34), 34 - 6 + row))
    with pytest.raises(DataError, match="shard-00004 is damaged: a value is not the one that was written"):
        shards.batch(np.arange(34))


@pytest.mark.parametrize("name", ["indices", "source", "keep", "label"])
def test_a_damaged_header_is_one_sentence(folder: Path, name: str) -> None:
    path = folder / "shard-00001" / f"{name}.npy"
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(30):
        content = bytearray(whole)
        content[generator.integers(0, 118)] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(content)
        with contextlib.suppress(DataError):  # a space may become another
            TokenShards(folder).batch(np.arange(34))


def test_shards_of_older_versions_are_read_and_said(
    folder: Path, expected: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    for shard in folder.glob("shard-*"):
        (shard / "checksums.npy").unlink()
        _edit(shard / "shard.json", checksums="")
    shards = TokenShards(folder)
    assert _equal(shards.batch(np.arange(34)), expected, list(range(34)))
    assert caplog.text.count("has no checksums") == 1


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_tokens(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="holds no tokens"):
        TokenShards(tmp_path / name)


def test_nothing_readable(tmp_path: Path) -> None:
    meta = replace(META, images=2)
    claim(tmp_path, meta)
    write_shard(tmp_path, meta, 0, _arrays([]), [Unreadable(i, f"{i}.png", "it is cut") for i in (0, 1)])
    with pytest.raises(DataError, match="none of its pictures could be read"):
        TokenShards(tmp_path)


@settings(deadline=None)
@given(images=st.integers(1, 200), shard_size=st.integers(1, 50))
def test_each_picture_belongs_to_one_shard(images: int, shard_size: int) -> None:
    meta = replace(META, images=images, shard_size=shard_size)
    numbers = [image for shard in range(meta.shards) for image in meta.shard_images(shard)]
    assert numbers == list(range(images))
    assert all(len(meta.shard_images(shard)) for shard in range(meta.shards))


@pytest.mark.parametrize(
    "changes",
    [{"views": 0}, {"shard_size": 0}, {"counts": ()}, {"counts": (5, 3)}, {"counts": (13,)}, {"bits": 40}],
)
def test_impossible_descriptions(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(META, **changes)
