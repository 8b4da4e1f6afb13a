"""YAML and JSON that a user may name: plain values out, or one reason why not.

Whatever is in a file, reading it takes a bounded time and memory: its length, its depth, what its aliases stand for
and the digits of its numbers have limits, and a key stands once. Problems are `DocumentError`s whose text goes after
"cannot be read: "; the caller, who knows what the file is for, says the rest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.errors import shown

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 64 << 20
"""A JSON file; ImageNet-21k's class names take half a megabyte."""
MOST_SETTINGS = 1 << 20
"""Bytes of a YAML file; a run.yaml has three thousand."""
_DEEPEST = 50
_MOST_NODES = 10_000
_MOST_DIGITS = 1000


class DocumentError(ValueError):
    """A file is not what it should be; the text says how."""


def read_json(path: Path, most: int = MOST_BYTES) -> Any:
    """The value in a JSON file.

    Args:
        path: the file.
        most: bytes that are read of it.

    Raises:
        DocumentError: it cannot be read, is no JSON, too long, nested too deeply, or says a key twice.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DocumentError("it is no regular file")  # a pipe would be waited for
    try:
        value = json.loads(_read(path, most), object_pairs_hook=_each_once, parse_int=_integer)
    except RecursionError as error:
        raise DocumentError("it is nested too deeply") from error
    except ValueError as error:
        raise (
            error if isinstance(error, DocumentError) else DocumentError(f"it is no JSON: {error}")
        ) from error
    _check_depth(value)
    return value


def read_yaml(path: Path) -> Any:
    """The value in a YAML file.

    Raises:
        DocumentError: it cannot be read, is no YAML, too long, nested too deeply, or says a key twice.
    """
    return parse_yaml(_read(path, MOST_SETTINGS))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        DocumentError: it is no YAML, nested too deeply, or says a key twice.
    """
    import yaml

    try:
        value = yaml.load(text, Loader=_bounded_loader())  # a SafeLoader
    except DocumentError:
        raise
    except yaml.YAMLError as error:
        raise DocumentError(f"it is no YAML: {' '.join(str(error).split())}") from error
    except Exception as error:  # PyYAML's constructors raise anything for a tag whose text does not fit
        raise DocumentError(f"it holds a value that is none: {shown(str(error))}") from error
    _check_depth(value)
    return value


def _read(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DocumentError(error.strerror or str(error)) from error
    if len(content) > most:
        raise DocumentError(f"it has more than {most} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError("it is not text in UTF-8") from error


def _check_depth(value: Any, left: int = _DEEPEST) -> None:
    if not left:
        raise DocumentError("it is nested too deeply")
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            _check_depth(part, left - 1)


def _integer(text: str) -> int:
    _check_digits(text)
    return int(text)


def _check_digits(text: str) -> None:
    if len(text) > _MOST_DIGITS:
        raise DocumentError(f"it holds a number of {len(text)} digits")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise DocumentError(f"{shown(key)} is given twice")
        values[key] = value
    return values


def _bounded_loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe loader with limits; made here, as PyYAML is imported where it is needed."""
    import yaml

    class Bounded(yaml.SafeLoader):
        """Counts what aliases stand for as often as they do, before any of it is made."""

        def __init__(self, text: str) -> None:
            super().__init__(text)
            self.depth = self.nodes = 0
            self.sizes: dict[int, int] = {}

        def compose_node(self, parent: Any, index: Any) -> Any:
            alias = self.check_event(yaml.AliasEvent)
            before, self.depth = self.nodes, self.depth + 1
            if self.depth > _DEEPEST:
                raise DocumentError("it is nested too deeply")
            node = super().compose_node(parent, index)
            if alias and id(node) not in self.sizes:
                raise DocumentError("an alias in it stands for itself")
            self.depth -= 1
            self.nodes += self.sizes[id(node)] if alias else 1
            self.sizes.setdefault(id(node), self.nodes - before)
            if self.nodes > _MOST_NODES:
                raise DocumentError(f"it stands for more than {_MOST_NODES} values")
            return node

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            _each_once([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
            return node

        def construct_scalar(self, node: Any) -> Any:
            if node.tag.endswith((":int", ":float")):
                _check_digits(node.value)
            return super().construct_scalar(node)

    return Bounded
