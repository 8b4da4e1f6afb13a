"""`mergevq tokens`: a data set's pictures to shards of tokens, on which generators are trained."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common
from mergevq.errors import DataError, UsageError

if TYPE_CHECKING:
    from mergevq.data.tokens.meta import TokenMeta


def register(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "tokens",
        help="a data set to shards of tokens, for training generators",
        description="Encodes every picture of a data set, in several views, and writes codes, source maps, kept "
        "counts and classes to a folder of shards that `mergevq train generator` reads by memory map. The "
        "same command again goes on where a run stopped. Several processes share the shards: start it "
        "with --rank and --world, or as torchrun --nproc-per-node 8 -m mergevq tokens. A picture that "
        "cannot be read is named and left out; the exit code of the process that completes the tokens is "
        "then 1.",
        epilog="examples:\n"
        "  mergevq tokens --checkpoint runs/tok --data builtin:digits --out runs/tokens\n"
        "  mergevq tokens --checkpoint runs/tok --data imagenet/ --out runs/tokens --views 10 --keep 100,144,196\n"
        "  mergevq tokens --checkpoint runs/tok --data imagenet/ --out runs/tokens --rank 0 --world 8\n",
    )
    common.add_checkpoint(parser)
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="image folder, tar shards or builtin:NAME"
    )
    parser.add_argument(
        "--out", type=common.path, required=True, metavar="DIR", help="the folder for the shards"
    )
    parser.add_argument(
        "--split", choices=("train", "val", "all"), default="train", help="which pictures [%(default)s]"
    )
    parser.add_argument(
        "--views",
        type=common.positive,
        default=2,
        metavar="V",
        help="records of each picture: the centre crop, its mirror image, then random crops [%(default)s]",
    )
    parser.add_argument(
        "--keep",
        type=common.counts,
        default=[],
        metavar="K,K,...",
        help="kept counts, of which each record draws one [the preset's]",
    )
    parser.add_argument(
        "--shard-size",
        type=common.positive,
        default=8192,
        metavar="N",
        help="pictures a shard, the most that is lost when a run is killed [%(default)s]",
    )
    _add_process_options(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run, batch_size=64)


def _add_process_options(parser: argparse.ArgumentParser) -> None:
    """How the work is done, and by how many."""
    common.add_batch_size(parser)
    common.add_limits(parser)
    parser.add_argument(
        "--seed", type=common.seed, default=0, metavar="N", help="decides crops and counts [%(default)s]"
    )
    parser.add_argument(
        "--workers",
        type=common.processes,
        default=2,
        metavar="N",
        help="processes that read pictures [%(default)s]",
    )
    parser.add_argument(
        "--rank", type=common.natural, metavar="R", help="this process, from 0 [$RANK, else 0]"
    )
    parser.add_argument(
        "--world", type=common.positive, metavar="W", help="number of processes [$WORLD_SIZE, else 1]"
    )
    parser.add_argument(
        "--max-failures",
        type=common.natural,
        default=100,
        metavar="N",
        help="unreadable pictures that are left out before a process gives up [%(default)s]",
    )


def run(options: argparse.Namespace) -> int:
    """Makes the shards of this process, and says whether any are missing."""
    from mergevq.data.images.sources import open_source
    from mergevq.data.tokens.extraction import describe

    rank, world = _place(options)
    source = open_source(options.data, options.split)
    _use_local_device(options.device)
    tokenizer, _ = common.load_tokenizer(options)
    meta = describe(
        tokenizer,
        source,
        options.split,
        counts=options.keep,
        views=options.views,
        seed=options.seed,
        shard_size=options.shard_size,
    )
    common.check_writable(options.out, folder=True)
    started = time.perf_counter()
    done, missing = _extract(options, tokenizer, source, meta, rank, world)
    seconds = time.perf_counter() - started
    return _report(options, meta, missing, {"rank": rank, "world": world, "done": done, "seconds": seconds})


def _place(options: argparse.Namespace) -> tuple[int, int]:
    """This process and the number of processes: as given, else as torchrun says."""
    if (options.rank is None) != (options.world is None):
        raise UsageError("--rank and --world belong together: this process, and how many there are")
    if options.rank is not None:
        rank, world = options.rank, options.world
    else:
        rank, world = (int(os.environ.get(name, other)) for name, other in (("RANK", 0), ("WORLD_SIZE", 1)))
    if rank >= world:
        raise UsageError(f"rank {rank} is not below the number of processes, {world}; ranks count from 0")
    return rank, world


def _use_local_device(name: str | None) -> None:
    """With torchrun, each process of a machine takes another of its devices."""
    import torch

    from mergevq.backends import select

    if "LOCAL_RANK" in os.environ and select(name).name != "cpu":
        count = torch.accelerator.device_count()
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]) % count)


def _extract(
    options: argparse.Namespace, tokenizer: Any, source: Any, meta: TokenMeta, rank: int, world: int
) -> tuple[int, list[int]]:
    """The number of pictures done here and now, and the shards that are missing afterwards."""
    from tqdm import tqdm

    from mergevq.data.tokens.extraction import extract
    from mergevq.data.tokens.meta import missing_shards

    own = sum(len(meta.shard_images(shard)) for shard in range(rank, meta.shards, world))
    due = [shard for shard in missing_shards(options.out, meta) if shard % world == rank]
    todo = sum(len(meta.shard_images(shard)) for shard in due)
    with tqdm(
        total=own, initial=own - todo, unit="img", unit_scale=True, disable=not common.on_terminal()
    ) as bar:
        missing = extract(
            tokenizer,
            source,
            options.out,
            meta,
            batch_size=options.batch_size,
            rank=rank,
            world=world,
            workers=options.workers,
            max_failures=options.max_failures,
            limits=common.limits(options),
            progress=bar.update,
        )
    return todo, missing


def _report(options: argparse.Namespace, meta: TokenMeta, missing: list[int], run: dict[str, Any]) -> int:
    """Prints the summary; the process that completes the tokens looks at them all."""
    from mergevq.data.tokens.shards import TokenShards

    shards = None if missing else TokenShards(options.out)
    rate = run["done"] / max(run["seconds"], 1e-9)
    summary = {
        "out": str(options.out),
        "pictures": meta.images,
        "classes": meta.classes,
        "views": meta.views,
        "keep": list(meta.counts),
        "shards": meta.shards,
        "missing": len(missing),
        "records": len(shards) if shards else None,
        "skipped": len(shards.unreadable) if shards else None,
        "tokenizer": meta.fingerprint,
        **run,
        "seconds": round(run["seconds"], 3),
        "pictures_per_second": round(rate, 1),
    }
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        whole = f"{len(shards)} records of {common.pictures(meta.images)}" if shards else "incomplete"
        print(
            f"{options.out}: {whole} in {meta.shards - len(missing)} of {meta.shards} shards; "
            f"{common.pictures(run['done'])} done here in {run['seconds']:.1f} s ({rate:.1f} a second)"
        )
        if missing:
            print(f"{len(missing)} of {meta.shards} shards are missing; they belong to other processes")
    if shards and shards.unreadable:
        raise DataError(
            f"{len(shards.unreadable)} of {meta.images} pictures had to be left out, first "
            f"{shards.unreadable[0].name} ({shards.unreadable[0].reason}); the others are done"
        )
    return 0
