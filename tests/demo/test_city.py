"""The synthetic city of `make demo-chips`: what its strips and photos show is where the city has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from demo import city, prepare
from demo.scenes.layout import Class
from pyproj import Geod
from rasterio.warp import transform

SPOTS = np.array([[-90.0, -600.0], [33.3, 21.3], [120.0, 700.0], [-130.0, 1100.0]])  # in both strips, metres
GEOD = Geod(ellps="WGS84")


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return city.draw_city()


def test_both_strips_show_a_place_as_the_city_has_it(drawn: np.ndarray, tmp_path: Path) -> None:
    # By geodesics from the middle: the plane of the city is azimuthal and equidistant.
    azimuth, distance = np.degrees(np.arctan2(SPOTS[:, 0], SPOTS[:, 1])), np.hypot(*SPOTS.T)
    start = np.full(len(SPOTS), city.LON), np.full(len(SPOTS), city.LAT)
    lon, lat, _ = GEOD.fwd(*start, azimuth, distance)
    assert np.allclose(city.positions(*SPOTS.T), (lat, lon), atol=1e-9)
    rows, columns = drawn.shape[:2]
    expected = [
        drawn[rows // 2 - int(np.ceil(y / city.PIXEL_M)), columns // 2 + int(np.floor(x / city.PIXEL_M))].astype(int)
        for x, y in SPOTS
    ]
    for name, zone in (("west", 31), ("east", 32)):
        path = tmp_path / f"{name}.tif"
        city.write_strip(name, drawn, path)
        with rasterio.open(path) as strip:
            assert (strip.crs.to_epsg(), strip.count, strip.dtypes[0]) == (32600 + zone, 3, "uint16")
            xs, ys = transform("EPSG:4326", strip.crs, lon.tolist(), lat.tolist())
            found = np.array(list(strip.sample(zip(xs, ys, strict=True))), int) // 40
        for seen, wanted in zip(found, expected, strict=True):
            assert np.abs(seen - wanted).max() <= 10  # the noise is up to ten levels


def test_districts_differ_and_blocks_are_of_all_kinds() -> None:
    column, row = (part.ravel() for part in np.meshgrid(np.arange(-8, 8), np.arange(-14, 14)))
    look = city.look(column, row)
    assert set(look.kind.tolist()) == {0, 1, 2, 3}
    same = (column // 4 == 0) & (row // 4 == 0)
    assert np.unique(look.street[same], axis=0).shape[0] == 1
    assert np.unique(look.street, axis=0).shape[0] == 4


@pytest.mark.skipif(
    not (prepare.FOLDER / ".packages").exists(), reason="the demo's packages: make build/demo/.packages"
)
def test_a_photo_has_the_colours_of_its_street() -> None:
    x, y = np.array([40.0, 40.0 + 4 * 84.0 * 3]), np.array([40.0, 40.0])
    look = city.look(*city.block_of(x, y))
    assert not np.array_equal(look.street[0], look.street[1])
    facts = city.positions(x, y)
    ids = np.array([1, 1])
    pictures = city.photos(x, y, *facts, ids, 7, 96)
    is_road = city.semantic(city.maps.read(*facts), 7, ids, 96) == Class.ROAD
    assert is_road.any(axis=(1, 2)).all()
    for picture, mask, street in zip(pictures, is_road, look.street, strict=True):
        seen = picture[mask].mean(axis=0)
        assert np.abs(seen / seen.sum() - street / street.sum()).max() < 0.02  # its hue, whatever the light
