"""What a kind of file is, and how one case of it is made."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

Mutator = Callable[[random.Random, Path], str]
"""Damages a file in place, and says how."""


class Target(NamedTuple):
    """Something that may be damaged.

    Attributes:
        where: a path below the folder of the case; "" is the folder.
        mutators: of which one is drawn.
        weight: how often, beside the kind's other targets.
    """

    where: str
    mutators: Sequence[Mutator]
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of file: how a valid one is written, damaged, and read."""

    make: Callable[[Path], object]
    """Writes valid files into an empty folder."""
    targets: Sequence[Target]
    """What may be damaged."""
    read: Callable[[Path], object]
    """Reads the folder as the package does; what it returns is checked by `check`."""
    seal: Callable[[Path], object] | None = None
    """Makes hashes fit again, for half of the cases: what is read after the hash is damaged too."""
    check: Callable[[object], str | None] | None = None
    """What is wrong with a result that was returned without an error; None is nothing."""
    seconds: float = 5.0
    """Of the processor that reading may take."""
    megabytes: int = 1024
    """That reading may take beside what the process holds already."""
    default: int = 24
    """Cases in the default tests."""
    share: float = 1.0
    """Of the cases of a long run: less for kinds that are slow to read."""
    imports: Sequence[str] = ("mergevq.data.images.loader", "mergevq.loading")
    """What is imported before anything is limited."""
    depends: Mapping[str, str] = field(default_factory=dict)
    """Modules without which the kind is left out, and what they are for."""


class Case(NamedTuple):
    """A case: nothing else decides what is read."""

    kind: str
    seed: int
    number: int

    @property
    def command(self) -> str:
        """How to repeat it."""
        return f"python tests/fuzz/run.py {self.kind} --seed {self.seed} --first {self.number} --count 1"

    def generator(self) -> random.Random:
        """Its own source of randomness."""
        return random.Random(f"{self.seed}/{self.kind}/{self.number}")


def build(case: Case, kind: Kind, valid: Path, folder: Path) -> str:
    """Writes the files of a case.

    Args:
        case: number 0 is the valid file itself.
        kind: of the case.
        valid: what `kind.make` wrote.
        folder: to be made.

    Returns:
        How they were damaged.
    """
    shutil.copytree(valid, folder, symlinks=True)
    if case.number == 0:
        return "nothing"
    draw = case.generator()
    done = [_damage(draw, kind, valid, folder) for _ in range(2 if draw.random() < 0.15 else 1)]
    if kind.seal is not None and draw.random() < 0.6 and _plain(folder):
        kind.seal(folder)
        done.append("hashes made to fit")
    return "; ".join(done)


def _plain(folder: Path) -> bool:
    """Whether there are files and folders alone: nobody waits for a pipe to make a hash of it."""
    return all(path.is_dir() or path.is_file() for path in folder.rglob("*"))


def _damage(draw: random.Random, kind: Kind, valid: Path, folder: Path) -> str:
    target = draw.choices(kind.targets, [target.weight for target in kind.targets])[0]
    path, before = folder / target.where, valid / target.where
    mutate = draw.choice(target.mutators)
    same = not path.is_symlink() and (path.is_dir() if before.is_dir() else path.is_file())
    if not same:
        return "no more"
    try:
        return f"{target.where}: {mutate(draw, path)}"
    except Exception as error:  # what was damaged already may be past reading, for a mutator as well
        return f"no more ({type(error).__name__} in {mutate.__name__})"
