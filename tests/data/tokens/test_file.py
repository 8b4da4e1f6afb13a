"""Token files: what comes back, and to which tokenizer they belong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mergevq
from mergevq.data.tokens.file import TokenFile, joined, load_tokens, save_tokens
from mergevq.errors import CheckpointError, DataError, OutputError
from mergevq.models.store import fingerprint
from mergevq.models.tokenizer.tokenizer import Tokenizer

SMALL = {
    **{f"{part}.{key}": value for part in ("encoder", "decoder") for key, value in
       {"channels": 8, "width": 32, "heads": 1, "depth": 1}.items()},
    "recovery.width": 32,
    "recovery.heads": 1,
    "quantizer.bits": 8,
}  # fmt: skip


@pytest.fixture
def small_tokenizer() -> Tokenizer:
    return mergevq.create("tiny-32", **SMALL).eval()


def _file(tokenizer: Tokenizer, names: list[str]) -> TokenFile:
    images = torch.rand(len(names), 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        parts = [tokenizer.encode(image[None], 40) for image in images]
    return TokenFile(joined(parts), names, 4, fingerprint(tokenizer))


def test_a_round_trip(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = _file(small_tokenizer, ["a/ä.png", "b\udce4.jpg", ""])
    save_tokens(tmp_path / "deep" / "t.npz", file)
    back = load_tokens(tmp_path / "deep" / "t.npz")
    for name in ("indices", "source", "sizes"):
        assert torch.equal(getattr(back.tokens, name), getattr(file.tokens, name))
    assert (back.tokens.grid, back.names, back.stride) == ((8, 8), file.names, 4)
    back.check_tokenizer(small_tokenizer)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["t.npz"]


def test_the_fingerprint_follows_the_weights(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    mergevq.save(small_tokenizer, tmp_path / "tok")
    assert fingerprint(mergevq.load(tmp_path / "tok")) == fingerprint(small_tokenizer)
    file = _file(small_tokenizer, ["a"])
    with torch.no_grad():
        small_tokenizer.recovery.queries[0, 0, 0] += 1e-6
    file.check_tokenizer(small_tokenizer)  # fine-tuned recovery reads the same tokens
    with torch.no_grad():
        next(small_tokenizer.encoder.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(CheckpointError, match="made by another tokenizer"):
        file.check_tokenizer(small_tokenizer)


def test_a_code_outside_the_vocabulary(small_tokenizer: Tokenizer) -> None:
    file = _file(small_tokenizer, ["a"])
    file.tokens.indices[0, 3] = 256
    with pytest.raises(DataError, match="outside the tokenizer's 256"):
        file.check_tokenizer(small_tokenizer)


def test_a_failed_write_leaves_the_old_file(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    save_tokens(path, _file(small_tokenizer, ["old"]))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save_tokens(tmp_path / "file" / "t.npz", _file(small_tokenizer, ["new"]))
    assert load_tokens(path).names == ["old"]
