"""decode: pictures under their names, and no token file that it should not trust."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mergevq
from mergevq.cli.decode import png_names
from mergevq.data.images.transforms import to_uint8
from mergevq.data.tokens.file import load_tokens


@pytest.fixture
def token_file(mergevq_main, tiny, image_folder, tmp_path):
    path = tmp_path / "tokens.npz"
    files = sorted(image_folder.rglob("*.*"))[:3]
    assert mergevq_main("encode", "--checkpoint", tiny, *files, "--keep", 24, "--out", path).code == 0
    return path


def test_both_sources(mergevq_main, mergevq_process, tiny, token_file, tmp_path):
    tokenizer, tokens = mergevq.load(tiny), load_tokens(token_file).tokens
    plain = mergevq_process("decode", "--checkpoint", tiny, token_file, "--out", tmp_path / "true")
    assert plain.code == 0, plain.err
    arguments = ("--source", "recovered", "--batch-size", 2)
    assert mergevq_main(
        "decode", "--checkpoint", tiny, token_file, "--out", tmp_path / "rec", *arguments
    ).code == 0  # fmt: skip
    for folder, images in (("true", tokenizer.decode(tokens)), ("rec", tokenizer.decode(tokens.indices))):
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["00.png", "01.png", "02.png"]
        with Image.open(tmp_path / folder / "02.png") as picture:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert (pixels.int() - to_uint8(images)[2].int()).abs().max() <= 1


def test_tokens_of_another_tokenizer_are_refused(mergevq_process, token_file, tmp_path):
    mergevq.save(mergevq.create("tiny-32"), tmp_path / "other")
    result = mergevq_process(
        "decode", "--checkpoint", tmp_path / "other", token_file, "--out", tmp_path / "d"
    )
    assert result.code == 1 and "made by another tokenizer" in result.error
    assert not (tmp_path / "d").exists()


def _change(path, **changes):
    with np.load(path) as stored:
        arrays = {**stored, **changes}
    with path.open("wb") as file:
        np.savez(file, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("indices", lambda old: old + 256, "a code outside"),
        ("indices", lambda old: -1 - old, "negative"),
        ("indices", lambda old: old.astype(np.float32), "its indices are float32"),
        ("indices", lambda old: old[:, :, None], "3 dimensions"),
        ("indices", lambda old: np.array([[{"a": 1}]], object), "it claims to hold object"),
        ("source", lambda old: old * 0 + 24, "points outside the 24 tokens"),
        ("source", lambda old: old[:, :-1], "on a 8 x 8 grid"),
        ("source", lambda old: old[:, ::-1] * 0, "sizes are not those"),
        ("sizes", lambda old: old + 1, "sizes are not those"),
        ("grid", lambda old: np.array([8, -8], np.int32), "on a 8 x -8 grid"),
        ("grid", lambda old: np.array([1 << 30, 1 << 30, 1]), "its grid are int64"),
        ("names", lambda old: old[:1], "of shape (1,) for 3 pictures"),
        ("names", lambda old: None, "has no names"),
        ("format", lambda old: np.array("mergevq-tokens 99"), "mergevq-tokens 99"),
    ],
)
def test_a_tampered_file_is_one_sentence(mergevq_main, tiny, token_file, tmp_path, name, value, said):
    with np.load(token_file) as stored:
        changed = value(stored[name])
    _change(token_file, **{name: changed})
    result = mergevq_main("decode", "--checkpoint", tiny, token_file, "--out", tmp_path / "d")
    assert result.code == 1 and said in result.error
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", b"\x80\x04K\x01.", b"PK\x03\x04broken"],
    ids=["empty", "text", "pickle", "zip"],
)
def test_what_is_no_token_file(mergevq_main, tiny, tmp_path, content):
    (tmp_path / "t.npz").write_bytes(content)
    result = mergevq_main("decode", "--checkpoint", tiny, tmp_path / "t.npz", "--out", tmp_path / "d")
    assert result.code == 1 and "cannot be read as a token file" in result.error


def test_a_truncated_file_and_a_single_array(mergevq_main, tiny, token_file, tmp_path):
    token_file.write_bytes(token_file.read_bytes()[:-200])
    np.save(tmp_path / "array.npy", np.zeros(3))
    for path, said in ((token_file, "cannot be read"), (tmp_path / "array.npy", "single array")):
        result = mergevq_main("decode", "--checkpoint", tiny, path, "--out", tmp_path / "d")
        assert result.code == 1 and said in result.error


def test_a_missing_file_and_an_unwritable_folder(mergevq_main, tiny, token_file, tmp_path):
    result = mergevq_main("decode", "--checkpoint", tiny, tmp_path / "no.npz", "--out", tmp_path / "d")
    assert result.code == 2 and "there is no token file" in result.error
    result = mergevq_main("decode", "--checkpoint", tiny, token_file, "--out", token_file / "d")
    assert result.code == 1 and result.error.startswith("cannot write")


def test_names_become_different_pictures_inside_the_folder():
    names = [
        "a/x.jpg",
        "a/x.png",
        "../../etc/passwd",
        "//etc/y.png",
        "..",
        "builtin:p/f.png[0:5, 0:5]",
        "x/..",
    ]
    assert png_names(names) == [
        "a/x.png",
        "a/x-2.png",
        "etc/passwd.png",
        "etc/y.png",
        "picture.png",
        "builtin_p/f.png",
        "x.png",
    ]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="./\\:ab-2\x00", max_size=8)))
def test_names_stay_different_and_inside(names):
    paths = png_names(names)
    assert len(paths) == len(set(paths)) == len(names)
    for path in paths:
        assert path.endswith(".png") and not path.startswith("/")
        assert ".." not in path.split("/") and "\x00" not in path
