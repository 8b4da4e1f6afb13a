"""Links inside a tar archive, followed as a file system follows them where the archive is unpacked."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from mergevq.data.listing.passed_over import CIRCLE, LINK, PassedOver

FileT = TypeVar("FileT")

_MOST = 40
"""Links on the way to a file, as in Linux."""


def follow_links(
    files: Mapping[str, FileT], links: Mapping[str, str], passed: PassedOver
) -> dict[str, FileT]:
    """The files that links lead to, by the names of the links; below a link to a folder, all that is in it.

    Args:
        files: by their paths.
        links: from the path of a link to the path that it names.
        passed: where links that lead nowhere or in a circle are counted.
    """
    found: dict[str, FileT] = {}
    folders: dict[str, str] = {}
    for link in links:
        target = _resolve(link, links)
        if target is None:
            passed.add(CIRCLE, link)
        elif target in files:
            found[link] = files[target]
        else:
            folders[link] = target
    if folders:
        tree = _Tree({**files, **found}, folders)
        for link, target in folders.items():
            above = _above(link)
            below = dict(tree.walk(target, link, above))
            found |= below
            if not below:
                passed.add(CIRCLE if target in above else LINK, link)
    return found


def _resolve(path: str, links: Mapping[str, str]) -> str | None:
    """The path without links in it; None where they go round and round."""
    for _ in range(_MOST):
        parts = path.split("/")
        heads = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        head = next((head for head in heads if head in links), None)
        if head is None:
            return path
        path = posixpath.normpath(posixpath.join(links[head], path[len(head) + 1 :])).removeprefix("./")
        path = "" if path == "." else path
    return None


def _above(path: str) -> frozenset[str]:
    """The folders around a path, the archive's own, "", among them."""
    parts = path.split("/")[:-1]
    return frozenset("/".join(parts[:count]) for count in range(len(parts) + 1))


class _Tree(Generic[FileT]):
    """Files by their folders, and the links among the folders."""

    def __init__(self, files: Mapping[str, FileT], links: Mapping[str, str]) -> None:
        self._files: dict[str, dict[str, FileT]] = {}
        self._folders: dict[str, set[str]] = {}
        self._links = links
        for name, file in files.items():
            self._files.setdefault(posixpath.dirname(name), {})[posixpath.basename(name)] = file
        for folder in {*self._files, *links}:
            for path in _above(f"{folder}/") - {""}:
                self._folders.setdefault(posixpath.dirname(path), set()).add(posixpath.basename(path))

    def walk(self, folder: str, name: str, above: frozenset[str]) -> Iterator[tuple[str, FileT]]:
        """The files below a folder, with `name` in the place of its path; never in a circle."""
        if folder in above:
            return
        for base, file in self._files.get(folder, {}).items():
            yield f"{name}/{base}", file
        for base in self._folders.get(folder, ()):
            path = posixpath.join(folder, base)
            yield from self.walk(self._links.get(path, path), f"{name}/{base}", above | {folder})
