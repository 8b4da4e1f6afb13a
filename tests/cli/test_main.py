"""The table of commands, their help, and how anything that goes wrong is told."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import resource
import shlex
import signal
import sys
import threading
import warnings

import pytest

from mergevq import cli
from mergevq.cli import COMMANDS, build_parser, main
from mergevq.cli.shared.parser import parse
from mergevq.cli.shared.sentences import sentence
from mergevq.errors import DataError, OutputError
from mergevq.storage.files import atomic


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


NUMBERS = [
    (words, option)
    for words, parser in LEAVES.items()
    for option in parser._actions
    if getattr(option.type, "__module__", "").startswith("mergevq.")
    and option.type.__name__ not in ("path", "picture_path", "_names")
]
"""Every option that is a number, or several."""


@pytest.mark.parametrize("text", ["1" + "0" * 30, "9" * 5000, "-1", "nan", "1.5", ""])
@pytest.mark.parametrize(
    ("words", "option"), NUMBERS, ids=lambda it: " ".join(it) if isinstance(it, tuple) else it.dest
)
def test_no_number_is_too_large_or_none(words, option, text):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        option.type(text)
    assert len(str(caught.value)) < 200


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


def test_an_interrupted_import_may_end_in_any_error(monkeypatch, mergevq_main):
    def swallow(options):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError("maximum recursion depth exceeded")

    _with(monkeypatch, swallow)
    assert mergevq_main("doctor") == (130, "", "mergevq: interrupted\n")


def test_termination_is_one_line_and_143_and_leaves_nothing_half_made(monkeypatch, mergevq_main, tmp_path):
    def work(options):
        with atomic(tmp_path / "result.json") as (temporary,):
            temporary.write_text("{")
            signal.raise_signal(signal.SIGTERM)

    _with(monkeypatch, work)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert mergevq_main("doctor") == (143, "", "mergevq: terminated\n")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert list(tmp_path.iterdir()) == []


START = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "mergevq.cli.shared.parser":
            try:
                os.kill(os.getpid(), signal.{name})
            except BaseException:
                raise RecursionError
sys.meta_path.insert(0, Interrupting())
import mergevq.__main__
mergevq.__main__.start()
"""


@pytest.mark.parametrize(
    ("name", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_signals_while_the_command_line_is_imported(run_python, name, code, said):
    result = run_python("-c", START.format(name=name))
    assert (result.returncode, result.stderr) == (code, f"mergevq: {said}\n")


def test_a_command_may_be_called_from_a_thread(monkeypatch, mergevq_main):
    _with(monkeypatch, lambda options: sys.stdout.write("done\n") * 0)
    results = []
    thread = threading.Thread(target=lambda: results.append(mergevq_main("doctor")))
    thread.start()
    thread.join()
    assert results == [(0, "done\n", "")]


def test_too_few_file_descriptors_are_named_with_their_limit(monkeypatch, mergevq_main):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for error in (
        OSError(errno.EMFILE, "Too many open files"),
        ImportError("libtorch.so: cannot open shared object file: Too many open files"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
        DataError("a.npy cannot be read: [Errno 24] Too many open files"),
    ):

        def run(options, error=error):
            raise error

        _with(monkeypatch, run)
        said = mergevq_main("doctor").error
        assert f"no more than {limit} files open" in said and "`ulimit -n 4096`" in said


def test_too_little_shared_memory_is_named_wherever_it_is_met(monkeypatch, mergevq_main):
    def run(options):
        raise RuntimeError(
            "unable to open shared memory object </torch_1_2_3> in read-write mode: No space left"
        )

    _with(monkeypatch, run)
    assert mergevq_main("doctor").error.endswith("enlarge /dev/shm or --workers 0")


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
