"""Damages files of one kind, or of all, and reads them: `python tests/fuzz/run.py [KIND ...] [--count N] [--seed S]`.

    python tests/fuzz/run.py --list                                   the kinds
    python tests/fuzz/run.py tokenizer token-file --count 500         two of them
    python tests/fuzz/run.py png --seed 0 --first 17 --count 1 -v     one case again
    python tests/fuzz/run.py --count 300                              all; the exit code is 1 where anything was found
    MERGEVQ_FUZZ=500 pytest -m fuzz tests/fuzz                        the same as a test

Needs Linux. Nothing is written but below a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "agg"

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Runs cases; prints what was found, grouped by cause; 1 where anything was."""
    options = _options()
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    kinds = _kinds(options)
    if options.list:
        print("\n".join(kinds))
        return 0
    unknown = [name for name in options.kinds if name not in kinds]
    if unknown:
        print(f"there is no kind {unknown[0]}; --list shows them", file=sys.stderr)
        return 2
    chosen = {name: kind for name, kind in kinds.items() if not options.kinds or name in options.kinds}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as home:
        os.chdir(home)
        found = _run(chosen, Path(home), options)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    _print(found, options.verbose)
    return 1 if found["reports"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case; 0 is the valid file")
    parser.add_argument("--count", type=int, help="cases of each kind, fewer of slow ones [a few]")
    parser.add_argument("--json", type=os.path.abspath, help="write what was found to a file")
    parser.add_argument("--readers", type=Path, help="a module with other KINDS, for tests of this program")
    parser.add_argument("--list", action="store_true", help="print the kinds and stop")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every finding, and its bytes")
    return parser.parse_args()


def _kinds(options: argparse.Namespace) -> dict[str, Any]:
    if options.readers is not None:
        sys.path.insert(0, str(options.readers.resolve().parent))
        module = __import__(options.readers.stem)
        return dict(module.KINDS)
    from fuzzing.kinds import KINDS

    return KINDS


def _run(kinds: dict[str, Any], home: Path, options: argparse.Namespace) -> dict[str, Any]:
    from fuzzing.examiner import Examiner

    examiner = Examiner(kinds, home)
    reports, counts, seconds = [], {}, {}
    for name in examiner.kinds:
        kind, started = kinds[name], time.monotonic()
        share = kind.share if len(kinds) > 1 else 1.0
        count = kind.default if options.count is None else max(1, round(options.count * share))
        for report in examiner.examine(name, options.seed, range(options.first, options.first + count)):
            reports += [] if report is None else [report._asdict()]
        counts[name], seconds[name] = count, round(time.monotonic() - started, 2)
        found = sum(report["kind"] == name for report in reports)
        print(f"{name}: {count} cases, {found} findings, {seconds[name]} s", file=sys.stderr, flush=True)
    examiner.close()
    return {"cases": counts, "seconds": seconds, "reports": reports}


def _print(found: dict[str, Any], verbose: bool) -> None:
    causes = Counter((report["kind"], report["cause"]) for report in found["reports"])
    print(f"{sum(found['cases'].values())} cases, {len(found['reports'])} findings, {len(causes)} causes")
    for (kind, cause), number in causes.items():
        of_cause = [
            report for report in found["reports"] if (report["kind"], report["cause"]) == (kind, cause)
        ]
        print(f"\n{kind}: {cause} ({number} times)")
        for report in of_cause if verbose else of_cause[:1]:
            print(f"    {report['done'][:300]}\n    {report['detail'][:500]!r}\n    {report['command']}")
            if verbose:
                print(
                    "".join(f"    {name}: {content}\n" for name, content in report["files"].items()), end=""
                )


if __name__ == "__main__":
    sys.exit(main())
