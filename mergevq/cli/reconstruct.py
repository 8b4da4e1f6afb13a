"""`mergevq reconstruct`: a figure of pictures, their reconstructions and their source maps."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from mergevq.models.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "reconstruct",
        help="a figure of originals, reconstructions and source maps",
        description="Draws pictures beside their reconstructions at several kept counts, from the true and "
        "from the recovered source, with the PSNR of each and the regions that the tokens cover.",
        epilog="examples:\n"
        "  mergevq reconstruct --checkpoint runs/tok photo.jpg --out grid.png\n"
        "  mergevq reconstruct --checkpoint runs/tok photos/ --keep 36,64,144 --limit 4 --out grid.png\n",
    )
    common.add_checkpoint(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders, tar shards or builtin:NAME"
    )
    parser.add_argument(
        "--out", type=common.picture_path, required=True, metavar="GRID.png", help="the figure"
    )
    parser.add_argument(
        "--keep",
        type=common.counts,
        metavar="K,K,...",
        help="kept counts [the preset's K, L and some between]",
    )
    common.add_size(parser)
    common.add_limits(parser)
    parser.add_argument(
        "--limit", type=common.positive, default=8, metavar="N", help="the first N pictures [%(default)s]"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Encodes, decodes and draws."""
    import torch

    from mergevq.cli.shared.pictures import PictureReader, find_pictures
    from mergevq.visual import save_picture

    tokenizer, _ = common.load_tokenizer(options)
    size = common.square_size(tokenizer.config, options.size)
    keeps = options.keep or common.default_keeps(tokenizer.config, size)
    common.check_keeps(tokenizer.config, size, keeps)
    common.check_writable(options.out)
    found = find_pictures(options.images)
    if len(found) > options.limit:
        logger.info("drawing the first %d of %d pictures; --limit draws more", options.limit, len(found))
    reader = PictureReader(
        found[: options.limit], size, tokenizer.config.stride, batch_size=1, limits=common.limits(options)
    )
    images = torch.cat([torch.from_numpy(image) for _, image in reader])  # (B, 3, S, S)
    save_picture(_figure(tokenizer, images, keeps), options.out)
    print(f"{common.pictures(len(images))} at {', '.join(map(str, keeps))} tokens: {options.out}")
    reader.check_complete()
    return 0


def _figure(tokenizer: Tokenizer, images: torch.Tensor, keeps: Sequence[int]) -> Image.Image:
    """The figure of (B, 3, S, S) uint8 originals; one picture a pass: they are few and may be large."""
    import torch

    from mergevq.data.images.transforms import to_float, to_uint8
    from mergevq.data.tokens.file import joined
    from mergevq.visual import reconstruction_figure

    painted, recovered, tokens = {}, {}, {}
    with torch.inference_mode():
        for keep in keeps:
            parts = [tokenizer.encode(to_float(image[None].to(tokenizer.device)), keep) for image in images]
            painted[keep] = torch.cat([to_uint8(tokenizer.decode(part)).cpu() for part in parts])
            recovered[keep] = torch.cat(
                [to_uint8(tokenizer.decode(part.indices, part.grid)).cpu() for part in parts]
            )
            tokens[keep] = joined(parts).to("cpu")
    return reconstruction_figure(
        images, painted, tokens, recovered=recovered, title=f"{tokenizer.config.name}, {images.shape[-1]} px"
    )
