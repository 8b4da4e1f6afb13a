"""Files that would hang, grow or end in a raw error are one reason; what people write is read as ever."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from pathlib import Path

import pytest
import yaml

from mergevq.config import to_dict
from mergevq.storage.documents import MOST_SETTINGS, DocumentError, parse_yaml, read_json, read_yaml
from mergevq.training.tokenizer.recipes import recipe

NINES = "a0: &a0 [1]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{level}: &a{level}\n  <<: [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 200))

BAD_YAML = [
    (NINES, "stands for more than 10000 values"),
    (MERGES, "stands for more than 10000 values"),
    (CHAIN, "nested too deeply|stands for more than"),
    ("a: &a [*a]", "an alias in it stands for itself"),
    ("&a {b: *a}", "an alias in it stands for itself"),
    ("a: *b", "undefined alias"),
    ("a: " + "[" * 2000, "nested too deeply"),
    ("a: " + "{b: " * 100_000, "nested too deeply"),
    ("- " * 60 + "a", "nested too deeply"),
    ("a: " + "9" * 5000, "a number of 5000 digits"),
    ("a: 1" + ":1" * 5000, "a number of 10001 digits"),
    ("a: -" + "9" * 100_000, "a number of"),
    ("a: [" + "1," * 20_000 + "]", "stands for more than"),
    ("a: {b: 1}\na: {c: 1}", "'a' is given twice"),
    ("a: {b: 1, 'b': 2}", "'b' is given twice"),
    ("a: 2001-13-45", "a value that is none"),
    ("a: !!int ''", "a value that is none"),
    ("a: !!timestamp x", "a value that is none"),
    ("a: !!bool maybe", "a value that is none"),
    ("a: !!python/object/apply:os.system [ls]", "no YAML"),
    ("? [a]\n: b", "no YAML"),
    ("a: [", "no YAML"),
    ("a: \x00", "no YAML"),
    ("a: 1\n---\na: 2", "no YAML"),
]


@pytest.mark.parametrize(("text", "said"), BAD_YAML, ids=[f"{text[:12]!r}" for text, _ in BAD_YAML])
def test_yaml_that_is_refused(text, said):
    with pytest.raises(DocumentError, match=said) as caught:
        parse_yaml(text)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "encoder: &half {width: 64, heads: 1}\ndecoder: *half",
        "a: &a {b: 1}\nc:\n  <<: *a\n  b: 2",
        "a: [1, 2.5, 1e-4, .nan, null, true, 0x10, '9']",
        "",
        "a: {}\nb: []",
    ],
)
def test_what_people_write_is_read_as_ever(text):
    assert repr(parse_yaml(text)) == repr(yaml.safe_load(text))


def test_a_printed_configuration_is_read_as_ever():
    values = to_dict(recipe("G+R"))
    assert parse_yaml(yaml.safe_dump(values)) == values


BAD_JSON = [
    ("[" * 100_000, "nested too deeply"),
    ("[" * 60 + "]" * 60, "nested too deeply"),
    ('{"a": ' * 200 + "1" + "}" * 200, "nested too deeply"),
    ('{"a": ' + "9" * 5000 + "}", "a number of 5000 digits"),
    ('{"a": 1, "a": 2}', "'a' is given twice"),
    ("", "no JSON"),
    ("{", "no JSON"),
    ("\x00", "no JSON"),
]


@pytest.mark.parametrize(("text", "said"), BAD_JSON, ids=[f"{text[:8]!r}" for text, _ in BAD_JSON])
def test_json_that_is_refused(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DocumentError, match=said):
        read_json(tmp_path / "a.json")


def test_files_that_have_no_end_or_no_text(tmp_path):
    for path, said in [
        (Path("/dev/zero"), "more than"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file"),
    ]:
        with pytest.raises(DocumentError, match=said):
            read_yaml(path)
        with pytest.raises(DocumentError, match="no regular file" if path == Path("/dev/zero") else said):
            read_json(path)
    (tmp_path / "long.json").write_text("[" + "1," * 1000 + "1]")
    with pytest.raises(DocumentError, match="more than 1000 bytes"):
        read_json(tmp_path / "long.json", most=1000)
    (tmp_path / "long.yaml").write_text("#" * (MOST_SETTINGS + 1))
    with pytest.raises(DocumentError, match="more than 1048576 bytes"):
        read_yaml(tmp_path / "long.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(DocumentError, match="not text in UTF-8"):
        read_yaml(tmp_path / "latin.yaml")


def test_a_pipe_can_be_read(tmp_path):
    """`--config <(...)` of a shell is one."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        DocumentError, match="no regular file"
    ):  # JSON is of folders, where a pipe is a mistake
        read_json(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("a: 1"))
    writer.start()
    assert read_yaml(tmp_path / "pipe") == {"a": 1}
    writer.join()


def mutated(text: str, rng: random.Random) -> str:
    """A few characters exchanged, doubled, cut out or put in."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text))
        piece = rng.choice(
            ["", "[", "{", "&a ", "*a", ": ", "\n", "!!int ", "<<: ", "9" * 30, text[at : at + 40] * 2]
        )
        text = text[:at] + piece + text[at + rng.choice((0, 1, 9)) :]
    return text


@pytest.mark.parametrize("seed", range(60))
def test_mutated_files_are_read_or_refused(tmp_path, seed):
    rng = random.Random(seed)
    values = to_dict(recipe("tiny-32"))
    for write, read in ((yaml.safe_dump, read_yaml), (json.dumps, read_json)):
        (tmp_path / "file").write_text(mutated(write(values), rng))
        with contextlib.suppress(DocumentError):
            read(tmp_path / "file")


def test_a_number_of_many_digits_is_one_sentence(tmp_path):
    path = tmp_path / "values.json"
    path.write_text(f'{{"seed": {"9" * 5000}}}')
    with pytest.raises(DocumentError, match="it holds a number of 5000 digits"):
        read_json(path)


def test_a_key_given_twice_among_many_is_found_at_once(tmp_path):
    path = tmp_path / "values.json"
    path.write_text("{" + "".join(f'"{number}": 1, ' for number in range(100_000)) + '"99999": 2}')
    with pytest.raises(DocumentError, match="'99999' is given twice"):
        read_json(path)
