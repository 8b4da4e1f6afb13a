"""`mergevq evaluate`: the kinds, one module each."""

from __future__ import annotations

from typing import Any

from mergevq.cli.evaluate import generation, reconstruction

KINDS = (reconstruction, generation)
"""In the order of the stages."""


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a checkpoint",
        description="Measures a checkpoint; every number comes with the protocol that it was measured by.",
        epilog="examples:\n  mergevq evaluate reconstruction --checkpoint runs/tok --data photos/\n"
        "  mergevq evaluate generation --generator runs/gen --reference photos/ --network runs/classifier\n",
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True, title="kinds")
    for kind in KINDS:
        kind.register(kinds)
