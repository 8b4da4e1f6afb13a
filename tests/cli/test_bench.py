"""`mergevq bench`: what it writes, that it leaves nothing else behind, and what it says to bad input."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import mergevq.bench
from mergevq.bench import running
from mergevq.bench.groups import SUITES, files
from mergevq.export import manifest as manifests
from mergevq.export.manifest import Manifest
from mergevq.presets import preset

HOME = Path(mergevq.bench.__file__).resolve().parent / "suites"
TIMED = {
    "group": "merging",
    "fullname": "bench_merging.py::test[a]",
    "stats": {"q1": 0.9, "median": 1.0, "q3": 1.1},
    "extra_info": {"row": "a", "column": "b"},
}
RESULTS = {"machine_info": {}, "benchmarks": [TIMED]}


@pytest.fixture
def earlier(tmp_path):
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(RESULTS))
    return path


@pytest.fixture
def folder_of_graphs(tmp_path):
    """A folder whose manifest is in order, without graphs and without a verification."""
    folder = tmp_path / "deployed"
    folder.mkdir()
    manifest = Manifest(
        package="0", precision="fp32", opset=20, tokenizer=preset("tiny-32"), fingerprint="0" * 64, axes={}, graphs=()
    )  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifests.to_json(manifest)))
    return folder


def test_every_suite_has_its_file_and_every_file_its_suite():
    assert sorted(path.name for path in files([])) == sorted(path.name for path in HOME.glob("bench_*.py"))
    assert [path.name for path in files(["lfq", "encode", "lfq"])] == ["bench_lfq.py", "bench_encode.py"]
    assert len(SUITES) == len(files([]))


def test_a_group_is_timed_and_nothing_else_is_left_behind(mergevq_process, tmp_path):
    before = {
        path: path.stat().st_mtime for path in HOME.parent.rglob("*") if "__pycache__" not in path.parts
    }
    (tmp_path / "here").mkdir()
    result = mergevq_process(
        "bench", "--group", "merging", "--only", "test_share", "--threads", 1,
        "--json", tmp_path / "now.json", "--report", tmp_path / "now.md", cwd=tmp_path / "here",
    )  # fmt: skip
    assert result.code == 0, result.err
    found = json.loads((tmp_path / "now.json").read_text())
    names = [case["fullname"] for case in found["benchmarks"]]
    assert len(names) == 3 and all(name.startswith("bench_merging.py::test_share") for name in names)
    assert found["machine_info"]["mergevq"]["spin_count"] == "10000"
    assert found["skipped"] == {} and "node" not in found["machine_info"]
    assert "### Merging in one pass" in (tmp_path / "now.md").read_text() and result.out == ""
    assert list((tmp_path / "here").iterdir()) == []
    assert before == {path: path.stat().st_mtime for path in before}
    assert {path for path in HOME.parent.rglob("*") if "__pycache__" not in path.parts} == set(before)


def test_a_case_takes_as_long_as_is_said(mergevq_main, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(
        running, "run", lambda settings: given.append(settings) or running.Outcome(None, False)
    )
    mergevq_main("bench", "--seconds", "7")
    code = "from mergevq.bench.measuring.by_runtime import SECONDS; print(SECONDS)"
    environment = running._environment(given[0], tmp_path)
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == "7.0\n", result.stderr


def test_results_are_shown_and_compared_without_timing(mergevq_main, earlier, tmp_path):
    shown = mergevq_main("bench", "--results", earlier)
    (tmp_path / "link.md").symlink_to(tmp_path / "target.md")
    assert mergevq_main("bench", "--results", earlier, "--report", tmp_path / "link.md").code == 0
    assert (tmp_path / "link.md").is_symlink() and (tmp_path / "target.md").read_text() in shown.out
    assert shown.code == 0 and "**1000** (900–1100)" in shown.out
    compared = mergevq_main("bench", "--results", earlier, "--compare", earlier)
    assert compared.code == 0 and "| 1.00 | within noise |" in compared.out
    assert mergevq_main("bench", "--results", earlier, "--plot", tmp_path).error.startswith(
        "there is nothing to plot"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--group", "enkode"], "unknown group 'enkode'; did you mean 'encode'? known: encode, decode"),
        (["--threads", "0"], "--threads: '0' is not a positive integer"),
        (["--seconds", "0"], "--seconds: '0' is not a positive integer"),
        (["--export", "x"], "add --checkpoint"),
        (["--export", "missing", "--checkpoint", "c"], "missing"),
        (["--compare", "missing.json"], "cannot read missing.json"),
        (["--results", "missing.json"], "cannot read missing.json"),
        (["--results", "a.json", "--group", "encode"], "--results times nothing"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_met_is_one_sentence(mergevq_main, monkeypatch, arguments, said):
    monkeypatch.setattr(running, "run", lambda settings: pytest.fail("it went on to time"))
    result = mergevq_main("bench", *arguments)
    assert said in result.error and result.code in (1, 2) and result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "said"), [("{", "is no JSON"), ("{}", "no timings"), ("\0", "is no JSON")]
)
def test_a_damaged_file_of_timings(mergevq_main, monkeypatch, tmp_path, content, said):
    monkeypatch.setattr(running, "run", lambda settings: pytest.fail("it went on to time"))
    path = tmp_path / "earlier.json"
    path.write_text(content)
    result = mergevq_main("bench", "--compare", path)
    assert (result.code, result.err.count("\n")) == (2, 1) and said in result.error


@pytest.mark.parametrize(("passed", "said"), [(None, "was not verified"), (False, "failed its verification")])
def test_graphs_that_did_not_pass_are_not_timed(mergevq_main, monkeypatch, folder_of_graphs, passed, said):
    monkeypatch.setattr(running, "run", lambda settings: pytest.fail("it went on to time"))
    if passed is not None:
        verdict = {
            "manifest": manifests.digest_of(folder_of_graphs),
            "passed": passed,
            "provider": "cpu",
            "checks": [],
        }
        (folder_of_graphs / "verify.json").write_text(json.dumps(verdict))
    result = mergevq_main("bench", "--export", folder_of_graphs, "--checkpoint", "runs/tok")
    assert result.code == 2 and f"{folder_of_graphs} {said}" in result.error


def test_without_pytest_benchmark_it_says_what_to_install(mergevq_main, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pytest_benchmark" else find(name)
    )
    result = mergevq_main("bench")
    assert (result.code, result.error) == (2, "timings need pytest-benchmark: pip install mergevq[bench]")


def test_what_was_timed_before_a_failure_or_an_interruption_is_written(mergevq_main, monkeypatch, tmp_path):
    for outcome, code in [
        (running.Outcome(RESULTS, failed=True), 1),
        (running.Outcome(RESULTS, failed=True, interrupted=True), 130),
    ]:
        monkeypatch.setattr(running, "run", lambda settings, outcome=outcome: outcome)
        path = tmp_path / f"{code}.json"
        result = mergevq_main("bench", "--json", path)
        assert result.code == code and json.loads(path.read_text()) == RESULTS
        assert result.err.count("\n") == 1


def test_a_terminated_run_ends_its_own_process_and_says_so(mergevq_main, monkeypatch, tmp_path):
    started = []

    def popen(command, **options):
        started.append(
            real([sys.executable, "-c", "import time; time.sleep(600)"], stderr=subprocess.DEVNULL)
        )
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return started[0]

    real = subprocess.Popen
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setattr(running.subprocess, "Popen", popen)
    try:
        assert mergevq_main("bench", "--group", "lfq") == (143, "", "mergevq: terminated\n")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert started[0].poll() == -signal.SIGINT


def test_a_run_that_times_nothing_is_an_error(mergevq_main, monkeypatch, tmp_path):
    monkeypatch.setattr(running, "run", lambda settings: running.Outcome(None, failed=False))
    result = mergevq_main("bench", "--json", tmp_path / "now.json")
    assert result.code == 2 and "every case was skipped" in result.error
    assert not (tmp_path / "now.json").exists()
