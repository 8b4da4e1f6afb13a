"""Generators on disk: what is refused before anything is built, and how a folder is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import mergevq
from mergevq.errors import CheckpointError
from mergevq.generation import store
from mergevq.models.generators.autoregressive import Generator

TOKENIZER = {
    **{f"{part}.{key}": value for part in ("encoder", "decoder") for key, value in
       {"channels": 8, "width": 32, "heads": 1, "depth": 2}.items()},
    **{"recovery.width": 32, "recovery.heads": 1, "recovery.depth": 1, "quantizer.bits": 8},
}  # fmt: skip


@pytest.fixture(params=["merge_ar", "rand_ar"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    tokenizer = mergevq.create("tiny-32", **TOKENIZER)
    generator = mergevq.create_generator("nano", request.param, tokenizer, depth=1, width=64, classes=3)
    if request.param == "rand_ar":
        generator.model.remember_layouts(torch.eye(64)[:5].bool(), torch.arange(5) % 3)
    mergevq.save(generator, tmp_path / "gen")
    return tmp_path / "gen"


BLOWN_UP = [
    ("depth", 10**9), ("head_depth", 10**12), ("width", 2**30), ("classes", 10**15), ("grid", 10**10), ("depth", 1024),
    ("head_depth", 1024), ("width", 2**16), ("classes", 10**6), ("split", [16] * 31), ("window", 10**20),
    ("counts", [10**19]), ("counts", [1] * 10**5),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BLOWN_UP, ids=[f"{key}={value}"[:20] for key, value in BLOWN_UP])
def test_a_description_of_a_larger_generator_is_refused_before_it_is_built(saved, monkeypatch, key, value):
    def on_the_meta_device(config):
        assert torch.empty(0).is_meta, "memory would have been taken"
        return Generator(config)

    described = json.loads((saved / "config.json").read_text())
    described["config"][key] = value
    (saved / "config.json").write_text(json.dumps(described))
    monkeypatch.setattr(store, "Generator", on_the_meta_device)
    with pytest.raises(
        CheckpointError, match=r"does not fit its conf|configuration that cannot be"
    ) as caught:
        mergevq.load(saved)
    assert len(str(caught.value)) < 500


def test_it_loads_by_its_folder_and_says_what_else_it_is(saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    loaded = mergevq.load("~/gen")
    mergevq.save(loaded, "~/again")
    assert (saved.parent / "again" / "tokenizer" / "config.json").is_file()
    with pytest.raises(
        CheckpointError, match="does not describe a mergevq tokenizer but 'mergevq-generator'"
    ):
        store.store.load(saved)
    with pytest.raises(
        CheckpointError, match="does not describe a mergevq generator but 'mergevq-tokenizer'"
    ):
        store.load_generator(saved / "tokenizer")
    with pytest.raises(CheckpointError, match="one file of a model; give its folder"):
        store.load_generator(saved / "model.safetensors")
    with pytest.raises(CheckpointError, match="did you mean"):
        store.load_generator(saved.parent / "gem")


def test_a_generator_is_loaded_from_the_hub(saved, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda repository, **_: str(saved))
    assert mergevq.load("hf://someone/gen").kind == mergevq.load(saved).kind
