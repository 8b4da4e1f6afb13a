"""Braces of patterns: what they stand for, and what is refused before it takes memory."""

from __future__ import annotations

import pytest

from mergevq.data.images.sources import open_source
from mergevq.data.images.tar import find_shards
from mergevq.data.listing.patterns import expand_braces
from mergevq.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..10}.tar", ["08.tar", "09.tar", "10.tar"]),
        ("{0..1}-{x,y}", ["0-x", "0-y", "1-x", "1-y"]),
        ("{a,{b,c}}", ["a", "b", "c"]),
        ("{a,a}", ["a"]),
        ("a{1}", ["a1"]),
        ("a{", ["a{"]),
    ],
)
def test_what_braces_stand_for(pattern, names):
    assert sorted(expand_braces(pattern)) == names


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("s-{1..0}.tar", r"\{1\.\.0\} counts down; write \{0\.\.1\}"),
        ("s-{0..1000000000000}.tar", "stands for more than 1000000 names"),
        ("{a,b}" * 40 + ".tar", "stands for more than 1000000 names"),
        ("{0..999}{0..999}{0..999}.tar", "stands for more than 1000000 names"),
        ("{" * 400 + ".tar", "no file can have this name"),
        ("s-{" + "9" * 400 + "}.tar", "there is no shard"),
    ],
)
def test_what_is_refused(pattern, said):
    with pytest.raises(UsageError, match=said):
        open_source(pattern, "train")


def test_a_file_whose_name_has_braces_is_that_file(tmp_path):
    path = tmp_path / "p{1}" / "s.tar"
    path.parent.mkdir()
    path.touch()
    assert find_shards(str(path)) == [path]
