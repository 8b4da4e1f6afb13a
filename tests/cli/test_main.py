"""The table of commands, their help, and how anything that goes wrong is told."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import warnings

import pytest

from mergevq import cli
from mergevq.cli import COMMANDS, build_parser, main, sentence
from mergevq.cli.shared.parser import parse
from mergevq.errors import DataError, OutputError


def _leaves(parser, name=()):
    """Every parser that runs something, with the words that lead to it."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield name, parser
    for word, child in [item for group in groups for item in group.choices.items()]:
        yield from _leaves(child, (*name, word))


LEAVES = dict(_leaves(build_parser()))


def _examples(epilog):
    joined = epilog.removeprefix("examples:\n").replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if line.strip()]


def test_every_command_is_registered_under_its_name():
    assert list(COMMANDS) == list(dict.fromkeys(words[0] for words in LEAVES))


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_help_has_examples_that_parse(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    out = capsys.readouterr().out
    examples = _examples(LEAVES[words].epilog)
    assert stop.value.code == 0
    assert 1 <= len(examples) <= 4 and "examples:\n" in out
    assert all(option.help for option in LEAVES[words]._actions)
    for example in examples:
        program, *arguments = shlex.split(example)
        assert program == "mergevq" and tuple(arguments[: len(words)]) == words
        assert callable(parse(build_parser(), arguments).run)


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("mergevq ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train", "tokeniser"], "unknown command 'tokeniser'; did you mean 'tokenizer'?"),
        (["encode", "--chekpoint", "x", "a.png"], "'--chekpoint'; did you mean '--checkpoint'?"),
        (["encode", "--check", "x", "a.png"], "did you mean '--checkpoint'?"),
        (["encode", "a.png"], "required: --checkpoint, --out; `mergevq encode --help`"),
        (["encode", "--checkpoint", "x", "a.png", "--out", "t", "--keep", "-3"], "--keep: '-3' is not"),
        (["encode", "a.png", "--size", "8", "--original-size"], "not allowed with argument --size"),
        (["decode", "--checkpoint", "x", "t.npz", "--out", "d", "--source", "rue"], "'rue' (choose from"),
        (["decode", "--checkpoint", "x", "t.npz", "u.npz", "--out", "d"], "unexpected argument 'u.npz'"),
        (["doctor", "--train.steps", "3"], "unexpected argument '--train.steps'"),
        (["reconstruct", "--checkpoint", "x", "a.png", "--out", "g.txt"], "does not end like a picture"),
        (["reconstruct", "--checkpoint", "x", "a.png", "--out", "g.png", "--keep", "4,,8"], "'' is not"),
        ([], "required: COMMAND"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_sentence(mergevq_main, arguments, said):
    result = mergevq_main(*arguments)
    assert result.code == 2 and said in result.error
    assert result.err.count("\n") == 1


def _with(monkeypatch, run):
    monkeypatch.setattr(cli.doctor, "run", run)  # read when the parser is built


def test_an_unforeseen_error_is_one_sentence_unless_debug(monkeypatch, mergevq_main):
    def fail(options):
        raise KeyError("a\nb")

    _with(monkeypatch, fail)
    assert mergevq_main("doctor").error == r"unexpected KeyError: 'a\nb'; --debug shows where it came from"
    result = mergevq_main("doctor", "--debug")
    assert result.code == 1 and result.err.startswith("Traceback")
    assert mergevq_main("--debug", "doctor").err.startswith("Traceback")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OutputError("cannot write x:\n  full"), "cannot write x: full"),
        (PermissionError(13, "Permission denied", "secret.png"), "secret.png: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            DataError(
                "Caught DataError in DataLoader worker process 0.\n"
                "Original Traceback (most recent call last):\n"
                '  File "x.py", line 1, in y\nmergevq.errors.DataError: none of 100 pictures: first a: b\n'
            ),
            "none of 100 pictures: first a: b",
        ),
    ],
)
def test_sentences(error, text):
    assert sentence(error) == text


def test_interruption_is_one_line_and_130(monkeypatch, mergevq_main):
    def interrupt(options):
        raise KeyboardInterrupt

    def as_lightning_does(options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    for run in (interrupt, as_lightning_does):
        _with(monkeypatch, run)
        assert mergevq_main("doctor") == (130, "", "mergevq: interrupted\n")


def test_a_closed_pipe_is_quiet(run_python):
    code = (
        "import sys; from mergevq import cli; cli.doctor.run = lambda options: print('x' * 100_000) or 0;"
        "sys.exit(cli.main(['doctor']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    result = run_python("-c", f"import os; os.dup2({writer}, 1); {code}", pass_fds=(writer,))
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_logs_go_to_stderr_and_leave_no_trace(monkeypatch, mergevq_main):
    def talk(options):
        for _ in range(2):
            logging.getLogger("mergevq.somewhere").info("data %s", "x", extra={"once": True})
        logging.getLogger("mergevq.somewhere").info("working")
        logging.getLogger("mergevq.somewhere").warning("odd")
        warnings.warn("The 'train_dataloader' does not have many workers which is bad", stacklevel=1)
        return 0

    package = logging.getLogger("mergevq")
    before = (package.level, list(package.handlers))
    _with(monkeypatch, talk)
    for _ in range(2):  # once a command, not once a process
        assert mergevq_main("doctor") == (0, "", "data x\nworking\nmergevq: warning: odd\n")
    assert (package.level, list(package.handlers)) == before
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert mergevq_main("doctor").err == "mergevq: warning: odd\n"
