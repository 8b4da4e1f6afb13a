"""The cases that differ by run time: which there are, and how one is timed beside PyTorch eager in float32."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mergevq.backends import select
from mergevq.bench.measuring.paired import Call, time_by_itself, time_in_pairs
from mergevq.bench.measuring.peak import peak_memory
from mergevq.bench.subjects import runtimes
from mergevq.bench.subjects.cases import FULL, counted, describe
from mergevq.bench.subjects.models import subjects
from mergevq.bench.subjects.runtimes import BASELINE, SHOWN, Opened, Precision, Runtime, Unavailable, Where

SECONDS = float(os.environ.get("MERGEVQ_BENCH_SECONDS", "8.0" if FULL else "0.2"))
"""How long the pairs of a case may take, if they are quick."""

BATCHES = [1, 2] if not FULL else [1, 8] if select().name == "cpu" else [1, 8, 32]

VARIANTS: list[tuple[Runtime, Precision]] = [
    BASELINE,
    ("eager", "bf16"),
    ("eager", "float16"),
    ("compile", "float32"),
    ("compile", "bf16"),
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("tensorrt", "float32"),
    ("tensorrt", "float16"),
]
"""In the order of the tables. ONNX Runtime has no float16 arithmetic on most CPUs, and no bf16 there at all."""

_SMOKE: list[tuple[Runtime, Precision]] = [*VARIANTS[:4], ("onnx", "float32"), ("tensorrt", "float32")]

MEMORY = os.environ.get("MERGEVQ_BENCH_MEMORY", "1") != "0"


def variants(without: Sequence[str] = ()) -> list[tuple[Runtime, Precision]]:
    """The run times with their precisions, but those left out, each "compile" or "eager-float16" say."""
    known = VARIANTS if FULL else _SMOKE
    return [each for each in known if each[0] not in without and "-".join(each) not in without]


@dataclass(frozen=True)
class Case:
    """A model in a run time, as a parameter of pytest."""

    task: runtimes.Task
    subject: str
    runtime: Runtime
    precision: Precision
    keep: int
    """Tokens: those that are kept, or of a step those in the cache."""
    batch: int

    @property
    def name(self) -> str:
        """As in `G+R-onnx-float32-keep144-batch1`."""
        subject = self.subject.replace(" ", "-")
        return f"{subject}-{self.runtime}-{self.precision}-keep{self.keep}-batch{self.batch}"

    @property
    def is_baseline(self) -> bool:
        """Whether it is what the others are compared with."""
        return (self.runtime, self.precision) == BASELINE


def parametrized(cases: Sequence[Case]) -> Any:
    """The decorator that gives a test its cases; where there is none, the reason."""
    if not cases:
        return pytest.mark.skip(reason="the checkpoint is a tokenizer, and this suite is of generators")
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def tokenizer_cases(
    task: runtimes.Task, *, batches: Sequence[int], other_keeps: bool, without: Sequence[str] = ()
) -> list[Case]:
    """The cases of a suite on tokenizers.

    torch.compile takes a minute for each shape, and so has a tokenizer's own kept count alone; the slower precisions
    of PyTorch have one image alone.

    Args:
        task: of the suite.
        batches: sizes.
        other_keeps: whether to take other kept counts than the subject's own too.
        without: run times, or run times with a precision, that the suite does without.
    """
    known = subjects()
    own = dict(reversed(known))
    return [
        Case(task, subject, runtime, precision, keep, batch)
        for subject in dict(known)
        for runtime, precision in variants(without)
        for name, keep in known
        if name == subject and (keep == own[name] or (other_keeps and runtime != "compile"))
        for batch in batches
        if batch == 1 or runtime != "eager" or precision == "float32"
    ]


def time_tokenizer(benchmark: BenchmarkFixture, case: Case, where: Where) -> Any:
    """Times a case beside the baseline, and measures its memory; returns what the call returns."""
    opened = open_or_skip(
        benchmark,
        case,
        lambda: runtimes.open_tokenizer(case.subject, case.runtime, case.precision, where),
    )
    base = runtimes.open_tokenizer(case.subject, *BASELINE, where)
    run, baseline = (
        runtimes.tokenizer_call(case.task, each, case.keep, case.batch, where) for each in (opened, base)
    )
    return time_case(benchmark, case, where, opened, run, baseline)


def time_generator(
    benchmark: BenchmarkFixture, case: Case, where: Where, call: Callable[[Opened], Call]
) -> Any:
    """The same of a generator.

    Args:
        benchmark: of the case.
        case: whose subject is a kind.
        where: shared by the run times.
        call: from an opened generator to what is timed.
    """
    opened = open_or_skip(
        benchmark, case, lambda: runtimes.open_generator(case.subject, case.runtime, case.precision, where)
    )
    base = runtimes.open_generator(case.subject, *BASELINE, where)
    return time_case(benchmark, case, where, opened, call(opened), call(base))


def open_or_skip(benchmark: BenchmarkFixture, case: Case, open_it: Callable[[], Opened]) -> Opened:
    """A model in its run time; or the test is skipped, with the reason."""
    if benchmark.disabled and case.runtime == "compile":
        pytest.skip("torch.compile takes half a minute, which only those who want timings wait for")
    if benchmark.disabled and case.task in ("step", "images") and case.runtime in ("onnx", "tensorrt"):
        pytest.skip("exporting a generator takes half a minute, which only those who want timings wait for")
    try:
        return open_it()
    except Unavailable as reason:
        pytest.skip(f"{SHOWN[case.runtime]}: {reason}")


def time_case(
    benchmark: BenchmarkFixture, case: Case, where: Where, opened: Opened, run: Call, baseline: Call
) -> Any:
    """Times a call, beside the baseline unless it is that, and puts all that is known of it on record."""
    counted_tokens = f"{case.keep} {'cached ' if case.task == 'step' else ''}tokens"
    describe(
        benchmark,
        group=f"{case.task} by run time",
        row=f"{case.subject}, {counted_tokens}, {counted(case.batch, 'image')}, {counted(where.threads, 'thread')}",
        column=f"{SHOWN[case.runtime]} {case.precision}",
        images=None if case.task == "step" else case.batch,
    )
    benchmark.extra_info |= {
        "task": case.task,
        "subject": case.subject,
        "runtime": SHOWN[case.runtime],
        "precision": case.precision,
        "keep": case.keep,
        "batch": case.batch,
        "threads": where.threads,
        "model_bytes": opened.bytes(case.keep),
    }
    if case.is_baseline:
        found = time_by_itself(benchmark, run, SECONDS)
    else:
        found = time_in_pairs(benchmark, run, baseline, SECONDS)
    # Not of torch.compile, whose compiler takes more; and a step is a part of an image.
    if MEMORY and benchmark.enabled and case.runtime != "compile" and case.task != "step":
        benchmark.extra_info |= peak_memory(_described(case, opened, where))
    return found


def _described(case: Case, opened: Opened, where: Where) -> dict[str, Any]:
    """A case for a process of its own."""
    known: dict[str, Any] = {name: getattr(case, name) for name in ("task", "runtime", "keep", "batch")}
    if opened.folder is None:
        return known | {"subject": case.subject, "precision": case.precision, "threads": where.threads}
    return known | {"folder": str(opened.folder), **opened.settings}
