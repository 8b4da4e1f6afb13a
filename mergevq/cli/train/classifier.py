"""`mergevq train classifier`: the network that generated pictures are judged by, trained on the data itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mergevq.cli.shared import common

if TYPE_CHECKING:
    import torch


def register(kinds: Any) -> None:
    """Adds the kind to `mergevq train`."""
    parser = kinds.add_parser(
        "classifier",
        help="a network that judges generated pictures",
        description="Trains a small residual network to tell the classes of a data set, for `mergevq "
        "evaluate generation --network`. Its accuracy on the pictures held out is stored with it. "
        "It is written at the end, and a run that was stopped starts over.",
        epilog="examples:\n"
        "  mergevq train classifier --data cifar10.tar --out runs/classifier\n"
        "  mergevq train classifier --data builtin:digits --out runs/digits-classifier --size 16\n",
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="image folder or tar shards with classes, builtin:NAME"
    )
    parser.add_argument(
        "--out", type=common.path, required=True, metavar="DIR", help="where the classifier goes"
    )
    parser.add_argument(
        "--epochs", type=common.positive, default=8, metavar="N", help="passes over the data [%(default)s]"
    )
    parser.add_argument(
        "--size",
        type=common.side,
        default=32,
        metavar="S",
        help="pixels a side that it sees; pictures stay in memory at this size [%(default)s]",
    )
    parser.add_argument("--seed", type=common.seed, default=0, metavar="N", help="[%(default)s]")
    parser.add_argument(
        "--workers",
        type=common.processes,
        default=2,
        metavar="N",
        help="processes that read pictures [%(default)s]",
    )
    common.add_limits(parser)
    common.add_device(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Trains."""
    from mergevq.backends import select
    from mergevq.training.classifier.run import ClassifierRun, train_classifier

    settings = ClassifierRun(
        data=options.data,
        epochs=options.epochs,
        size=options.size,
        seed=options.seed,
        workers=options.workers,
        limits=common.limits(options),
    )
    device = select(options.device)
    common.check_writable(options.out, folder=True)
    card = train_classifier(settings, options.out, device, _progress)
    print(f"{options.out}: {card.accuracy:.2%} of {card.test_images} test pictures right")
    return 0


def _progress(batches: Iterator[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
    from tqdm import tqdm

    return iter(tqdm(batches, total=count, unit="step", leave=False, disable=not common.on_terminal()))
