"""The perceptual hash: equal to its formula, steady under scaling and compression, far apart for other images."""

from __future__ import annotations

import csv
import io
from math import cos, pi
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geosieve.images.decode import RGB, decode
from geosieve.images.headers import Refusal
from geosieve.images.perceptual_hash import SIDE, perceptual_hash

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"


def smooth(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """A synthetic scene: random colours on a grid of 12 × 9, interpolated."""
    colours = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def hash_of(scene: Image.Image, kind: str = "JPEG", **save: int) -> int:
    stream = io.BytesIO()
    scene.save(stream, kind, **save)
    return hash_of_file(stream.getvalue())


def hash_of_file(content: bytes) -> int:
    pixels = decode(content, SIDE)
    assert not isinstance(pixels, Refusal)
    return perceptual_hash(pixels)


def differing_bits(one: int, other: int) -> int:
    return bin((one ^ other) & (1 << 64) - 1).count("1")


def test_the_bits_are_the_signs_of_the_cosine_transform() -> None:
    grey = np.random.default_rng(5).integers(0, 256, (32, 32), dtype=np.uint8)
    pixels: RGB = np.repeat(grey[..., None], 3, axis=2)  # nothing to scale, and nothing to make grey
    expected = 0
    for i in range(8):
        for j in range(8):
            # The transform's definition, without its factors, which are positive.
            total = sum(
                float(grey[y, x]) * cos(pi * (2 * y + 1) * i / 64) * cos(pi * (2 * x + 1) * j / 64)
                for y in range(32)
                for x in range(32)
            )
            expected |= (total > 0 and (i, j) != (0, 0)) << (8 * i + j)
    found = perceptual_hash(pixels)
    assert found & (1 << 64) - 1 == expected and -(1 << 63) <= found < 1 << 63


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_near_and_other_images_are_far(seed: int) -> None:
    scene, original = smooth(seed), hash_of(smooth(seed), "PNG")
    assert differing_bits(original, hash_of(scene, quality=40)) <= 4
    assert differing_bits(original, hash_of(scene.resize((200, 150)), quality=80)) <= 4
    assert differing_bits(original, hash_of(scene.resize((1600, 1200)), quality=95)) <= 4
    assert differing_bits(original, hash_of(scene.convert("L"), quality=90)) <= 4
    assert differing_bits(original, hash_of(smooth(seed + 100), "PNG")) > 16
    # What the hash does not see: mirrored, turned and cropped copies.
    for copy in (scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT), scene.rotate(90), scene.crop((0, 0, 200, 150))):
        assert differing_bits(original, hash_of(copy, "PNG")) > 8


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (3, 77, 140)])
def test_an_evenly_coloured_image_has_no_bits(colour: tuple[int, int, int]) -> None:
    assert hash_of(Image.new("RGB", (90, 50), colour), "PNG") == 0


@pytest.mark.skipif(not PHOTOS.exists(), reason="shared/data/photos is not there")
def test_real_near_duplicates() -> None:
    with (PHOTOS / "index.csv").open() as index:
        rows = [row for row in csv.DictReader(index) if row["is_photo"] == "1"]
    hashes = {row["file"]: hash_of_file((PHOTOS / row["file"]).read_bytes()) for row in rows}
    near = {(row["file"], row["near_dup_of"]) for row in rows if row["near_dup_of"] in hashes}
    assert len(near) == 2
    for one in hashes:
        for other in hashes:
            if one < other:
                is_near = (one, other) in near or (other, one) in near
                assert (differing_bits(hashes[one], hashes[other]) <= 8) == is_near, (one, other)
