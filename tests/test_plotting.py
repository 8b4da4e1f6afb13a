"""Plots and the imports of matplotlib do not depend on what a notebook or a matplotlibrc asks for."""

from __future__ import annotations

import os
import sys

import pytest

from mergevq import cli, plotting, visual

INLINE = "module://no_notebook_here.backend_inline"


def test_a_command_has_its_own_backend_and_no_matplotlibrc(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setenv("MPLBACKEND", INLINE)
    monkeypatch.delenv("MATPLOTLIBRC", raising=False)
    monkeypatch.setattr(cli.doctor, "run", lambda options: seen.update(os.environ) or 0)
    assert cli.main(["doctor"]) == 0
    assert (seen["MPLBACKEND"], seen["MATPLOTLIBRC"]) == ("agg", os.devnull)
    assert os.environ["MPLBACKEND"] == INLINE and "MATPLOTLIBRC" not in os.environ


@pytest.mark.parametrize(("backend", "stays"), [(INLINE, False), ("module://json", True), ("agg", True)])
def test_a_backend_that_is_not_installed_is_dropped(monkeypatch, backend, stays):
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.setenv("MPLBACKEND", backend)
    plotting.drop_absent_backend()
    assert ("MPLBACKEND" in os.environ) == stays


def test_matplotlib_that_is_imported_already_keeps_its_backend(monkeypatch):
    import matplotlib  # noqa: F401

    monkeypatch.setenv("MPLBACKEND", INLINE)
    plotting.drop_absent_backend()
    assert os.environ["MPLBACKEND"] == INLINE


def test_the_users_settings_draw_nothing_of_ours():
    import matplotlib

    points = {"a": [(1, 2.0), (2, 3.0)]}
    plain = visual.curve(points, x_label="x", y_label="y")
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "figure.dpi": 30}):
        assert visual.curve(points, x_label="x", y_label="y").tobytes() == plain.tobytes()
        assert matplotlib.rcParams["text.usetex"]


def test_lightning_is_imported_all_the_same(run_python):
    code = (
        "import os; os.environ['MPLBACKEND'] = 'module://no_notebook_here.backend_inline';"
        "import mergevq.training; import matplotlib"
    )
    assert run_python("-c", code).returncode == 0
