"""Places as ranges of S2 cells."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from s2_oracle import leaf

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, InputError
from geosieve.sql import place

TRIANGLE = shapely.Polygon([(-5, 40), (5, 40), (5, 45)])


def signed(lat: float, lon: float) -> int:
    cell = leaf(lat, lon).id()
    return int(cell) - 2**64 * (cell >= 2**63)


@pytest.mark.parametrize("where", [TRIANGLE, place.box(-20, 175, -15, -178), place.box(89, -180, 90, 180)])
@pytest.mark.parametrize("level", [3, 6])
def test_ranges_hold_every_leaf_of_the_place_and_little_else(where: shapely.Geometry, level: int) -> None:
    first, last = place.ranges_of(where, level)
    assert (first <= last).all() and (last[:-1] < first[1:] - 2).all()  # ascending, apart, merged
    rng = np.random.default_rng(0)
    west, south, east, north = where.bounds
    lat, lon = rng.uniform(south, north, 20_000), rng.uniform(west, east, 20_000)
    inside = shapely.contains_xy(where, lon, lat)
    assert inside.sum() > 100
    ids = np.array([signed(a, b) for a, b in zip(lat[inside], lon[inside], strict=True)])
    at = np.searchsorted(first, ids, side="right") - 1
    assert (ids <= last[at]).all()
    leaves = (last - first) / 2 + 1  # as floats
    share = leaves.sum() / (6 * 4.0**30)
    area = shapely.area(where) * np.cos(np.radians((south + north) / 2)) / 41_253  # square degrees of the sphere
    assert share < 4 * area + 40 * 2.0 ** -(2 * level)


def test_no_more_ranges_than_a_query_takes() -> None:
    for where in (TRIANGLE, place.box(-90, -180, 90, 180), place.box(48.85, 2.29, 48.86, 2.3)):
        first, _ = place.best_ranges(where)
        assert 0 < first.size <= place.MOST_RANGES


def test_a_polygon_file_is_printed_as_sql(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(TRIANGLE))}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    assert place.main(["--polygon", str(path), "--level", "5"]) == EXIT_DONE
    told = capsys.readouterr().out
    assert told.startswith("place (south, west, north, east) AS (VALUES (40.0, -5.0, 45.0, 5.0)),\n")
    pairs = [(int(a), int(b)) for a, b in re.findall(r"\((-?\d+), (-?\d+)\)", told)]
    first, last = place.ranges_of(TRIANGLE, 5)
    assert pairs == list(zip(first.tolist(), last.tolist(), strict=True))


def test_places_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, said in (
        ("{", "GeoJSON"),
        ('{"type": "Point", "coordinates": [1, 2]}', "no polygon"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]}', "crosses itself"),
        ('{"type": "Polygon", "coordinates": [[[170, 0], [190, 0], [190, 5], [170, 0]]]}', "cut there"),
    ):
        path = tmp_path / "bad.geojson"
        path.write_text(text)
        assert place.main(["--polygon", str(path)]) == EXIT_BAD_INPUT
        assert said in capsys.readouterr().err
    with pytest.raises(InputError, match="no box"):
        place.box(45, 0, 40, 5)
