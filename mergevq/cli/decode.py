"""`mergevq decode`: a file of tokens to pictures."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from mergevq.cli.shared import common, engines

_UNSAFE = re.compile(r'[\x00-\x1f\\:*?"<>|]')


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "decode",
        help="a file of tokens to pictures",
        description="Decodes what `mergevq encode` wrote and saves a PNG for each picture, under the name "
        "that it had. The checkpoint must be the one that the tokens were made with.",
        epilog="examples:\n"
        "  mergevq decode --checkpoint runs/tok tokens.npz --out decoded\n"
        "  mergevq decode --checkpoint runs/tok tokens.npz --out recovered --source recovered\n"
        "  mergevq decode --checkpoint deployed --runtime onnx tokens.npz --out decoded\n",
    )
    common.add_checkpoint(parser)
    engines.add_runtime(parser)
    parser.add_argument("tokens", type=common.path, metavar="TOKENS.npz", help="a token file")
    parser.add_argument(
        "--out", type=common.path, required=True, metavar="DIR", help="the folder for the pictures"
    )
    parser.add_argument(
        "--source",
        choices=("true", "recovered"),
        default="true",
        help="the source map of the file, or the one that the codes alone give [%(default)s]",
    )
    common.add_batch_size(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Decodes and writes."""
    from tqdm import tqdm

    from mergevq.data.images.pixels import to_picture
    from mergevq.data.tokens.array_file import load_token_arrays
    from mergevq.visual import save_picture

    file = load_token_arrays(options.tokens)
    tokenizer = engines.open_tokenizer(options)
    file.check_maker(tokenizer.fingerprint, tokenizer.config.quantizer.bits)
    common.check_writable(options.out, folder=True)
    paths = [options.out / name for name in png_names(file.names)]
    starts = range(0, len(file.tokens), options.batch_size)
    for start in tqdm(starts, unit="batch", disable=not common.on_terminal()):
        rows = slice(start, start + options.batch_size)
        tokens = file.tokens[rows]
        if options.source == "true":
            painted = tokenizer.decode(tokens)
        else:
            painted = tokenizer.decode(tokens.indices, tokens.grid)
        for path, image in zip(paths[rows], painted, strict=True):
            save_picture(to_picture(image), path)
    print(f"{common.pictures(len(paths))}: {options.out}")
    return 0


def png_names(names: Sequence[str]) -> list[str]:
    """A relative path ending in .png for each name, all different and none outside the folder.

    Args:
        names: from a file that may come from anywhere.
    """
    taken: dict[str, None] = {}
    for name in names:
        parts = [part for part in _UNSAFE.sub("_", name).split("/") if part not in ("", ".", "..")]
        path = PurePosixPath(*parts) if parts else PurePosixPath("picture")
        candidate, number = path.with_suffix(".png"), 1
        while str(candidate) in taken:
            number += 1
            candidate = path.with_name(f"{path.stem}-{number}.png")
        taken[str(candidate)] = None
    return list(taken)
