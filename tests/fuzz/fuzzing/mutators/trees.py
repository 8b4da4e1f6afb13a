"""Damage to JSON and YAML that stays JSON or YAML, mostly: numbers, types, keys, nesting, aliases."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = (
    *(
        "1000000",
        "1000000000",
        "10000000000",
        "100000000000000000000",
        "1" + "0" * 30,
        "1e30",
        "9" * 400,
        "9" * 5000,
    ),
    *("-1", "-3", "0", "0.5", "-0.0", "1e400", "1e-320", "2147483648", "4294967296", "9223372036854775808"),
)
"""That a number may become; names of no number are written differently in JSON and YAML."""
_NO_NUMBERS = {"json": ("NaN", "Infinity", "-Infinity"), "yaml": (".nan", ".inf", "-.inf")}
_OTHERS = (
    *(
        "null",
        "true",
        "[]",
        "{}",
        '""',
        '"x"',
        '"12"',
        "[[1]]",
        '{"a": 1}',
        "[1, 2, 3, 4, 5, 6, 7]",
        "[null]",
    ),
    *('"\\u0000"', '"\\ud800"', '"a\\nb"', '"\\u001b[31m"', '"../../etc/passwd"', '"/"', '"a/b/c"', '"."'),
)
_HOLE = "HOLE%dELOH"

Where = tuple[Any, Any]
"""A container and a key or a position in it."""


def damage(draw: random.Random, values: Any, form: str) -> tuple[str, str]:
    """The text of damaged values, and how they were damaged.

    Args:
        draw: the source of randomness.
        values: plain ones, which are changed.
        form: json or yaml.
    """
    holes: list[str] = []
    done = [_change(draw, values, holes, form) for _ in range(draw.choice((1, 1, 1, 2))) if _places(values)]
    text = json.dumps(values, indent=1) if form == "json" else _as_yaml(values)
    for number, hole in enumerate(holes):
        name = _HOLE % number
        text = text.replace(f'"{name}"', hole).replace(name, hole)
    return text, ", ".join(done)


def json_values(draw: random.Random, path: Path) -> str:
    """Damages the values of a JSON file."""
    text, done = damage(draw, json.loads(path.read_text()), "json")
    path.write_text(text)
    return done


def yaml_values(draw: random.Random, path: Path) -> str:
    """Damages the values of a YAML file."""
    import yaml

    if "&" in path.read_text():
        raise ValueError("it may be a bomb already")
    text, done = damage(draw, yaml.safe_load(path.read_text()), "yaml")
    path.write_text(text)
    return done


def json_whole(draw: random.Random, path: Path) -> str:
    """Replaces a JSON file by other JSON, or what is nearly JSON."""
    text = draw.choice(
        (
            "[]",
            "null",
            "1",
            '"x"',
            "{}",
            "[" * 100_000,
            '{"a":' * 100_000,
            "[" * 100_000 + "]" * 100_000,
            "9" * 5000,
        )
    )
    path.write_text(text)
    return f"replaced by {text[:10]}"


def yaml_whole(draw: random.Random, path: Path) -> str:
    """Replaces a YAML file, or adds to it, what YAML parsers choke on."""
    name, make = draw.choice(_YAML)
    path.write_text(make(path.read_text()))
    return name


def _aliases(_: str) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(lines) + "\ntrain: *a9\n"


def _alias_groups(_: str) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(9))}}}" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


def _merges(_: str) -> str:
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


_YAML: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("aliases of aliases", _aliases),
    ("aliases of groups", _alias_groups),
    ("merge keys of merge keys", _merges),
    ("an alias of itself", lambda _: "train: &a\n  steps: *a\n"),
    ("a group that holds itself", lambda _: "train: &a {b: *a}\n"),
    ("an object", lambda text: text + "\nother: !!python/object/apply:os.mkdir [executed]\n"),
    ("a tag", lambda text: text + "\ntrain: !unknown {steps: 1}\n"),
    ("nested lists", lambda _: "train: " + "[" * 20_000),
    ("nested groups", lambda _: "train: " + "{a: " * 20_000 + "}" * 20_000),
    ("nested blocks", lambda _: "\n".join(" " * n + "a:" for n in range(2000)) + "\n"),
    ("a group twice", lambda text: text + "\ntrain:\n  steps: 3\n"),
    ("two documents", lambda text: text + "\n---\n" + text),
    ("a tab", lambda text: text.replace("  ", "\t", 1)),
    ("a key of another type", lambda text: text + "\n1: {2: 3}\n"),
    ("a key that is a list", lambda text: text + "\n? [a, b]\n: 1\n"),
    ("a key that is nothing", lambda text: text + "\n? \n: 1\n"),
    ("a date", lambda _: "train: {steps: 2001-99-99}\n"),
    ("a base", lambda _: "train: {steps: 190:20:30:99:99:99:99:99:99:99}\n"),
    ("bytes", lambda _: "train: {steps: !!binary not-base-64}\n"),
    ("a set", lambda _: "train: !!set {steps, seed}\n"),
    ("a zero byte", lambda text: text + "\0"),
    ("empty", lambda _: ""),
    ("a list", lambda _: "- train\n- model\n"),
    ("a long key", lambda _: "? " + "k" * 5000 + "\n: 1\n"),
    ("a long integer", lambda _: f"train: {{steps: {'9' * 5000}}}\n"),
    ("a long hexadecimal integer", lambda _: f"train: {{steps: 0x{'f' * 9000}}}\n"),
)


def _change(draw: random.Random, values: Any, holes: list[str], form: str) -> str:
    places = _places(values)
    numbers = [place for place in places if type(place[0][place[1]]) in (int, float)]
    container, key = draw.choice(numbers if numbers and draw.random() < 0.65 else places)
    action = draw.choice(
        (
            _number,
            _number,
            _number,
            _number,
            _number,
            _other,
            _other,
            _missing,
            _renamed,
            _nested,
            _long,
            _doubled,
        )
    )
    return f"{key!r} {action(draw, container, key, holes, form)}"


def _number(draw: random.Random, container: Any, key: Any, holes: list[str], form: str) -> str:
    text = draw.choice((*NUMBERS, *_NO_NUMBERS[form], *_NO_NUMBERS[form]))
    return _put(container, key, holes, text)


def _other(draw: random.Random, container: Any, key: Any, holes: list[str], form: str) -> str:
    return _put(container, key, holes, draw.choice(_OTHERS))


def _missing(draw: random.Random, container: Any, key: Any, holes: list[str], form: str) -> str:
    del container[key]
    return "taken out"


def _renamed(draw: random.Random, container: Any, key: Any, holes: list[str], form: str) -> str:
    if not isinstance(container, dict):
        return _missing(draw, container, key, holes, form)
    name = draw.choice((f"{key}x", str(key).upper(), "", "\x1b[31m", "k" * 3000, "__class__", "self"))
    container[name] = container.pop(key)
    return f"called {name[:20]!r}"


def _nested(draw: random.Random, container: Any, key: Any, holes: list[str], form: str) -> str:
    depth = draw.choice((50, 900, 3000, 100_000)) if form == "json" else draw.choice((50, 300, 2000))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}") if form == "json" else ("{a: ", "}")))
    _put(container, key, holes, opening * depth + "1" + closing * depth)
    return f"nested {depth} deep in {opening}"


def _long(draw: random.Random, container: Any, key: Any, holes: list[str], form: str) -> str:
    length = draw.choice((500, 5000, 200_000) if form == "json" else (500, 5000))
    _put(container, key, holes, draw.choice((f'"{"x" * length}"', f"[{'1, ' * length}1]")))
    return f"{length} long"


def _doubled(draw: random.Random, container: Any, key: Any, holes: list[str], form: str) -> str:
    """The key twice, with another value the second time; of a list the item twice."""
    if isinstance(container, list):
        container.append(container[key])
        return "appended again"
    if form == "yaml" and isinstance(container[key], (dict, list)):
        return _number(draw, container, key, holes, form)
    value = json.dumps(container[key])
    _put(container, key, holes, f'{value}, "{key}": 7' if form == "json" else f"{value}, {key}: 7")
    return "given twice"


def _put(container: Any, key: Any, holes: list[str], text: str) -> str:
    container[key] = _HOLE % len(holes)
    holes.append(text)
    return f"= {text[:40]}{f' ... ({len(text)} characters)' if len(text) > 40 else ''}"


def _places(values: Any) -> list[Where]:
    """Every place in a tree, containers before what is in them."""
    found: list[Where] = []
    waiting = [values]
    while waiting:
        container = waiting.pop(0)
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], (dict, list)):
                waiting.append(container[key])
    return found


def _as_yaml(values: Any) -> str:
    """Groups in braces, as doubled keys need."""
    import yaml

    return yaml.safe_dump(values, sort_keys=False, default_flow_style=True, width=1 << 20)


JSON = (json_values, json_values, json_values, json_values, json_whole)
"""For JSON files."""
YAML = (yaml_values, yaml_values, yaml_values, yaml_whole)
"""For YAML files."""
