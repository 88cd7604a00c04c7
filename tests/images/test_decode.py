"""Decoded pixels against Pillow's own full decode, and files that must be refused.

Tolerance of colours: a JPEG decoded at a reduced scale differs from one decoded whole and resized by at most 5 of 255
levels in the mean of absolute differences, and by at most 1 in the mean over photographs. Geometry: the centre of a
blob lies within 0.25 pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from fabricated_images import png_of_size, png_with_text_bomb
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from geosieve.images.decode import MAX_SCANS, decode, resized
from geosieve.images.headers import Refusal

TOLERANCE = 5.0
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"


def scene(width: int = 600, height: int = 400, mode: str = "RGB") -> Image.Image:
    """Smooth colours with four different corners, so that every turn and mirror image shows."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = 40 * np.sin(9 * x) * np.cos(7 * y)
    channels = np.stack([250 * x, 250 * y, 220 * (1 - x) * (1 - y)], axis=-1) * 0.8 + waves[..., None] + 40
    return Image.fromarray(channels.clip(0, 255).astype(np.uint8)).convert(mode)


def file_of(image: Image.Image, kind: str = "JPEG", orientation: int | None = None, **save: Any) -> bytes:
    if orientation is not None:
        exif = Image.Exif()
        exif[274] = orientation
        save["exif"] = exif.tobytes()
    stream = io.BytesIO()
    image.save(stream, kind, **save)
    return stream.getvalue()


def by_pillow(content: bytes, side: int | None) -> np.ndarray:
    """All pixels decoded, made upright, and resized by Pillow."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        whole = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(whole.resize(resized(*whole.size, side), Image.Resampling.BICUBIC))


def pixels(content: bytes, side: int | None = None) -> np.ndarray:
    found = decode(content, side)
    assert not isinstance(found, Refusal), found
    assert found.dtype == np.uint8 and found.flags.c_contiguous
    return found


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(int) - expected).mean())


def refusal(content: bytes, side: int | None = 224) -> str:
    found = decode(content, side)
    assert isinstance(found, Refusal), found.shape
    return found.error_class


@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP", "AVIF", "HEIF"])
def test_every_orientation_of_every_format_is_upright(kind: str, orientation: int | None) -> None:
    content = file_of(scene(), kind, orientation, quality=95)
    for side in (None, 100):
        assert difference(pixels(content, side), by_pillow(content, side)) < TOLERANCE
    assert pixels(content, 100).shape == ((150, 100, 3) if orientation in (5, 6, 7, 8) else (100, 150, 3))


def test_the_shorter_side_gets_the_wanted_length_and_nothing_is_enlarged() -> None:
    assert resized(4000, 3000, 224) == (299, 224) and resized(3000, 4000, 224) == (224, 299)
    assert (
        resized(200, 100, 224) == (200, 100) and resized(224, 500, 224) == (224, 500) and resized(9, 9, None) == (9, 9)
    )
    assert resized(10_000, 100, 10) == (1000, 10)
    assert pixels(file_of(scene(50, 40)), 224).shape == (40, 50, 3)


@pytest.mark.parametrize("side", [30, 99, 100, 101, 199, 224, 399])
def test_no_scale_of_a_jpeg_moves_what_it_shows(side: int) -> None:
    dark = np.zeros((400, 600, 3), np.uint8)
    y, x = np.mgrid[:400, :600]
    dark[(y - 123.5) ** 2 + (x - 456.5) ** 2 < 40**2] = 255
    found = pixels(file_of(Image.fromarray(dark), quality=95), side).astype(float).sum(axis=2)
    rows, columns = np.mgrid[: found.shape[0], : found.shape[1]] + 0.5
    assert (rows * found).sum() / found.sum() == pytest.approx(124 * side / 400, abs=0.25)
    assert (columns * found).sum() / found.sum() == pytest.approx(457 * found.shape[1] / 600, abs=0.25)


@pytest.mark.parametrize("save", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"quality": 30}])
def test_kinds_of_jpeg(save: dict[str, Any]) -> None:
    content = file_of(scene(), **save)
    assert difference(pixels(content, 100), by_pillow(content, 100)) < TOLERANCE
    grey = file_of(scene(mode="L"), **save)
    assert difference(pixels(grey, 100), by_pillow(grey, 100)) < TOLERANCE


def test_cmyk_is_as_pillow_converts_it() -> None:
    content = file_of(scene(mode="CMYK"), quality=95)
    assert difference(pixels(content, 100), by_pillow(content, 100)) < TOLERANCE


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_become_8_by_their_higher_byte(kind: str) -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    found = pixels(file_of(Image.fromarray(grey), kind))
    assert (found == np.arange(256).reshape(16, 16, 1)).all()


def test_16_bit_colours() -> None:
    """A PNG of one pixel, written by hand: Pillow writes no 16-bit colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixel = zlib.compress(b"\0" + struct.pack(">HHH", 0x1234, 0xFF00, 0x0080))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")
    assert pixels(png).tolist() == [[[0x12, 0xFF, 0x00]]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "TIFF"])
