"""Every kind of file that a user may name, by the name that `run.py` takes."""

from __future__ import annotations

from fuzzing.case import Kind
from fuzzing.kinds import exports, models, pictures, sets, settings, tokens, weights

KINDS: dict[str, Kind] = {
    **pictures.KINDS,
    **sets.KINDS,
    **models.KINDS,
    **weights.KINDS,
    **tokens.KINDS,
    **settings.KINDS,
    **exports.KINDS,
}
"""A kind that reads a new sort of file belongs here."""
