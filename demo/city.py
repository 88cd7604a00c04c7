"""A SYNTHETIC city, seen from above and from its streets, on the border of two UTM zones.

The ground is a function of the position: blocks between streets are built up, fields, parks or ponds, and districts
have colours of their own for streets, walls and roofs. Photos are scenes of demo/scenes in the colours of their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.transform import from_origin

from demo.scenes import maps
from demo.scenes.draw import draw, semantic
from demo.scenes.layout import Class
from geosieve.geo.arrays import F4, F8, I8, Array

LAT, LON = 49.03, 6.0
"""The middle of the city: 6° E is the border of the zones 31 and 32."""
STRIPS = {"west": 32631, "east": 32632}
WIDTH_M, HEIGHT_M, OVERLAP_M = 700.0, 2_400.0, 300.0
PIXEL_M = 0.5

_PLANE = f"+proj=aeqd +lat_0={LAT} +lon_0={LON} +datum=WGS84 +units=m"
_BLOCK_M, _STREET_M, _LOT_M, _DISTRICT = 84.0, 9.0, 15.0, 4
_STREETS = np.array([[92, 92, 96], [150, 92, 78], [176, 158, 120], [60, 62, 70]], np.float32)
_ROOFS = np.array([[168, 74, 52], [84, 90, 104], [206, 198, 184], [122, 84, 58]], np.float32)
_WALLS = np.array([[222, 206, 170], [170, 176, 186], [238, 232, 222], [186, 138, 104]], np.float32)
_FIELDS = np.array([[150, 142, 70], [104, 132, 60], [186, 166, 96], [92, 110, 58]], np.float32)
_PARK, _POND, _YARD = np.array([[58, 96, 48], [38, 62, 82], [108, 124, 84]], np.float32)
_BUILT, _FIELD, _GREEN, _WATER = range(4)
_GROUNDS = {_BUILT: _YARD, _GREEN: _PARK, _WATER: _POND}
_REACH_M = (15 * _BLOCK_M, 17 * _BLOCK_M)  # of what is drawn, to the east and west, and to the north and south
_PER_LEVEL = 40  # values of 16 bits per level of 8, so that black and white have to be found


@dataclass(frozen=True)
class Look:
    """What places look like: kinds of blocks, (n,), and colours of streets, walls, roofs and ground, (n, 3)."""

    kind: I8
    street: F4
    wall: F4
    roof: F4
    ground: F4


def extent(name: str) -> tuple[float, float, float, float]:
    """West, south, east and north of a strip's middle part on the city's plane, metres."""
    west = OVERLAP_M / 2 - WIDTH_M if name == "west" else -OVERLAP_M / 2
    east = west + WIDTH_M
    return west, -HEIGHT_M / 2, east, HEIGHT_M / 2


def positions(x: F8, y: F8) -> tuple[F8, F8]:
    """Latitudes and longitudes of points of the plane."""
    lon, lat = Transformer.from_crs(_PLANE, "EPSG:4326", always_xy=True).transform(x, y)
    return lat, lon


def write_strip(name: str, city: NDArray[np.uint8], path: Path) -> None:
    """A strip of the city, which `draw_city` has drawn: a GeoTIFF of three bands of 16 bits in its UTM zone."""
    epsg = STRIPS[name]
    west, south, east, north = extent(name)
    to_utm = Transformer.from_crs(_PLANE, f"EPSG:{epsg}", always_xy=True)
    to_plane = Transformer.from_crs(f"EPSG:{epsg}", _PLANE, always_xy=True)
    middle = to_utm.transform((west + east) / 2, (south + north) / 2)
    columns, rows = (int(length / PIXEL_M) for length in (WIDTH_M, HEIGHT_M))
    left, top = middle[0] - columns * PIXEL_M / 2, middle[1] + rows * PIXEL_M / 2
    # Over two kilometres, a plane in UTM is a turned and stretched one: within 5 cm, its corners say where all is.
    knots = np.meshgrid((0, columns), (0, rows))
    x, y = to_plane.transform(left + PIXEL_M * knots[0], top - PIXEL_M * knots[1])
    u, v = ((np.arange(n, dtype=np.float32) + 0.5) / n for n in (columns, rows))
    column, row = (
        (
            c[0, 0]
            + u * (c[0, 1] - c[0, 0])
            + v[:, None] * (c[1, 0] - c[0, 0] + u * (c[1, 1] - c[1, 0] - c[0, 1] + c[0, 0]))
        )
        for c in ((x + _REACH_M[0]) / PIXEL_M, (_REACH_M[1] - y) / PIXEL_M)
    )
    picture = city[row.astype(np.int64), column.astype(np.int64)].astype(np.uint16)
    noise = np.random.default_rng(epsg).integers(0, 400, (rows, columns, 1), dtype=np.uint16)
    profile = {
        "driver": "GTiff", "width": columns, "height": rows, "count": 3, "dtype": "uint16", "crs": f"EPSG:{epsg}",
        "transform": from_origin(left, top, PIXEL_M, PIXEL_M), "tiled": True, "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as strip:
        strip.write(np.moveaxis(picture * _PER_LEVEL + noise, -1, 0))


def look(column: I8, row: I8) -> Look:
    """What blocks look like, (n,)."""
    district = _hash(column // _DISTRICT, row // _DISTRICT, 1) % 4
    drawn = _hash(column, row, 2) % 100
    far = np.hypot(column, row) * _BLOCK_M / HEIGHT_M * 100  # fields are more frequent far from the middle
    kind = np.select([drawn < 8, drawn < 20, drawn < 20 + 0.8 * far], [_WATER, _GREEN, _FIELD], _BUILT)
    ground = np.select(
        [(kind == k)[:, None] for k in _GROUNDS], list(_GROUNDS.values()), _FIELDS[_hash(column, row, 3) % 4]
    )
    return Look(kind, _STREETS[district], _WALLS[district], _ROOFS[district], ground)


def block_of(x: F8, y: F8) -> tuple[I8, I8]:
    """Column (from the west) and row (from the south) of the block that holds each point of the plane."""
    return np.floor(x / _BLOCK_M).astype(np.int64), np.floor(y / _BLOCK_M).astype(np.int64)


def draw_city() -> NDArray[np.uint8]:
    """The whole city from above, RGB, (rows, columns, 3): `PIXEL_M` on the plane, north up."""
    size = int(_BLOCK_M / PIXEL_M)
    reach = [int(length / _BLOCK_M) for length in _REACH_M]
    columns, rows = np.arange(-reach[0], reach[0]), np.arange(reach[1] - 1, -reach[1] - 1, -1)
    city = np.empty((rows.size * size, columns.size * size, 3), np.uint8)
    for down, row in enumerate(rows):
        found = look(columns, np.full_like(columns, row))
        for right, column in enumerate(columns):
            block = _draw_block(found, right, int(column), int(row), size)
            city[down * size : (down + 1) * size, right * size : (right + 1) * size] = np.clip(block, 0, 255)
    return city


def _draw_block(found: Look, at: int, column: int, row: int, size: int) -> F4:
    """One block: a street along its north and west, and what lies between streets, in lots. (size, size, 3)."""
    street, lot = int(_STREET_M / PIXEL_M), int(_LOT_M / PIXEL_M)
    block = np.full((size, size, 3), found.street[at], np.float32)
    middle = street // 2
    block[middle : middle + 1], block[:, middle : middle + 1] = 225, 225
    inside = np.full((size - street, size - street, 3), found.ground[at], np.float32)
    kind = found.kind[at]
    if kind == _FIELD:
        turn = float(_hash(np.array([column]), np.array([row]), 4)[0] % 180) * np.pi / 180
        along = np.arange(size - street) * np.float32(PIXEL_M * 1.3)
        inside += 16 * np.sin(along * np.cos(turn) + (along * np.sin(turn))[:, None])[..., None]
    elif kind in (_BUILT, _GREEN):
        number = (size - street) // lot
        lots = inside.reshape(number, lot, number, lot, 3)
        drawn = _hash(*np.meshgrid(column * number + np.arange(number), row * number + np.arange(number)), 5)
        drawn = drawn[:, None, :, None]
        y, x = np.ogrid[-lot / 2 : lot / 2, -lot / 2 : lot / 2]
        y, x = y[None, :, None, :] * PIXEL_M, x[None, :, None, :] * PIXEL_M
        is_house = (kind == _BUILT) & (drawn % 10 < 7)
        is_tree = ~is_house & (drawn % 3 > 0) & (np.hypot(x - 2, y + 2) < 2.2 + (drawn >> 24) % 3)
        lots[is_tree] = (34, 66, 30)
        is_house = is_house & (np.abs(x) < 3 + (drawn >> 8) % 4) & (np.abs(y) < 3 + (drawn >> 16) % 4)
        # One side of a roof is in the sun.
        light = (0.85 + 0.3 * (drawn % 97) / 97) * np.where(x > 0, 0.8, 1.05) + 0 * y
        lots[is_house] = (found.roof[at] * light[..., None])[is_house]
    block[street:, street:] = inside
    return block


def photos(x: F8, y: F8, lat: F8, lon: F8, ids: I8, seed: int, side: int) -> NDArray[np.uint8]:
    """Photos at positions: scenes whose streets, buildings and ground have the colours of the place.

    `x` and `y`: on the plane, where the colours are taken. Shape (n, side, side, 3).
    """
    facts = maps.read(lat, lon)
    pictures = draw(facts, seed, ids, side)
    classes = semantic(facts, seed, ids, side)
    place = look(*block_of(x, y))
    colours = {Class.ROAD: place.street, Class.BUILDING: place.wall, Class.GROUND: place.ground}
    for part, colour in colours.items():
        for picture, is_part, wanted in zip(pictures, classes == part, colour, strict=True):
            light = picture[is_part].mean(axis=1, keepdims=True) / 130
            picture[is_part] = np.clip(wanted * (0.35 + 0.65 * light), 0, 255)
    return pictures


def _hash(first: Array, other: Array, salt: int) -> I8:
    """A number from 0 to 2³¹ for each pair of numbers."""
    mixed = np.atleast_1d(np.asarray(first, np.int64)).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) + np.asarray(other, np.int64).astype(np.uint64) + np.uint64(salt << 40)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed >> np.uint64(33)).astype(np.int64)
