"""The command line: `mergevq COMMAND ...`, one file a command.

A command's module has `register(subparsers)`, which adds its parser and sets `run`. What is heavy is imported
inside `run`, so that help answers at once. Results go to stdout, everything else to stderr.

Exit codes: 0 success; 1 a check or a run failed, or a picture had to be left out; 2 the request cannot be
carried out, such as a bad option or an unusable device; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import mergevq
from mergevq.cli import bench, decode, encode, generate, reconstruct, tokens
from mergevq.cli.demo import command as demo
from mergevq.cli.doctor import command as doctor
from mergevq.cli.evaluate import command as evaluate
from mergevq.cli.export import command as export
from mergevq.cli.shared.logs import logging_to_stderr
from mergevq.cli.shared.parser import Parser, parse
from mergevq.cli.train import command as train
from mergevq.errors import MergeVQError

COMMANDS = {
    "doctor": doctor,
    "demo": demo,
    "train": train,
    "tokens": tokens,
    "encode": encode,
    "decode": decode,
    "reconstruct": reconstruct,
    "generate": generate,
    "evaluate": evaluate,
    "export": export,
    "bench": bench,
}
"""Every command in the order of the help, which is the order in which one meets them."""

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit code.

    Raises:
        SystemExit: after --help and --version.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with logging_to_stderr():
        try:
            options = parse(build_parser(), given)
            code: int = options.run(options)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
            _discard_stdout()
            return 1
        except KeyboardInterrupt:
            return _interrupted()
        except SystemExit as stop:
            if isinstance(stop.__context__, KeyboardInterrupt):  # how Lightning passes it on
                return _interrupted()
            raise
        except Exception as error:  # one sentence is owed for anything that goes wrong
            if "--debug" in given:
                traceback.print_exc()
            print(f"mergevq: error: {sentence(error)}", file=sys.stderr)
            return error.exit_code if isinstance(error, MergeVQError) else 1


def build_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="mergevq",
        description="Images to a few quantised tokens with a source map, and back "
        "(MergeVQ, arXiv:2504.00999).",
        epilog="examples:\n  mergevq doctor\n  mergevq demo\n"
        "  mergevq train tokenizer --preset tiny-32 --data builtin:digits --out runs/digits\n",
    )
    parser.add_argument("--version", action="version", version=f"mergevq {mergevq.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for command in COMMANDS.values():
        command.register(subparsers)
    return parser


def sentence(error: BaseException) -> str:
    """What went wrong, in one line."""
    text = str(error)
    if "Original Traceback" in text:  # raised in a process that reads data: the error proper comes last
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = " ".join(text.split())
    if isinstance(error, MergeVQError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {text}; --debug shows where it came from"


def _interrupted() -> int:
    print("mergevq: interrupted", file=sys.stderr)
    return INTERRUPTED


def _discard_stdout() -> None:
    """Keeps the interpreter from complaining when it flushes stdout at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
