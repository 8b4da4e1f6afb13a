"""What a verification found: checks with numbers, limits and the worst sample, as text and as verify.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergevq.errors import ExportError
from mergevq.export.manifest import VERIFICATION
from mergevq.storage.files import write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at."""

    graph: str
    """The file, or "all" for what graphs do together."""
    name: str
    passed: bool
    value: float | None = None
    """What was measured; None where there is nothing to measure."""
    limit: float | None = None
    """What `value` may reach; None where it decides nothing."""
    worst: str = ""
    """The sample that came out worst, or what is wrong."""

    def sentence(self) -> str:
        """The check in words."""
        measured = "" if self.value is None else f" {self.value:.4g}"
        limit = "" if self.limit is None else f" (limit {self.limit:.4g})"
        return f"{self.graph}: {self.name}{measured}{limit}" + (f", {self.worst}" if self.worst else "")


def at_most(graph: str, name: str, values: Mapping[str, float], limit: float) -> Check:
    """A check that the greatest of the samples' values is within a limit; NaN is not."""
    worst = max(values, key=lambda sample: _ranked(values[sample]))
    value = float(values[worst])
    return Check(graph=graph, name=name, passed=value <= limit, value=value, limit=limit, worst=worst)


def at_least(graph: str, name: str, values: Mapping[str, float], limit: float) -> Check:
    """A check that the least of the samples' values reaches a limit; NaN does not."""
    worst = min(values, key=lambda sample: -_ranked(-values[sample]))
    value = float(values[worst])
    return Check(graph=graph, name=name, passed=value >= limit, value=value, limit=limit, worst=worst)


def mean_at_least(graph: str, name: str, values: Mapping[str, float], limit: float) -> Check:
    """A check of the mean over samples, which names the least of them."""
    worst = min(values, key=lambda sample: -_ranked(-values[sample]))
    value = float(sum(values.values()) / len(values))
    worst = f"{worst} ({values[worst]:.4g})"
    return Check(graph=graph, name=name, passed=value >= limit, value=value, limit=limit, worst=worst)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """A verification of a folder."""

    manifest: str
    """SHA-256 of the manifest that was verified; of engines `EngineGraphs.digest`, which holds it."""
    provider: str
    """What ran the graphs."""
    versions: Mapping[str, str]
    checks: tuple[Check, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check passed; without any, none did."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    def raise_if_failed(self) -> None:
        """Raises ExportError with the first failure where there is one."""
        if self.passed:
            return
        failures = self.failures
        more = f", and {len(failures) - 1} more checks" if len(failures) > 1 else ""
        what = failures[0].sentence() if failures else "nothing was checked"
        raise ExportError(f"the graphs do not do what the model does: {what}{more}")

    def to_json(self) -> dict[str, Any]:
        """The content of verify.json."""
        return {
            "passed": self.passed,
            "manifest": self.manifest,
            "provider": self.provider,
            "versions": dict(self.versions),
            "seconds": round(self.seconds, 3),
            "checks": [_finite(asdict(check)) for check in self.checks],
        }

    def write(self, folder: Path) -> None:
        """Writes verify.json, whole or not at all.

        Raises:
            OutputError: the folder cannot be written; an earlier one is unchanged.
        """
        text = json.dumps(self.to_json(), indent=1) + "\n"
        # Where the folder holds links into a download cache, the file there is others' too.
        write_atomically(
            folder / VERIFICATION, lambda path: path.write_text(text, encoding="utf-8"), follow=False
        )


def as_table(checks: Iterable[Check]) -> str:
    """A line for each check."""
    return "\n".join(f"{'ok    ' if check.passed else 'FAILED'} {check.sentence()}" for check in checks)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """NaN and infinity as text, which JSON knows no numbers for."""
    return {
        key: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _ranked(value: float) -> float:
    """A key under which NaN is the greatest."""
    return float("inf") if value != value else value
