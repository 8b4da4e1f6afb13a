"""`mergevq bench`: timings, as JSON, tables and plots, and what changed since earlier ones."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from mergevq.bench.groups import SUITES, files
from mergevq.cli.shared import common
from mergevq.errors import UsageError
from mergevq.storage.files import expanded


def register(subparsers: Any) -> None:
    """Adds the command."""
    suites = "; ".join(f"{name}: {what}" for name, (_, what) in SUITES.items())
    parser = subparsers.add_parser(
        "bench",
        help="time the parts, in every run time that is there",
        description="Times the parts of the package. Run times (PyTorch, torch.compile, ONNX Runtime, TensorRT) "
        "are timed in pairs with PyTorch in float32 and the same number of threads; what is not installed, has no "
        "device or failed its verification is skipped with the reason. By default a small model and seconds a "
        "case; --full "
        f"takes the presets of the paper. Groups: {suites}.",
        epilog="examples:\n"
        "  mergevq bench --group encode --group decode --json timings.json --plot plots\n"
        "  mergevq bench --full --group encode --threads 2 --exports cache --only 'not bf16' --json now.json\n"
        "  mergevq bench --group roundtrip --checkpoint runs/tok --export deployed --report timings.md\n"
        "  mergevq bench --results now.json --compare earlier.json\n",
    )
    _add_choice(parser)
    _add_models(parser)
    _add_outputs(parser)
    parser.set_defaults(run=run)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """What is timed."""
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME",
        help="one of the groups; may be repeated [all]",
    )
    parser.add_argument(
        "--only", metavar="EXPRESSION", help="cases whose names match, as pytest's -k: 'onnx and not batch8'"
    )
    parser.add_argument("--full", action="store_true", help="the paper's presets; minutes to hours")
    parser.add_argument(
        "--seconds",
        type=common.positive,
        metavar="S",
        help="time run times for so long a case, or two or three rounds [8 with --full, else 0.2]",
    )
    parser.add_argument(
        "--threads", type=common.some_processes, metavar="N", help="of every run time [2 with --full, else 1]"
    )
    common.add_device(parser)
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out peak memory, which takes a process a case"
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    """What models are timed."""
    parser.add_argument(
        "--checkpoint",
        metavar="C",
        help="time the run times on this model instead of one with random weights",
    )
    parser.add_argument(
        "--export",
        type=common.path,
        metavar="DIR",
        help="time these graphs of --checkpoint instead of new ones",
    )
    parser.add_argument(
        "--exports",
        type=common.path,
        metavar="DIR",
        help="keep exported graphs there for later runs [they are thrown away]",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where results go."""
    parser.add_argument(
        "--json", type=common.path, metavar="FILE", help="write every round of every case there"
    )
    parser.add_argument(
        "--report", type=common.path, metavar="FILE.md", help="write the tables there, not to stdout"
    )
    parser.add_argument("--plot", type=common.path, metavar="DIR", help="write the plots there")
    parser.add_argument(
        "--compare",
        type=common.path,
        metavar="EARLIER.json",
        help="show what changed since an earlier --json",
    )
    parser.add_argument(
        "--results",
        type=common.path,
        metavar="FILE",
        help="take these timings, of an earlier --json, and time nothing",
    )


def run(options: argparse.Namespace) -> int:
    """Times, writes, compares."""
    from mergevq.bench import report

    _check(options)
    earlier = None if options.compare is None else report.read(options.compare)
    if options.results is not None:
        _write(options, report.read(options.results), earlier)
        return 0
    return _time(options, earlier)


def _check(options: argparse.Namespace) -> None:
    """Whatever can be wrong, before hours are spent."""
    files(options.group)
    if options.export is not None:
        if options.checkpoint is None:
            raise UsageError("--export is compared with the model that it was made from; add --checkpoint")
        from mergevq.bench.subjects.verified import check_verified

        check_verified(options.export)
    if options.results is not None and (options.group or options.json is not None):
        raise UsageError("--results times nothing; leave out --group and --json")
    for path in (options.json, options.report):
        if path is not None:
            common.check_writable(path)
    if options.plot is not None:
        common.check_writable(options.plot, folder=True)


def _time(options: argparse.Namespace, earlier: dict[str, Any] | None) -> int:
    from mergevq.bench.running import Settings, run
    from mergevq.storage.files import write_atomically

    outcome = run(
        Settings(
            groups=options.group,
            only=options.only,
            full=options.full,
            seconds=options.seconds,
            threads=options.threads,
            device=options.device,
            memory=not options.no_memory,
            checkpoint=_resolved(options.checkpoint),
            export=options.export,
            exports=options.exports,
        )
    )
    if outcome.results is not None:
        text = json.dumps(outcome.results, indent=1) + "\n"
        if options.json is not None:
            write_atomically(options.json, lambda path: path.write_text(text, encoding="utf-8"))
        if not outcome.interrupted:
            _write(options, outcome.results, earlier)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.failed:
        print("mergevq: some cases failed; what they said stands above", file=sys.stderr)
        return 1
    if outcome.results is None:
        raise UsageError("nothing was timed: every case was skipped, for the reasons above")
    return 0


def _write(options: argparse.Namespace, results: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    """Tables, plots and the comparison."""
    from mergevq.bench import compare, plots, report

    if options.report is not None:
        report.write(options.report, report.markdown(results))
    elif options.compare is None:
        print(report.markdown(results), end="")
    if options.plot is not None:
        for path in plots.draw(results, options.plot):
            print(f"plotted {path}", file=sys.stderr)
    if earlier is not None:
        print(compare.as_table(earlier, results), end="")


def _resolved(checkpoint: str | None) -> str | None:
    """A path from anywhere; the name of a repository stays one."""
    return str(expanded(checkpoint).resolve()) if checkpoint and expanded(checkpoint).exists() else checkpoint
