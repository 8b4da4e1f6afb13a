"""argparse with two habits changed.

A mistyped name is answered with the nearest one, and a wrong command line raises `UsageError` like everything
else that a user can get wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from mergevq.errors import UsageError, unknown_name


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps descriptions and leaves examples as they are written."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


class Parser(argparse.ArgumentParser):
    """A parser of the program, of a command, or of a command's kind."""

    def __init__(self, **settings: Any) -> None:
        settings["formatter_class"] = _Formatter
        super().__init__(allow_abbrev=False, **settings)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print."""
        raise UsageError(f"{message}; `{self.prog} --help` shows how it is used")

    def parse_known_args(  # type: ignore[override]  # typeshed's overloads say the same
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, after a look at the names."""
        self._check_names(list(args or ()))
        return super().parse_known_args(args, namespace)

    def _check_names(self, arguments: Sequence[str]) -> None:
        """Before anything else: a mistyped --checkpoint is not merely a missing one."""
        options = [name for action in self._actions for name in action.option_strings]
        commands = [
            name
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name in action.choices
        ]
        for argument in arguments:
            name = argument.partition("=")[0]
            if argument == "--":
                return
            if name.startswith("--") and name not in options and not is_dotted(name):
                known = [option for option in options if option.startswith("--")]
                raise UsageError(unknown_name("option", name, known))
            if commands and not argument.startswith("-"):
                if argument not in commands:
                    raise UsageError(unknown_name("command", argument, commands))
                return  # what follows is the command's


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; `overrides` holds the dotted ones with their values, as written.

    Raises:
        UsageError: an option is unknown, missing or has a wrong value.
    """
    options: argparse.Namespace
    options, rest = parser.parse_known_args(arguments)
    if rest and not getattr(options, "takes_overrides", False):
        raise UsageError(f"unexpected argument {rest[0]!r}; `mergevq --help` lists the commands")
    options.overrides = rest
    return options


def is_dotted(name: str) -> bool:
    """Whether an option is a key of a configuration, such as --train.steps."""
    return name.startswith("--") and "." in name
