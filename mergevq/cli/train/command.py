"""`mergevq train`: the stages, one module each."""

from __future__ import annotations

from typing import Any

from mergevq.cli.train import classifier, generator, recovery, tokenizer

KINDS = (tokenizer, generator, recovery, classifier)
"""In the order in which they come."""


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on your own pictures",
        description="Trains a model, or goes on where the run in --out stopped.",
        epilog="examples:\n"
        "  mergevq train tokenizer --preset tiny-32 --data builtin:digits --out runs/digits\n"
        "  mergevq train generator --preset nano --tokenizer runs/digits --data runs/tokens --out runs/gen\n",
    )
    kinds = parser.add_subparsers(metavar="KIND", required=True, title="kinds")
    for kind in KINDS:
        kind.register(kinds)
