"""`mergevq encode`: pictures to a file of tokens."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common, engines

if TYPE_CHECKING:
    from mergevq.cli.shared.engines import TokenizerEngine
    from mergevq.cli.shared.pictures import PictureReader
    from mergevq.data.tokens.array_file import TokenArrayFile


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "encode",
        help="pictures to a file of tokens",
        description="Encodes pictures and writes their codes, source maps and names to one .npz file (arrays "
        "indices, source, sizes, grid, names; nothing pickled). Pictures are resized and cut to the preset's "
        "square unless --size or --original-size says otherwise. One that cannot be read is named and left "
        "out; the exit code is then 1.",
        epilog="examples:\n"
        "  mergevq encode --checkpoint runs/tok photo.jpg --out tokens.npz\n"
        "  mergevq encode --checkpoint runs/tok photos/ more/*.png --keep 36 --out tokens.npz --json\n"
        "  mergevq encode --checkpoint runs/tok scan.png --original-size --out tokens.npz\n"
        "  mergevq encode --checkpoint deployed --runtime onnx photo.jpg --out tokens.npz\n",
    )
    common.add_checkpoint(parser)
    engines.add_runtime(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders, tar shards or builtin:NAME"
    )
    parser.add_argument("--out", type=common.path, required=True, metavar="FILE.npz", help="the token file")
    parser.add_argument(
        "--keep",
        type=common.positive,
        metavar="K",
        help="tokens a picture [the preset's; at another size the same share of the positions]",
    )
    sizes = parser.add_mutually_exclusive_group()
    common.add_size(sizes)
    sizes.add_argument(
        "--original-size",
        action="store_true",
        help="resize nothing, cut to multiples of the stride; all pictures must then have one size",
    )
    common.add_batch_size(parser)
    common.add_limits(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Encodes and writes."""
    from mergevq.cli.shared.pictures import PictureReader, find_pictures
    from mergevq.data.tokens.array_file import save_token_arrays

    tokenizer = engines.open_tokenizer(options)
    config = tokenizer.config
    size = None if options.original_size else common.square_size(config, options.size)
    if size is not None and options.keep is not None:
        common.check_keeps(config, size, [options.keep])
    reader = PictureReader(
        find_pictures(options.images), size, config.stride, options.batch_size, common.limits(options)
    )
    common.check_writable(options.out)
    started = time.perf_counter()
    encoded = _encode(tokenizer, reader, options.keep)
    save_token_arrays(options.out, encoded)
    _report(options, encoded, reader.skipped, config.quantizer.bits, time.perf_counter() - started)
    reader.check_complete()
    return 0


def _encode(tokenizer: TokenizerEngine, reader: PictureReader, keep: int | None) -> TokenArrayFile:
    from mergevq.data.images.pixels import to_float
    from mergevq.data.tokens.array_file import TokenArrayFile
    from mergevq.tokens import joined_arrays

    names, parts = [], []
    for batch_names, images in reader:
        names += batch_names
        parts.append(tokenizer.encode(to_float(images), keep))
    return TokenArrayFile(joined_arrays(parts), names, tokenizer.config.stride, tokenizer.fingerprint)


def _report(
    options: argparse.Namespace, encoded: TokenArrayFile, skipped: int, bits: int, seconds: float
) -> None:
    tokens = encoded.tokens
    height, width = tokens.grid
    summary = {
        "out": str(options.out),
        "pictures": len(tokens),
        "skipped": skipped,
        "keep": tokens.keep,
        "grid": [height, width],
        "size": [height * encoded.stride, width * encoded.stride],
        "code_bits": tokens.keep * bits,
        "tokenizer": encoded.tokenizer,
        "seconds": round(seconds, 3),
    }
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    print(
        f"{common.pictures(len(tokens))}, {tokens.keep} of {height * width} tokens each "
        f"({tokens.keep * bits} bits), in {seconds:.1f} s: {options.out}"
    )
