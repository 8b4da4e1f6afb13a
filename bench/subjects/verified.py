"""Graphs that were not verified, or failed, are never timed. Needs no PyTorch."""

from __future__ import annotations

from pathlib import Path

from mergevq.errors import UnusableExportError
from mergevq.export.manifest import read_manifest, read_verification


def check_verified(folder: Path) -> None:
    """Makes sure that a folder of graphs passed its verification.

    Raises:
        CheckpointError: it is no export, or has no verify.json of its manifest, or one with a failed check.
    """
    read_manifest(folder)
    found = read_verification(folder)
    if found is None or not found.get("passed"):
        state = "was not verified" if found is None else "failed its verification"
        raise UnusableExportError(
            f"{folder} {state}, and what may compute something else is not timed; run `mergevq export verify`"
        )
