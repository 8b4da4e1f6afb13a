"""Where the time of encoding or decoding goes: PyTorch's profiler over a preset, the slowest operators first.

python -m mergevq.bench.hotspots --preset G --what encode
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Literal

import torch
from torch.profiler import profile

from mergevq.backends import select
from mergevq.bench.subjects.cases import finished, images, tokenizer
from mergevq.errors import MergeVQError

What = Literal["encode", "decode"]
_PASSES = 3


def hotspots(
    preset: str, what: What, precision: str = "32", channels_last: bool = False, top: int = 15
) -> str:
    """A table of operators by the time spent in themselves.

    Args:
        preset: by name; random weights.
        what: which direction, for one image of the preset's size.
        precision: "32" or "bf16".
        channels_last: the memory format.
        top: rows.

    Raises:
        MergeVQError: there is no such preset, or the device cannot be used.
    """
    device = select()
    model = tokenizer(preset, device.name, channels_last)
    pictures = images(model.config.image_size, 1, device.name, channels_last)
    with torch.inference_mode(), device.autocast(precision):
        tokens = model.encode(pictures)
        run = finished(
            (lambda: model.encode(pictures)) if what == "encode" else (lambda: model.decode(tokens)), device
        )
        run()
        with profile(acc_events=True) as profiler:
            for _ in range(_PASSES):
                run()
    return str(profiler.key_averages().table(sort_by=f"self_{device.name}_time_total", row_limit=top))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mergevq.bench.hotspots",
        description="Shows where the time of encoding or decoding goes.",
    )
    parser.add_argument("--preset", default="tiny-32")
    parser.add_argument("--what", choices=["encode", "decode"], default="encode")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--top", type=int, default=15, help="rows of the table")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        table = hotspots(options.preset, options.what, options.precision, options.channels_last, options.top)
    except MergeVQError as error:
        sys.stderr.write(f"mergevq.bench.hotspots: error: {error}\n")
        return error.exit_code
    sys.stdout.write(table + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
