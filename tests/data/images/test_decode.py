"""Every kind of picture file against pixels computed here, and broken files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mergevq.data.images.decode import load_image, reading, reason, to_rgb
from mergevq.errors import DataError


def _pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def _stored(image: Image.Image, kind: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def _photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth and asymmetric, so that every flip shows."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 // width, y * 255 // height, (x + y) * 127 // (height + width), 40 + x]
    return np.stack(planes[:channels], -1).astype(np.uint8)


def _png(width: int, height: int, color_type: int, depth: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(float)[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_rgb_is_unchanged() -> None:
    pixels = _photo(9, 13)
    assert (_pixels(to_rgb(_stored(Image.fromarray(pixels), "PNG"))) == pixels).all()


def test_grayscale_fills_three_channels() -> None:
    grey = _photo(9, 13)[..., 0]
    assert (_pixels(to_rgb(_stored(Image.fromarray(grey), "PNG"))) == grey[..., None]).all()


def test_one_bit_is_black_and_white() -> None:
    bits = _photo(9, 13)[..., 0] > 100
    assert (_pixels(to_rgb(_stored(Image.fromarray(bits), "PNG"))) == np.where(bits, 255, 0)[..., None]).all()


def test_alpha_is_composited_over_white() -> None:
    pixels = _photo(9, 13, 4)
    result = _pixels(to_rgb(_stored(Image.fromarray(pixels, "RGBA"), "PNG")))
    assert np.abs(result - _over_white(pixels[..., :3], pixels[..., 3])).max() <= 1
    assert (_pixels(to_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))) == 255).all()


def test_grey_with_alpha_is_composited_over_white() -> None:
    pixels = _photo(9, 13, 2)
    result = _pixels(to_rgb(_stored(Image.fromarray(pixels, "LA"), "PNG")))
    grey = np.repeat(pixels[..., :1], 3, -1)
    assert np.abs(result - _over_white(grey, pixels[..., 1])).max() <= 1


def test_palette_with_transparent_entries() -> None:
    palette = np.array([[200, 10, 30], [10, 200, 40], [0, 0, 250]], np.uint8)
    entries = (np.arange(30).reshape(5, 6) % 3).astype(np.uint8)
    image = Image.fromarray(entries, "P")
    image.putpalette(palette.tobytes())
    assert (_pixels(to_rgb(_stored(image, "PNG"))) == palette[entries]).all()
    transparent = _stored(image, "PNG", transparency=bytes([255, 0, 128]))
    expected = _over_white(palette[entries], np.array([255, 0, 128])[entries])
    assert np.abs(_pixels(to_rgb(transparent)) - expected).max() <= 1


def test_transparent_colour_key_becomes_white() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = (7, 8, 9)
    stored = _stored(Image.fromarray(pixels), "PNG", transparency=(7, 8, 9))
    assert _pixels(to_rgb(stored))[0, 0].tolist() == [255, 255, 255]
    assert _pixels(to_rgb(stored))[1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_shows_its_colours(kind: str) -> None:
    ink = np.broadcast_to(np.array([40, 160, 220, 30], np.uint8), (16, 16, 4))
    stored = _stored(
        Image.fromarray(np.ascontiguousarray(ink), "CMYK"),
        kind,
        **({"quality": 100} if kind == "JPEG" else {}),
    )
    assert stored.mode == "CMYK"
    expected = (255 - ink[..., :3].astype(float)) * (255 - ink[..., 3:].astype(float)) / 255
    assert np.abs(_pixels(to_rgb(stored)) - expected).max() <= 3


def test_ycck_shows_its_colours() -> None:
    """A JPEG of four components whose first three are luma and chroma, as Photoshop writes them."""
    ink = np.array([40.0, 160.0, 220.0, 30.0])
    red, green, blue = ink[:3]  # libjpeg: stored cyan is 255 less red, and stored ink is inverted
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = 128 + 0.564 * (blue - luma), 128 + 0.713 * (red - luma)
    components = np.rint([luma, *chroma, 255 - ink[3]])
    pixels = np.broadcast_to(255 - components, (16, 16, 4)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "CMYK").save(file, "JPEG", quality=100)
    data = bytearray(file.getvalue())
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    expected = (255 - ink[:3]) * (255 - ink[3]) / 255
    assert np.abs(_pixels(to_rgb(Image.open(io.BytesIO(bytes(data))))) - expected).max() <= 3


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B")])
def test_16_bits_are_scaled_not_clipped(kind: str, mode: str) -> None:
    deep = np.linspace(0, 65535, 256).round().reshape(16, 16).astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (16, 16), deep.tobytes())
    expected = np.rint(deep.astype(float) / 257)
    assert (_pixels(to_rgb(_stored(image, kind))) == expected[..., None]).all()


def test_16_bit_colour() -> None:
    deep = np.array([[[65535, 32896, 257]]], ">u2")
    image = Image.open(io.BytesIO(_png(1, 1, 2, 16, b"\0" + deep.tobytes())))
    assert _pixels(to_rgb(image))[0, 0].tolist() == [255, 128, 1]


def test_plain_integers_and_floats() -> None:
    values = np.array([[0, 257 * 3, 65535]])
    assert _pixels(to_rgb(Image.fromarray(values.astype(np.int32))))[0, :, 0].tolist() == [0, 3, 255]
    wide = np.array([[0, 2**30, 2**31 - 1]], np.int32)
    assert _pixels(to_rgb(Image.fromarray(wide)))[0, :, 0].tolist() == [0, 128, 255]
    for white in (1.0, 255.0, 65535.0, 1e6):
        image = _stored(Image.fromarray(np.array([[0.0, 0.2 * white, white]], np.float32)), "TIFF")
        assert _pixels(to_rgb(image))[0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.5])
def test_floats_that_are_no_picture(bad: float) -> None:
    with pytest.raises(ValueError, match="floating-point"):
        to_rgb(Image.fromarray(np.array([[bad, 0.5]], np.float32)))


_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["png", "tiff", "webp", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, kind: str, tmp_path: Path) -> None:
    pixels = _photo(36, 52)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(kind, {})
    Image.fromarray(pixels).save(path, exif=exif, **options)
    allowed = 3 if kind == "jpg" else 0
    assert np.abs(_pixels(load_image(path)) - _UPRIGHT[orientation](pixels)).max() <= allowed


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    pixels = _photo(9, 13)
    for number, block in enumerate(
        (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    ):
        path = tmp_path / f"{number}.png"
        Image.fromarray(pixels).save(path, exif=block)
        assert (_pixels(load_image(path)) == pixels).all()


def test_draft_keeps_the_pixels_that_are_needed() -> None:
    pixels = np.repeat(np.repeat(_photo(75, 100), 8, 0), 8, 1)
    small = to_rgb(_stored(Image.fromarray(pixels), "JPEG", quality=95), at_least=150)
    assert small.size == (200, 150)
    assert np.abs(_pixels(small) - np.repeat(np.repeat(_photo(75, 100), 2, 0), 2, 1)).mean() < 2
    assert to_rgb(_stored(Image.fromarray(pixels), "JPEG"), at_least=600).size == (800, 600)


def test_truncated_jpeg_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(_photo(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match=r"cut\.jpg: image file is truncated"):
        load_image(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png: No such file"):
        load_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match="not a picture") as caught:
        load_image(tmp_path / "text.png")
    assert "0x" not in str(caught.value)


def test_what_does_not_fit_into_memory_is_one_unreadable_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", load)
    with (
        pytest.raises(DataError, match=r"^cannot read a\.png: it does not fit into memory$"),
        reading("a.png"),
    ):
        to_rgb(Image.new("RGB", (40, 40)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_damaged_bytes_give_a_picture_or_a_data_error(kind: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(_photo(40, 40)).save(file, kind)
    messages = []
    for _ in range(150):
        data = bytearray(file.getvalue())
        for place in generator.integers(len(data), size=12):
            data[place] = generator.integers(256)
        path = tmp_path / "damaged"
        path.write_bytes(bytes(data))
        try:
            assert load_image(path).mode == "RGB"
        except DataError as error:
            messages.append(str(error))
    assert messages
    assert all("damaged" in message and "\n" not in message for message in messages)


def test_reasons_are_words() -> None:
    assert reason(FileNotFoundError(2, "No such file or directory", "x")) == "No such file or directory"
    assert reason(KeyError("IHDR")) == "KeyError 'IHDR'"
    assert reason(OSError("two\nlines")) == "two lines"
    with pytest.raises(DataError, match="cannot read x: boom"), reading("x"):
        raise ValueError("boom")
    with pytest.raises(DataError, match=r"^as it is$"), reading("x"):
        raise DataError("as it is")
