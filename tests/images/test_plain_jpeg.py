"""JPEG files that hold nothing but pixels, by Pillow's and simplejpeg's encoders; and all that makes one hold more."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from geosieve.images.plain_jpeg import plain_jpeg_size

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))


def jpeg(image: Image.Image = NOISE, **save: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **save)
    return stream.getvalue()


PLAIN = jpeg()
EXIF = Image.Exif()
EXIF[274] = 6


@pytest.mark.parametrize(
    "save", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 0}, {"optimize": True}]
)
def test_plain_files_have_the_size_of_their_pixels(save: dict[str, Any]) -> None:
    assert plain_jpeg_size(jpeg(**save)) == plain_jpeg_size(jpeg(NOISE.convert("L"), **save)) == (40, 30)
    assert plain_jpeg_size(simplejpeg.encode_jpeg(np.array(NOISE), 90, "RGB", "420")) == (40, 30)


@pytest.mark.parametrize(
    "content",
    [
        jpeg(exif=EXIF.tobytes()),
        jpeg(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
        jpeg(comment=b"48.8583 N"),
        jpeg(xmp=b"<x:xmpmeta/>"),
        jpeg(NOISE.convert("CMYK")),
        PLAIN + b"Exif\0\0",
        PLAIN + jpeg(exif=EXIF.tobytes()),  # a second image, as in MPO
        PLAIN[:2] + PLAIN[20:],  # without JFIF
        PLAIN[:-2],
        PLAIN[:300],
        PLAIN[:20],
        b"",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_files_with_more_than_pixels_or_less_are_not_plain(content: bytes) -> None:
    assert plain_jpeg_size(content) is None


@given(st.binary(max_size=60), st.integers(0, len(PLAIN)))
def test_it_never_raises_and_always_ends(noise: bytes, at: int) -> None:
    plain_jpeg_size(PLAIN[:at] + noise + PLAIN[at:])
    plain_jpeg_size(PLAIN[:at] + noise)
