from __future__ import annotations

import logging

import pytest

from mergevq.cli.shared.logs import logging_to_stderr
from mergevq.cli.shared.sentences import sentence
from mergevq.errors import DataError


def test_names_out_of_files_do_not_reach_the_terminal_as_they_are():
    error = DataError("s.tar:\x1b[31m\udcff.png has no label;\n  give one: é")
    assert sentence(error) == r"s.tar:\x1b[31m\udcff.png has no label; give one: é"


def test_a_warning_stays_one_line(capsys: pytest.CaptureFixture[str]):
    with logging_to_stderr():
        logging.getLogger("mergevq.data").warning("skipping %s", "a\nmergevq: all is well\x1b[2J.png")
    assert capsys.readouterr().err == "mergevq: warning: skipping a\\nmergevq: all is well\\x1b[2J.png\n"
