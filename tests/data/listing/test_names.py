"""Names to stems, samples and kinds."""

from __future__ import annotations

import pytest

from mergevq.data.listing.names import (
    extension,
    is_archive,
    parts_of_samples,
    picture_extensions,
    sample,
    stem,
)


@pytest.mark.parametrize(
    ("name", "stem_of", "sample_of", "suffix"),
    [
        ("a.png", "a", "a", ".png"),
        ("d.e/img.01.PNG", "d.e/img.01", "d.e/img", ".png"),
        ("d.e/readme", "d.e/readme", "d.e/readme", ""),
        ("e\u0301.İ", "é", "é", "i̇"),
    ],
)
def test_a_name_in_its_parts(name: str, stem_of: str, sample_of: str, suffix: str) -> None:
    assert (stem(name), sample(name)) == (stem_of, sample_of) and extension(name).removeprefix(".") == (
        suffix.removeprefix(".")
    )


def test_kinds() -> None:
    pictures = picture_extensions()
    assert {".jpg", ".jp2", ".ppm"} <= pictures and not {"", ".eps", ".h5", ".mpg", ".pdf"} & pictures
    assert all(map(is_archive, ("S.TAR", "a.tar.gz", "a.Tgz"))) and not is_archive("star")


def test_parts_need_their_sample_beside_them() -> None:
    names = ["d/x.png", "d/x.seg.png", "e/x.seg.png", "d/x.2.png", "d/y.a.png", "d/y.b.png"]
    assert parts_of_samples(names) == {"d/x.seg.png": "d/x.png"}
