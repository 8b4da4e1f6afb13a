"""What several commands share: option types, the device, the checkpoint, checks before the work begins."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.errors import OutputError, UsageError, shown
from mergevq.storage.files import expanded, is_regular

if TYPE_CHECKING:
    from mergevq.backends import Device
    from mergevq.config import TokenizerConfig
    from mergevq.data.images.formats.limits import Limits
    from mergevq.models.tokenizer.tokenizer import Tokenizer

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


MOST = 10**9
"""More pictures, tokens or steps than any command line means."""


def positive(text: str, most: int = MOST) -> int:
    """A positive integer from the command line."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a positive integer")
    if value > most:
        raise argparse.ArgumentTypeError(f"{shown(text)} is too large; {most} is the most")
    return value


def natural(text: str, most: int = MOST) -> int:
    """An integer from 0 upwards from the command line."""
    return 0 if text == "0" else positive(text, most)


def seed(text: str) -> int:
    """A seed from the command line."""
    return natural(text, 2**63 - 1)


def side(text: str) -> int:
    """Pixels a side from the command line."""
    return positive(text, 2**14)


def processes(text: str) -> int:
    """A number of processes to start, which may be 0."""
    return natural(text, 1024)


def some_processes(text: str) -> int:
    """A number of processes or threads, at least one."""
    return positive(text, 1024)


def counts(text: str) -> list[int]:
    """Positive integers between commas, such as 36,64,144; each once, in the order given."""
    return list(dict.fromkeys(positive(part.strip()) for part in text.split(",")))


def path(text: str) -> Path:
    """A path from the command line, in which ~ is the home folder."""
    try:
        return expanded(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def picture_path(text: str) -> Path:
    """A path that ends like a picture's."""
    found = path(text)
    if found.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end like a picture: {' '.join(_PICTURES)}")
    return found


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """--checkpoint and --device."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="C",
        help="a run folder, a folder of mergevq.save, a training checkpoint, or hf://user/name",
    )
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="auto, cuda, npu or cpu; a named device is used or refused, never replaced "
        "[$MERGEVQ_DEVICE, else auto]",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """--batch-size."""
    parser.add_argument(
        "--batch-size", type=positive, default=16, metavar="B", help="pictures in one pass [%(default)s]"
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """--max-pixels and --max-aspect."""
    parser.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="width times height above which a picture is left out, unread [89478485]",
    )
    parser.add_argument(
        "--max-aspect",
        type=positive,
        metavar="A",
        help="longer over shorter side above which a picture is left out, unread [100]",
    )


def limits(options: argparse.Namespace) -> Limits:
    """What --max-pixels and --max-aspect say."""
    from mergevq.data.images.formats.limits import Limits

    given = {"max_pixels": options.max_pixels, "max_aspect": options.max_aspect}
    return Limits(**{name: value for name, value in given.items() if value is not None})


def add_size(parser: Any) -> None:
    """--size."""
    parser.add_argument(
        "--size",
        type=side,
        metavar="S",
        help="resize the short side to S px and take the middle S x S [the preset's size]",
    )


def load_tokenizer(options: argparse.Namespace) -> tuple[Tokenizer, Device]:
    """The tokenizer of --checkpoint on the device of --device.

    Raises:
        DeviceUnavailableError, CheckpointError: one of them cannot be used.
    """
    from mergevq.backends import select
    from mergevq.models.store import load

    device = select(options.device)
    return load(options.checkpoint).to(device.name), device


def square_size(config: TokenizerConfig, size: int | None) -> int:
    """S: what was asked for, or the preset's.

    Raises:
        UsageError: it is not a multiple of the stride; the nearest one is named.
    """
    if size is None:
        return config.image_size
    if size % config.stride:
        nearest = max(round(size / config.stride), 1) * config.stride
        raise UsageError(
            f"--size {size} is not a multiple of the stride {config.stride}; the nearest is {nearest}"
        )
    return size


def check_keeps(config: TokenizerConfig, size: int, keeps: list[int]) -> None:
    """Makes sure that every K can be reached before anything is encoded.

    Raises:
        UsageError: one cannot; the nearest that can is named.
    """
    from mergevq.models.tokenizer.merge import merge_schedule

    for keep in keeps:
        merge_schedule((size // config.stride) ** 2, keep, config.encoder.depth, config.merge.schedule)


def check_writable(path: Path, folder: bool = False) -> None:
    """Makes sure, before the work, that its result can be written.

    Args:
        path: the file, or the folder for files.
        folder: which of the two; folders that are missing are made.

    Raises:
        OutputError: it cannot be written, or is a folder where a file is wanted.
    """
    if os.path.exists(path) and os.path.isdir(path) != folder:  # which never raise
        wanted = ("a file", "folder") if folder else ("a folder", "file")
        raise OutputError(f"{path} is {wanted[0]}; give the name of a {wanted[1]}")
    try:
        if not folder and not is_regular(path):  # it is written to, and its folder, /dev say, stays as it is
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        parent = path if folder else Path(os.path.realpath(path)).parent
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def pictures(number: int) -> str:
    """A number of pictures in words."""
    return f"{number} picture{'' if number == 1 else 's'}"


def on_terminal() -> bool:
    """Whether progress bars make sense."""
    return sys.stderr.isatty()


def default_keeps(config: TokenizerConfig, size: int) -> list[int]:
    """L, its halves down to an eighth, and the preset's K, as far as they can be reached; ascending."""
    from mergevq.models.tokenizer.merge import fewest, scaled_keep

    length = (size // config.stride) ** 2
    wanted = {length // 2**halvings for halvings in range(4)}
    wanted.add(scaled_keep(config.merge.keep, config.length, length))
    return sorted(keep for keep in wanted if keep >= fewest(length, config.encoder.depth))
