"""train classifier: one line, a whole file, and no folder for what cannot be trained."""

from __future__ import annotations

import re

import pytest

from mergevq.metrics.features.classifier import load_classifier

WORDS = ("train", "classifier")
SMALL = ("--size", 8, "--epochs", 1, "--workers", 0)


def test_it_trains_and_says_how_well(mergevq_process, tmp_path):
    result = mergevq_process(*WORDS, "--data", "builtin:digits", "--out", "judge", *SMALL, "--seed", 3)
    card = load_classifier(tmp_path / "judge").card
    assert result.code == 0
    assert result.out == f"judge: {card.accuracy:.2%} of 359 test pictures right\n"
    line, epoch = result.err.splitlines()
    assert (
        line
        == "data builtin:digits: 1438 training and 359 validation pictures (built in), 10 classes (0 ... 9)"
    )
    assert re.fullmatch(r"epoch 1 of 1: loss \d\.\d{4}, \d+\.\d s", epoch)
    assert (card.data, card.size, card.seed, len(card.classes)) == ("builtin:digits", 8, 3, 10)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "nowhere", "--out", "out"), 2, "nowhere does not exist"),
        (("--data", "builtin:digit", "--out", "out"), 2, "did you mean 'digits'?"),
        (("--data", "builtin:digits", "--out", "/proc/nowhere"), 1, "cannot write /proc/nowhere"),
        (
            ("--data", "builtin:digits", "--out", "out", "--size", "4"),
            2,
            "size is 4; it must be a whole number from 8",
        ),
        (("--data", "builtin:digits", "--out", "out", "--epochs", "0"), 2, "--epochs: '0' is not"),
        (("--data", "builtin:digits"), 2, "required: --out"),
        (("--data", "builtin:digits", "--out", "out", *SMALL, "--max-pixels", "63"), 1, "max_pixels is 63"),
    ],
)
def test_what_cannot_be_done(mergevq_main, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    result = mergevq_main(*WORDS, *arguments)
    assert result.code == code and said in result.error and result.out == ""
