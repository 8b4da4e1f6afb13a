"""Python imports this at the start of every process whose PYTHONPATH holds this folder: `run.py` sees to it."""

from emulation.start import prepare

prepare()