def test_transparent_pixels_lie_over_white(kind: str) -> None:
    image = Image.new("RGBA", (60, 40), (200, 0, 0, 255))
    image.paste((0, 0, 200, 0), (0, 0, 30, 40))
    image.paste((0, 0, 0, 128), (30, 0, 60, 20))
    found = pixels(file_of(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    for (row, column), expected in {(20, 10): 3 * [255], (5, 45): 3 * [127], (30, 45): [200, 0, 0]}.items():
        assert found[row, column] == pytest.approx(expected, abs=3)


def test_palettes_grey_with_alpha_and_bits() -> None:
    palette = scene().convert("P")
    assert difference(pixels(file_of(palette, "PNG"), 100), by_pillow(file_of(palette.convert("RGB"), "PNG"), 100)) < 1
    clear = Image.new("P", (9, 9), 1)
    clear.putpalette([0, 0, 0, 10, 20, 30])
    assert (pixels(file_of(clear, "PNG", transparency=1)) == 255).all()
    assert pixels(file_of(clear, "GIF")).tolist()[0][0] == [10, 20, 30]
    assert (pixels(file_of(Image.new("LA", (9, 9), (0, 0)), "PNG")) == 255).all()
    checks = Image.fromarray(np.eye(8, dtype=bool))
    assert (pixels(file_of(checks, "PNG")) == 255 * np.eye(8, dtype=np.uint8)[..., None]).all()


def test_profiles_are_converted_to_srgb() -> None:
    """A profile whose red and blue are exchanged: x, y of sRGB's primaries in another order, as matrices of D50."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped = bytearray(srgb.tobytes())
    count = struct.unpack(">I", swapped[128:132])[0]
    at = {bytes(swapped[132 + 12 * k : 136 + 12 * k]): 136 + 12 * k for k in range(count)}
    red, blue = (bytes(swapped[at[name] : at[name] + 8]) for name in (b"rXYZ", b"bXYZ"))
    swapped[at[b"rXYZ"] : at[b"rXYZ"] + 8], swapped[at[b"bXYZ"] : at[b"bXYZ"] + 8] = blue, red
    swapped = bytearray(bytes(swapped).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be")))
    image = Image.new("RGB", (16, 16), (250, 100, 5))
    for kind in ("PNG", "JPEG"):
        found = pixels(file_of(image, kind, icc_profile=bytes(swapped), **({"quality": 100} if kind == "JPEG" else {})))
        assert found[8, 8] == pytest.approx([5, 100, 250], abs=6)
        assert pixels(file_of(image, kind, icc_profile=srgb.tobytes()))[8, 8] == pytest.approx([250, 100, 5], abs=6)
        assert pixels(file_of(image, kind, icc_profile=b"no profile"))[8, 8] == pytest.approx([250, 100, 5], abs=6)


def test_of_several_frames_the_first_is_decoded() -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        save = {"lossless": True} if kind == "WEBP" else {}
        content = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **save)
        assert pixels(content)[10, 10].tolist() == [255, 0, 0]


def test_heic_of_a_telephone() -> None:
    heif = pillow_heif.from_pillow(scene())
    stream = io.BytesIO()
    heif.save(stream, quality=90)
    assert difference(pixels(stream.getvalue(), 100), by_pillow(file_of(scene(), "PNG"), 100)) < TOLERANCE


def test_files_that_cannot_be_decoded_are_refused_with_their_class() -> None:
    jpeg, png = file_of(scene()), file_of(scene(), "PNG")
    assert refusal(b"") == "empty_file"
    assert refusal(b"<html>") == refusal(b"\0" * 1000) == refusal(b"\0\0\0\x18ftypmp42" + b"\0" * 90) == "not_an_image"
    assert refusal(jpeg[:50]) == refusal(png[:20]) == "unreadable_header"
    assert refusal(jpeg[: len(jpeg) // 2]) == refusal(png[: len(png) // 2]) == "truncated"
    assert refusal(png_of_size(65_000, 65_000)) == "too_large"
    assert refusal(png_of_size(10, 10)) in ("truncated", "broken_image")
    assert refusal(png_with_text_bomb()) == "unreadable_header"
    assert refusal(file_of(Image.new("F", (9, 9)), "TIFF")) == "unsupported_pixels"
    start = jpeg.index(b"\xff\xda")
    assert refusal(_claims_size(jpeg, 65_000, 65_000)) == "too_large"
    assert refusal(jpeg[:start] + b"\xff\xd9") in ("truncated", "broken_image")


def _claims_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def test_a_progressive_jpeg_of_thousands_of_scans_is_refused_without_decoding_it() -> None:
    jpeg = file_of(scene(64, 64), progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    many = jpeg[:last] + jpeg[last:-2] * (MAX_SCANS + 1) + b"\xff\xd9"
    assert refusal(many) == "too_large"
    assert pixels(jpeg, 32).shape == (32, 32, 3)


def test_a_mislabelled_file_is_decoded_by_its_content() -> None:
    """Names are not looked at."""
    assert pixels(file_of(scene(), "WEBP"), 100).shape == (100, 150, 3)


_SEEDS = [file_of(scene(24, 16), kind) for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")]


@settings(max_examples=150)
@given(
    st.sampled_from(_SEEDS), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8), st.floats(0, 1)
)
def test_damaged_files_give_pixels_or_a_refusal(seed: bytes, changes: list[tuple[int, int]], kept: float) -> None:
    content = bytearray(seed[: max(1, round(kept * len(seed)))])
    for at, value in changes:
        content[at % len(content)] = value
    found = decode(bytes(content), 8)
    assert isinstance(found, Refusal) or (found.ndim == 3 and found.shape[2] == 3)


@pytest.mark.skipif(not PHOTOS.exists(), reason="shared/data/photos is not there")
def test_real_photographs_look_as_pillow_decodes_them() -> None:
    differences = []
    for path in sorted(PHOTOS.iterdir()):
        if path.suffix == ".csv":
            continue
        content, found = path.read_bytes(), decode(path.read_bytes(), 224)
        if isinstance(found, Refusal):
            continue
        with Image.open(io.BytesIO(content)) as image:
            if image.info.get("icc_profile") or image.mode.startswith("I;16"):
                continue  # Pillow's convert neither applies profiles nor scales 16 bits
        differences.append(difference(found, by_pillow(content, 224)))
        assert differences[-1] < TOLERANCE, path
    assert len(differences) > 20 and np.mean(differences) < 1
