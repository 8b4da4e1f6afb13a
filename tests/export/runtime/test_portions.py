"""Batches shared out among threads: every picture once and in order, and the same numbers as in one piece."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mergevq
from mergevq.errors import ExportError
from mergevq.export.runtime import portions as module
from mergevq.export.runtime.folder import open_folder
from mergevq.export.runtime.portions import portions
from mergevq.export.runtime.sessions import session_options

SIDE_OF_A_PAIR = 256


@given(st.integers(1, 300), st.integers(1, 70), st.integers(1, 1024))
def test_every_picture_is_in_one_portion(batch, threads, side):
    rows = portions(batch, threads, side**2)
    assert [picture for some in rows for picture in range(batch)[some]] == list(range(batch))
    lengths = [some.stop - some.start for some in rows]
    assert max(lengths) - min(lengths) <= 1
    if batch < threads:
        assert len(rows) == 1
    else:
        assert len(rows) % threads == 0 or lengths == [1] * batch
        assert max(lengths) <= max(1, 2 * SIDE_OF_A_PAIR**2 // side**2)


@pytest.mark.parametrize(
    ("batch", "threads", "side", "lengths"),
    [
        (1, 2, 256, [1]),
        (2, 2, 256, [1, 1]),
        (8, 2, 256, [2, 2, 2, 2]),
        (5, 2, 256, [1, 1, 1, 2]),
        (8, 1, 256, [2, 2, 2, 2]),
        (8, 2, 512, [1] * 8),
        (8, 2, 32, [4, 4]),
        (3, 4, 32, [3]),
    ],
)
def test_lengths(batch, threads, side, lengths):
    assert [some.stop - some.start for some in portions(batch, threads, side**2)] == lengths


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (7, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def opened(monkeypatch):
    """The files that sessions were opened of, with the threads of each."""
    found = []
    session = onnxruntime.InferenceSession

    def noted(path, options, providers):
        found.append((path.rsplit("/", 1)[1], options.intra_op_num_threads))
        return session(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    return found


@pytest.mark.parametrize("pixels", [32**2, 2 * 32**2, 2 * 256**2])
def test_portions_encode_and_decode_as_one_batch(exported, images, monkeypatch, opened, pixels):
    whole = mergevq.load(exported, runtime="onnx", threads=1)
    wanted = whole.encode(images)
    painted = whole.decode(wanted)
    opened.clear()
    monkeypatch.setattr(module, "_PIXELS", pixels)
    shared = mergevq.load(exported, runtime="onnx", threads=3)
    found = shared.encode(images)
    for name in ("indices", "source", "sizes"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
    assert np.abs(shared.decode(found) - painted).max() < 1e-5
    assert opened == [("encoder_k32.onnx", 1), ("decoder.onnx", 1)]


def test_fewer_pictures_than_threads_share_them(exported, images, opened):
    shared = mergevq.load(exported, runtime="onnx", threads=3)
    assert np.array_equal(shared.encode(images[:2]).source, shared.encode(images).source[:2])
    assert opened == [("encoder_k32.onnx", 3), ("encoder_k32.onnx", 1)]


def test_an_encoder_for_any_count_is_told_the_same_in_every_portion(exported_any, images):
    shared, whole = (mergevq.load(exported_any, runtime="onnx", threads=threads) for threads in (2, 1))
    assert np.array_equal(shared.encode(images, 31).indices, whole.encode(images, 31).indices)


def test_a_portion_that_fails_is_one_sentence(exported, images):
    graphs = open_folder(exported, "cpu", threads=2).graphs
    with pytest.raises(ExportError, match=r"^encoder_k32\.onnx fails on cpu: .*") as caught:
        graphs.run("encoder", {"image": images[:, :2]}, keep=32)
    assert "\n" not in str(caught.value)


def test_threads_look_for_work_within_a_call_and_sleep_between_calls():
    options = session_options(2)
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
