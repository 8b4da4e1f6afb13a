"""How matplotlib is used: with settings of our own, whatever the user's environment and matplotlibrc say.

A notebook sets MPLBACKEND for whatever it starts, to a backend that may be there for the notebook alone; matplotlib
then cannot be imported, nor can Lightning, which imports it. A matplotlibrc may ask for LaTeX.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator

from mergevq.errors import UsageError

_BACKEND = "MPLBACKEND"
_OURS = {_BACKEND: "agg", "MATPLOTLIBRC": os.devnull}


@contextlib.contextmanager
def own_environment() -> Iterator[None]:
    """Within this context, which is a command's: no backend but Agg and no matplotlibrc, for what it starts too."""
    before = {name: os.environ.get(name) for name in _OURS}
    os.environ.update(_OURS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def drop_absent_backend() -> None:
    """Takes a backend that is not installed out of the environment, before matplotlib refuses to be imported for it."""
    module = os.environ.get(_BACKEND, "").partition("module://")[2]
    if module and "matplotlib" not in sys.modules and not _is_installed(module):
        del os.environ[_BACKEND]


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Within this context matplotlib draws as it does without a matplotlibrc.

    Raises:
        UsageError: matplotlib is not installed.
    """
    drop_absent_backend()
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("plots need matplotlib; pip install matplotlib") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
