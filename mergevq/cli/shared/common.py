"""What several commands share: option types, the device, the checkpoint, checks before the work begins."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergevq.errors import OutputError, UsageError
from mergevq.files import is_regular

if TYPE_CHECKING:
    from mergevq.backends import Device
    from mergevq.config import TokenizerConfig
    from mergevq.models.tokenizer.tokenizer import Tokenizer

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def positive(text: str) -> int:
    """A positive integer from the command line."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return value


def natural(text: str) -> int:
    """An integer from 0 upwards from the command line."""
    return 0 if text == "0" else positive(text)


def counts(text: str) -> list[int]:
    """Positive integers between commas, such as 36,64,144; each once, in the order given."""
    return list(dict.fromkeys(positive(part.strip()) for part in text.split(",")))


def picture_path(text: str) -> Path:
    """A path that ends like a picture's."""
    path = Path(text)
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(f"{text!r} does not end like a picture: {' '.join(_PICTURES)}")
    return path


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """--checkpoint and --device."""
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="C",
        help="a run folder, a folder of mergevq.save, a training checkpoint, or a hub id",
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


def add_size(parser: Any) -> None:
    """--size."""
    parser.add_argument(
        "--size",
        type=positive,
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


@contextlib.contextmanager
def tidy_when_terminated() -> Iterator[None]:
    """Has SIGTERM leave the block as an exception would, so that what is half made goes away; the exit code is 143."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
