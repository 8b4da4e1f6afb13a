"""The command line: `mergevq COMMAND ...`, one file a command.

A command's module has `register(subparsers)`, which adds its parser and sets `run`. What is heavy is imported
inside `run`, so that help answers at once. Results go to stdout, everything else to stderr.

Exit codes: 0 success; 1 a check or a run failed, or a picture had to be left out; 2 the request cannot be
carried out, such as a bad option or an unusable device; 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence

import mergevq
from mergevq.cli import bench, decode, encode, generate, reconstruct, tokens
from mergevq.cli.demo import command as demo
from mergevq.cli.doctor import command as doctor
from mergevq.cli.evaluate import command as evaluate
from mergevq.cli.export import command as export
from mergevq.cli.shared.logs import logging_to_stderr
from mergevq.cli.shared.parser import Parser, parse
from mergevq.cli.shared.sentences import sentence
from mergevq.cli.shared.signals import Told, ending_by_signals
from mergevq.cli.shared.streams import SteadyStream, steady_streams
from mergevq.cli.train import command as train
from mergevq.errors import MergeVQError
from mergevq.plotting import own_environment

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
    with steady_streams() as output, logging_to_stderr(), own_environment(), ending_by_signals() as told:
        try:
            options = parse(build_parser(), given)
            code: int = options.run(options)
            output.flush()
        except (
            Exception,
            KeyboardInterrupt,
            SystemExit,
        ) as error:  # one sentence is owed for anything that goes wrong
            code = _told(error, told, debug="--debug" in given)
        return _written(output, code)


def _told(error: BaseException, told: Told, debug: bool) -> int:
    """Says why a command did not come to its end; returns the exit code."""
    passed_on = error.__context__ if isinstance(error, SystemExit) else None  # as Lightning does
    if KeyboardInterrupt in (type(error), type(passed_on)):
        told.number = told.number or signal.SIGINT
    if told.number:
        print(f"mergevq: {told.sentence}", file=sys.stderr)
        return told.exit_code
    if isinstance(error, SystemExit):
        raise error
    if debug:
        traceback.print_exception(error)
    print(f"mergevq: error: {sentence(error)}", file=sys.stderr)
    return error.exit_code if isinstance(error, MergeVQError) else 1


def _written(output: SteadyStream, code: int) -> int:
    """The exit code of a command, given whether all that it printed could be written."""
    if output.failure is None:
        return code
    output.discard()
    if not isinstance(
        output.failure, BrokenPipeError
    ):  # the reader of a pipe, such as `head`, has seen enough
        reason = getattr(output.failure, "strerror", None) or output.failure
        print(f"mergevq: error: cannot write to the standard output: {reason}", file=sys.stderr)
    return code or 1


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
