"""Pictures to token shards: draws, labels, several processes, interruptions, broken pictures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mergevq
from mergevq.data.images.decode import load_image
from mergevq.data.images.sources import ImageSource, open_source
from mergevq.data.images.transforms import center_crop, to_float
from mergevq.data.tokens.extraction import describe, extract
from mergevq.data.tokens.meta import TokenMeta, shard_folder
from mergevq.data.tokens.shards import TokenShards
from mergevq.data.tokens.views import ViewDataset
from mergevq.data.tokens.writer import only_rank, write_shard
from mergevq.errors import CheckpointError, ConfigError, DataError, OutputError, UsageError
from mergevq.models.tokenizer.tokenizer import Tokenizer
from mergevq.storage.leftovers import hidden

TINY = {
    **{f"{part}.{key}": value for part in ("encoder", "decoder") for key, value in
       {"channels": 8, "width": 32, "heads": 1, "depth": 2}.items()},
    "recovery.width": 32,
    "recovery.heads": 1,
    "quantizer.bits": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return mergevq.create("tiny-32", **TINY).eval()


@pytest.fixture
def source(image_folder: Path) -> ImageSource:
    return open_source(str(image_folder), "all")


def _describe(tokenizer: Tokenizer, source: ImageSource, **changes: object) -> TokenMeta:
    settings = {"counts": (16, 40), "views": 3, "seed": 5, "shard_size": 5} | changes
    return describe(tokenizer, source, "all", **settings)  # type: ignore[arg-type]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_records_are_what_the_tokenizer_says(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path
) -> None:
    meta = _describe(tokenizer, source)
    assert extract(tokenizer, source, tmp_path, meta, batch_size=4) == []
    shards = TokenShards(tmp_path)
    shards.check_tokenizer(tokenizer)
    assert len(shards) == 36 and meta.class_names == ("face", "thing") and meta.shards == 3
    batch = shards.batch(np.arange(36))
    assert batch.labels.tolist() == [0] * 18 + [1] * 18
    assert set(batch.keep.tolist()) == {16, 40}
    views = ViewDataset(source, meta)[range(12)]
    same = []
    for row, pixels in enumerate(views.pixels.flatten(0, 1)):
        keep = int(batch.keep[row])
        assert keep == views.counts[row // 3][row % 3]
        tokens = tokenizer.encode(to_float(pixels[None]), keep)
        assert not batch.indices[row, keep:].any()
        same.append(bool((tokens.indices[0] == batch.indices[row, :keep]).all()))
        same.append(torch.equal(tokens.source[0], batch.source[row]))
    assert np.mean(same) > 0.95  # a batch may round otherwise than a picture alone


def test_views(tokenizer: Tokenizer, source: ImageSource, image_folder: Path) -> None:
    meta = _describe(tokenizer, source, views=4)
    dataset = ViewDataset(source, meta)
    pixels = dataset[[0, 1]].pixels
    assert pixels.shape == (2, 4, 3, 32, 32) and pixels.dtype == torch.uint8
    centre = center_crop(load_image(image_folder / "face/00.png"), 32)
    assert torch.equal(pixels[0, 0], centre) and torch.equal(pixels[0, 1], centre.flip(-1))
    assert not torch.equal(pixels[1, 2], pixels[1, 3])
    assert torch.equal(dataset[[1]].pixels[0], pixels[1])
    other = ViewDataset(source, _describe(tokenizer, source, views=4, seed=6))[[1]].pixels[0]
    assert torch.equal(other[:2], pixels[1, :2]) and not torch.equal(other[2:], pixels[1, 2:])
    one = ViewDataset(source, _describe(tokenizer, source, views=1))[[0]].pixels
    assert torch.equal(one[0], pixels[0, :1])


def test_a_further_view_changes_none_before_it(tokenizer: Tokenizer, source: ImageSource) -> None:
    three, five = (ViewDataset(source, _describe(tokenizer, source, views=v))[[2]] for v in (3, 5))
    assert torch.equal(three.pixels[0], five.pixels[0, :3]) and three.counts[0] == five.counts[0][:3]


def test_counts_are_drawn_evenly(tokenizer: Tokenizer) -> None:
    digits = open_source("builtin:digits", "val")
    meta = _describe(tokenizer, digits, counts=(64, 16, 32), views=2)
    assert meta.counts == (16, 32, 64)
    counts = np.array(ViewDataset(digits, meta)[range(300)].counts)
    for view in (0, 1):
        assert all(70 <= (counts[:, view] == keep).sum() <= 130 for keep in meta.counts)
    assert 60 <= (counts[:, 0] == counts[:, 1]).sum() <= 140  # views draw independently


def test_ranks_processes_and_crashes_change_nothing(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = _describe(tokenizer, source)
    extract(tokenizer, source, tmp_path / "one", meta)
    assert extract(tokenizer, source, tmp_path / "two", meta, rank=1, world=2, workers=2) == [0, 2]
    with pytest.raises(DataError, match="2 of 3 shards are missing, first shard-00000"):
        TokenShards(tmp_path / "two")
    assert extract(tokenizer, source, tmp_path / "two", meta, rank=0, world=2) == []
    assert _files(tmp_path / "one") == _files(tmp_path / "two")

    def pulled(descriptor: int) -> None:
        raise KeyboardInterrupt

    shutil.rmtree(tmp_path / "two/shard-00001")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", pulled)
        with pytest.raises(KeyboardInterrupt):
            extract(tokenizer, source, tmp_path / "two", meta)
    assert not list(tmp_path.glob("two/.shard*"))
    assert extract(tokenizer, source, tmp_path / "two", meta) == []
    assert _files(tmp_path / "one") == _files(tmp_path / "two")


def test_what_a_killed_run_left_is_removed(tokenizer: Tokenizer, source: ImageSource, tmp_path: Path) -> None:
    meta = _describe(tokenizer, source)
    names = [hidden(shard_folder(tmp_path, shard)).name for shard in (1, 2)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "indices.npy").write_bytes(b"half")
    extract(tokenizer, source, tmp_path, meta, rank=1, world=3)
    assert [path.name for path in tmp_path.glob(".shard*")] == names[1:]  # its process runs, and may write


@pytest.mark.parametrize(
    ("place", "said"),
    [((0, 2), "makes the shards of rank 0 of 2"), ((2, 3), "as rank 2 of 3, and this one is one of 2")],
)
def test_two_processes_for_the_same_shards(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path, place: tuple[int, int], said: str
) -> None:
    meta = _describe(tokenizer, source)
    with only_rank(tmp_path, *place), pytest.raises(UsageError, match=said) as caught:
        extract(tokenizer, source, tmp_path, meta, rank=0, world=2)
    assert f"process {os.getpid()} on " in str(caught.value) and not list(tmp_path.glob("shard-*"))
    with only_rank(tmp_path, 1, 2):
        assert extract(tokenizer, source, tmp_path, meta, rank=0, world=2) == [1]
    assert not list(tmp_path.glob(".*"))


def test_a_shard_that_another_process_made_meanwhile(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path
) -> None:
    meta = _describe(tokenizer, source)
    extract(tokenizer, source, tmp_path, meta)
    before = _files(tmp_path)
    empty = {name: np.zeros(shape, dtype) for name, (dtype, shape) in meta.layout(0).items()}
    write_shard(tmp_path, meta, 1, empty, [])
    assert _files(tmp_path) == before


def test_broken_pictures_are_recorded_and_not_tried_again(
    tokenizer: Tokenizer, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = image_folder / "face" / "01.jpg"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:300])
    source = open_source(str(image_folder), "all")
    meta = _describe(tokenizer, source)
    seen: list[int] = []
    assert extract(tokenizer, source, tmp_path / "out", meta, progress=seen.append) == []
    assert sum(seen) == 12 and f"skipping {broken}" in caplog.text
    shards = TokenShards(tmp_path / "out")
    assert [(one.image, one.name) for one in shards.unreadable] == [(1, str(broken))]
    assert len(shards) == 33 and shards.batch(np.arange(33)).labels.tolist() == [0] * 15 + [1] * 18
    broken.write_bytes(whole)
    before = _files(tmp_path / "out")
    extract(tokenizer, source, tmp_path / "out", meta, progress=seen.append)
    assert sum(seen) == 12 and _files(tmp_path / "out") == before


def test_too_many_broken_pictures_stop_the_run(
    tokenizer: Tokenizer, image_folder: Path, tmp_path: Path
) -> None:
    for path in (image_folder / "thing").iterdir():
        path.write_bytes(b"no picture")
    source = open_source(str(image_folder), "all")
    with pytest.raises(DataError, match=r"pictures could not be read and --max-failures is 2"):
        extract(tokenizer, source, tmp_path, _describe(tokenizer, source), max_failures=2)
    assert sorted(path.name for path in tmp_path.glob("*shard*")) == ["shard-00000"]


def test_the_same_pictures_elsewhere_are_the_same(
    tokenizer: Tokenizer, image_folder: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(image_folder, tmp_path / "elsewhere" / "moved"))
    here, there = (open_source(str(path), "all") for path in (image_folder, moved))
    assert _describe(tokenizer, here) == _describe(tokenizer, there)
    (moved / "face" / "00.png").rename(moved / "thing" / "00.png")
    assert _describe(tokenizer, here) != _describe(tokenizer, open_source(str(moved), "all"))


def test_another_tokenizer_or_other_settings_do_not_go_on(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path
) -> None:
    meta = _describe(tokenizer, source)
    extract(tokenizer, source, tmp_path / "out", meta, rank=0, world=3)
    other = _describe(tokenizer, source, seed=1, counts=(16,))
    with pytest.raises(ConfigError, match=r"keep \(16,40 there, 16 here\), seed \(5 there, 1 here\)"):
        extract(tokenizer, source, tmp_path / "out", other)
    torch.manual_seed(1)
    stranger = mergevq.create("tiny-32", **TINY).eval()
    with pytest.raises(CheckpointError, match="holds tokens of another tokenizer"):
        extract(stranger, source, tmp_path / "out", _describe(stranger, source))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["meta.json", "shard-00000"]


def test_a_damaged_shard_is_named_when_a_run_goes_on(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path
) -> None:
    meta = _describe(tokenizer, source)
    extract(tokenizer, source, tmp_path, meta)
    (tmp_path / "shard-00001/keep.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"keep\.npy has 0 bytes .* delete that folder and run"):
        extract(tokenizer, source, tmp_path, meta)


def test_a_shard_that_cannot_be_written(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    meta = _describe(tokenizer, source)
    extract(tokenizer, source, tmp_path / "out", meta, rank=0, world=3)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="shard-00001: No space left on device"):
        extract(tokenizer, source, tmp_path / "out", meta)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["meta.json", "shard-00000"]


@pytest.mark.parametrize("options", [{"rank": 1}, {"rank": -1}, {"world": 0}, {"batch_size": 0}])
def test_impossible_numbers(
    tokenizer: Tokenizer, source: ImageSource, tmp_path: Path, options: dict[str, int]
) -> None:
    with pytest.raises(UsageError):
        extract(tokenizer, source, tmp_path, _describe(tokenizer, source), **options)
    assert not list(tmp_path.glob("shard*"))


def test_a_count_out_of_reach(tokenizer: Tokenizer, source: ImageSource) -> None:
    with pytest.raises(UsageError, match="nearest count that can be reached is 16"):
        _describe(tokenizer, source, counts=(32, 3))


def test_flat_folders_and_built_in_sets_have_labels(tokenizer: Tokenizer, tmp_path: Path) -> None:
    for n in range(3):
        Image.new("RGB", (40, 32), (80 * n, 0, 0)).save(tmp_path / f"{n}.png")
    for path, classes in ((str(tmp_path), (".",)), ("builtin:digits", tuple("0123456789"))):
        source = open_source(path, "all")
        meta = describe(tokenizer, source, "all")
        assert meta.class_names == classes and meta.counts == (32,)
        labels = ViewDataset(source, meta)[range(3)].labels
        assert labels == [source.label(n) for n in range(3)]
