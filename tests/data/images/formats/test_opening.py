"""Files of many formats, with Pillow's own opening as the oracle where it is right."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from mergevq.data.images.decode import to_rgb
from mergevq.data.images.formats.limits import Limits
from mergevq.data.images.formats.opening import open_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "kind",
    [
        "PNG",
        "JPEG",
        "WEBP",
        "BMP",
        "DIB",
        "TIFF",
        "GIF",
        "PPM",
        "TGA",
        "PCX",
        "SGI",
        "JPEG2000",
        "ICO",
        "AVIF",
    ],
)
def test_what_pillow_opens_is_opened(kind: str) -> None:
    try:
        data = saved(kind)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow writes no {kind}")
    image, oracle = open_picture(data), Image.open(io.BytesIO(data))
    assert (image.format, image.size, image.mode) == (oracle.format, oracle.size, oracle.mode)
    assert image.tobytes() == oracle.tobytes()


@pytest.mark.parametrize(
    "data", [b"hello", b"\x89PNG\r\n\x1a\n", b"BM", b"\xff\xd8\xff", b"II*\0", b"\0" * 200]
)
def test_no_picture(data: bytes) -> None:
    with pytest.raises(UnidentifiedImageError, match="not a picture"):
        open_picture(data)


def test_an_empty_file_is_called_that() -> None:
    with pytest.raises(OSError, match=r"^the file is empty$"):
        open_picture(b"")


def test_a_program_is_no_picture() -> None:
    with pytest.raises(UnidentifiedImageError):
        open_picture(saved("EPS"))


def test_the_limit_of_the_process_is_neither_heeded_nor_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (np.asarray(to_rgb(open_picture(saved("PNG")))) == PIXELS).all()
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(saved("PNG")))
    with pytest.raises(ValueError, match="max_pixels is 599"):
        to_rgb(open_picture(saved("PNG")), limits=Limits(max_pixels=599))


def test_threads_do_not_disturb_one_another() -> None:
    data = {kind: saved(kind) for kind in ("PNG", "BMP", "TIFF")}
    wrong = []

    def work() -> None:
        for kind in list(data) * 10:
            if (np.asarray(to_rgb(open_picture(data[kind]))) != PIXELS).any():
                wrong.append(kind)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
    image = open_picture(file.getvalue())
    assert image.n_frames == 3  # type: ignore[attr-defined]
    assert (np.asarray(to_rgb(image)) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_may_be_transparent(kind: str) -> None:
    first = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    first.paste((200, 10, 20, 255), (0, 0, 4, 6))
    file = io.BytesIO()
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {"disposal": 2}
    first.save(
        file, kind, save_all=True, append_images=[Image.new("RGBA", (8, 6), (0, 0, 255, 90))], **options
    )
    found = np.asarray(to_rgb(open_picture(file.getvalue())))
    assert (found[:, :4] == (200, 10, 20)).all()
    assert (found[:, 4:] == 255).all()
