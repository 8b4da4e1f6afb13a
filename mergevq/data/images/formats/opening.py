"""The bytes of a file to an opened picture, with nothing decoded yet.

Pillow's own `open` is passed by: how large a picture it lets through is one setting for the whole process,
which belongs to whoever uses this package. Here nothing is refused for its size, and nothing is warned of:
`Limits` decides, before the first pixel is decoded.
"""

from __future__ import annotations

import io
import struct

from PIL import Image, UnidentifiedImageError

from mergevq.data.images.formats.png import without_extras

_PROGRAMS = frozenset({"EPS"})
"""Formats that are programs: Pillow would run Ghostscript, which may take for ever."""
_NOT_THIS_FORMAT = (SyntaxError, IndexError, TypeError, struct.error)
"""What Pillow's plugins raise for a file that only begins like their own."""


def open_picture(data: bytes) -> Image.Image:
    """The picture in a file's bytes, opened but not decoded, whatever its size.

    Raises:
        UnidentifiedImageError: no plugin knows it.
        OSError: the file is empty.
        OSError, ValueError: a plugin knows it and finds it broken; plugins raise further exceptions too.
    """
    if not data:
        raise OSError("the file is empty")
    data = without_extras(data)
    tried = set(_PROGRAMS)
    for load_plugins in (Image.preinit, Image.init):  # the common ones, then all
        load_plugins()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            image = _open_as(name, data)
            if image is not None:
                return image
    raise UnidentifiedImageError("not a picture in a format that Pillow knows")


def _open_as(name: str, data: bytes) -> Image.Image | None:
    factory, accept = Image.OPEN[name]
    try:
        accepted = accept is None or accept(data[:16])
        if isinstance(accepted, str) or not accepted:  # a string says why not
            return None
        return factory(io.BytesIO(data), "")
    except _NOT_THIS_FORMAT:
        return None
