"""What is wrong with the outcome of a case; nothing, where it succeeded or ended in one clear sentence."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

LONGEST = 400
"""Characters of a message, without the folder of the case."""

_FORBIDDEN = {
    "a traceback": re.compile(r"Traceback|File \"[^\"]+\", line"),
    "advice to execute the file": re.compile(r"weights_only|allow_pickle|trust_remote_code|trusted source"),
    "a name of a Python class": re.compile(
        r"\b(?!MergeVQ|ONNXRuntimeError)[A-Z][A-Za-z]*(?:Error|Exception|Warning|Interrupt)\b|NoneType|<class '"
    ),
    "Python's own words": re.compile(
        r"has no attribute|unexpected keyword argument|positional argument|keyword-only argument"
        r"|not subscriptable|not iterable|unhashable|unsupported operand|not supported between|cannot unpack"
        r"|values to unpack|indices must be|object cannot be|a bytes-like object|must be real number"
        r"|int too large|cannot convert float|embedded null|not callable|Exceeds the limit"
        r"|maximum recursion|invalid literal|enforce fail|DefaultCPUAllocator|\[Errno|c10::|at::"
    ),
    "a reason that is only a name": re.compile(r": '[\w.]+'(?:;|$)"),
}
_MEMORY = re.compile(
    r"MemoryError|bad_alloc|[Cc]annot allocate|can't allocate|[Uu]nable to allocate|out of memory"
)


class Finding(NamedTuple):
    """A case that did not end as it should.

    Attributes:
        cause: a few words that are the same for cases with the same cause.
        detail: what was seen.
    """

    cause: str
    detail: str


def judge(outcome: dict[str, Any], folder: str, seconds: float) -> Finding | None:
    """What is wrong with an outcome.

    Args:
        outcome: what `workers` reports.
        folder: of the case, whose name does not count as part of a message.
        seconds: of the processor that reading may take.
    """
    if outcome["events"]:
        return Finding(outcome["events"][0].partition(" ")[0], "; ".join(outcome["events"][:5]))
    if outcome["ended"] != "returned":
        return Finding(outcome["ended"], outcome["message"])
    if outcome["seconds"] > seconds:
        return Finding("slow", f"{outcome['seconds']:.1f} s of the processor; {outcome['message'][:200]}")
    if outcome["wrong"]:
        return Finding("accepted", outcome["wrong"])
    if outcome["error"] is not None:
        return _judge_error(outcome, folder)
    texts = [text.replace(folder, "DIR") for text in outcome["logged"]]
    found = next((text for text in texts if complaint(text)), None)
    return None if found is None else Finding(f"a warning {complaint(found)}", found[: 2 * LONGEST])


def _judge_error(outcome: dict[str, Any], folder: str) -> Finding | None:
    text = outcome["message"].replace(folder, "DIR")
    if any(_MEMORY.search(part) for part in outcome["chain"]):
        return Finding("memory", f"{outcome['chain'][0]}: {text}")
    if not outcome["ours"]:
        return Finding(f"raw {outcome['error']} at {outcome['place']}", text)
    # One line feed may be part of a name, which the commands print in another way.
    what = (
        "of several lines" if text.count("\n") > 1 else complaint(outcome["printed"].replace(folder, "DIR"))
    )
    return None if what is None else Finding(f"a message {what} at {outcome['place']}", text[: 2 * LONGEST])


def complaint(text: str) -> str | None:
    """What is wrong with the words of a message; None is nothing."""
    if not text.strip():
        return "without words"
    if not text.isprintable():
        return "with control characters"
    if len(text) > LONGEST:
        return f"of more than {LONGEST} characters"
    return next((f"with {what}" for what, pattern in _FORBIDDEN.items() if pattern.search(text)), None)
