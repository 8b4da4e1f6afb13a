"""What a run is trained on, by name and label: kept in its checkpoint, and compared when it goes on.

The order of the data is a function of the step and of the number of pictures. So a run that went on with a
picture less would see others from its first step on: it would be neither the run that began nor a new one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mergevq.data.images.sources import ImageSource
from mergevq.data.listing.splits import listing_digest
from mergevq.data.tokens.splits import TokenRows
from mergevq.errors import ConfigError

logger = logging.getLogger(__name__)

_NAMED = 3


def list_pictures(source: ImageSource) -> dict[str, Any]:
    """How many pictures each class has, and a digest of their names, labels and order; not of where they lie."""
    labels = np.fromiter((source.label(index) for index in range(len(source))), np.int64, len(source))
    return _listing(source.classes, labels, listing_digest(source))


def list_tokens(rows: TokenRows) -> dict[str, Any]:
    """The same of the records of token shards."""
    shards = rows.shards
    digest = hashlib.sha256(shards.meta.digest.encode())
    # The description does not say which pictures could not be read, and every later record moves up for each.
    for one in shards.unreadable:
        digest.update(f"{one.image},".encode())
    digest.update(rows.rows.tobytes() + shards.labels.tobytes())
    return _listing(shards.meta.class_names, shards.labels[rows.rows], digest.hexdigest())


def check_same_data(
    before: Mapping[str, Any] | None, now: Mapping[str, Mapping[str, Any]], out: Path, what: str
) -> None:
    """Makes sure that a run goes on with the data that it began with.

    Args:
        before: the listings in its checkpoint, by the part of the data; None where it is older than they are.
        now: those of the data that is there.
        out: the run folder.
        what: the data is made of, "pictures" say.

    Raises:
        ConfigError: something has changed; the numbers and the classes are named.
    """
    if before is None:
        logger.info(
            "the run in %s is older than the listing of its data: nobody knows whether it changed", out
        )
        return
    changed = [
        f"{part} {what}: {_change(before.get(part, {}), listing)}"
        for part, listing in now.items()
        if before.get(part) != listing
    ]
    if changed:
        raise ConfigError(
            f"the data of the run in {out} is not what it began with ({'; '.join(changed)}); give it that data "
            "again to go on, or choose another --out"
        )


def _listing(classes: Any, labels: np.ndarray, digest: str) -> dict[str, Any]:
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    return {"classes": dict(zip(classes, counts, strict=True)), "digest": digest}


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is not as it was, in a few words."""
    had, has = before.get("classes", {}), now["classes"]
    texts = []
    if sum(had.values()) != sum(has.values()):
        texts.append(f"{sum(had.values())} then, {sum(has.values())} now")
    gone, new = ([name for name in one if name not in other] for one, other in ((had, has), (has, had)))
    other = [f"{name} ({had[name]}, {has[name]})" for name in had if had[name] != has.get(name, had[name])]
    for names, title in ((gone, "classes gone"), (new, "classes new"), (other, "classes of other size")):
        if names:
            texts.append(f"{title}: {', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}")
    return ", ".join(texts) or f"{sum(has.values())} in the same classes, with other names, labels or order"
