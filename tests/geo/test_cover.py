"""Covers of boxes and circles by S2 cells, against Google's S2 library and dense points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s2_oracle import leaf
from s2geometry import S1Angle, S2Cap, S2Cell, S2CellId, S2LatLng, S2LatLngRect

from geosieve.geo import s2
from geosieve.geo.cover import Boxes, covered, summed
from geosieve.geo.sphere import cell_area_km2

LEAST = 2 * np.sqrt(2) / 3
"""Least width of a cell of level 0, radians; halved from level to level."""


def signed(cell: S2CellId) -> int:
    return int(cell.id()) - 2**64 * (cell.id() >= 2**63)


def one(south: float, west: float, north: float, east: float) -> Boxes:
    return Boxes(*(np.array([side]) for side in (south, west, north, east)), np.zeros(1, dtype=np.int64))


@settings(max_examples=150)
@given(
    lat=st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 0.0, 35.26438968275465, 45.0, 90.0])),
    lon=st.one_of(st.floats(-180, 180), st.sampled_from([-180.0, -45.0, 0.0, 45.0, 135.0, 180.0])),
    radius=st.floats(0, 0.05),
    level=st.integers(0, 6),
)
def test_no_cell_that_a_circle_touches_is_left_out(lat: float, lon: float, radius: float, level: int) -> None:
    """Also at corners and edges of the cube, at poles and at ±180."""
    of, found = s2.cells_of_circles([lat], [lon], [radius], level)
    assert not of.any() and np.unique(found).size == found.size and (s2.levels(found) == level).all()
    cap = S2Cap(S2LatLng.FromDegrees(lat, lon).ToPoint(), S1Angle.Radians(radius))
    first = S2CellId.Begin(level)
    touched = set()
    while first != S2CellId.End(level) and level <= 3:
        if cap.MayIntersect(S2Cell(first)):
            touched.add(signed(first))
        first = first.next()
    turns = np.linspace(0, 2 * np.pi, 40)
    for part in (0.0, 0.5, 1.0):
        y = np.clip(lat + np.degrees(radius * part) * np.cos(turns), -90, 90)
        x = lon + np.degrees(radius * part) * np.sin(turns) / np.maximum(np.cos(np.radians(y)), 1e-3)
        near = [S2LatLng.FromDegrees(a, b) for a, b in zip(y, x, strict=True)]
        touched |= {signed(S2CellId(p).parent(level)) for p in near if cap.Contains(p.ToPoint())}
    assert touched <= set(found.tolist())


@pytest.mark.parametrize("level", [1, 4, 6, 8])
def test_a_cover_of_boxes_has_all_their_points_and_areas_and_nothing_far(level: int) -> None:
    rng = np.random.default_rng(level)
    n = 30
    south, west = rng.uniform(-90, 88, n), rng.uniform(-180, 176, n)
    south[:3], west[:3] = [-90, 89.5, 35.0], [-180, -180, 44.9]
    north, east = np.minimum(south + rng.uniform(0, 1.5, n), 90), west + rng.uniform(0, 3, n)
    east[:2] = 180.0
    of, cells, area = covered(Boxes(south, west, north, east, np.arange(n)), level)
    assert np.bincount(of, area, n) == pytest.approx(cell_area_km2(south, north, east - west))
    slack = S1Angle.Radians(LEAST / 2**level / 8)
    for k in range(n):
        mine = set(cells[of == k].tolist())
        lats, lons = np.linspace(south[k], north[k], 15), np.linspace(west[k], east[k], 15 if k > 1 else 500)
        assert {signed(leaf(lat, lon).parent(level)) for lat in lats for lon in lons} <= mine
        corners = (S2LatLng.FromDegrees(*at) for at in ((south[k], west[k]), (north[k], east[k])))
        near = S2LatLngRect(*corners).ExpandedByDistance(slack)
        assert all(near.MayIntersect(S2Cell(S2CellId(cell % 2**64))) for cell in mine)


def test_a_point_has_its_cell_and_no_area() -> None:
    of, cells, area = covered(one(10, 20, 10, 20), 7)
    assert signed(leaf(10, 20).parent(7)) in cells.tolist() and area.sum() == 0 and not of.any()


def test_rows_with_the_same_keys_become_one() -> None:
    of, cell, area = summed(np.array([2, 0, 2, 0]), np.array([5, -7, 5, 8]), np.array([1.0, 2.0, 4.0, 8.0]))
    assert (of.tolist(), cell.tolist(), area.tolist()) == ([0, 0, 2], [-7, 8, 5], [2.0, 8.0, 5.0])
    assert [column.size for column in summed(*(np.empty(0, np.int64) for _ in range(2)), np.empty(0))] == [0, 0, 0]


def test_a_box_across_180_and_one_upside_down_are_refused() -> None:
    with pytest.raises(ValueError, match="cut it at ±180"):
        one(0, 170, 1, -170)
    with pytest.raises(ValueError, match="north"):
        one(1, 0, 0, 1)
    with pytest.raises(ValueError, match="radius"):
        s2.cells_of_circles([0.0], [0.0], [0.1], 3)


def test_leaves_of_cells_are_those_of_the_library() -> None:
    ids = s2.cell_ids([-80.0, 10.0, 85.0, 5.0], [0.0, 20.0, -100.0, -170.0], 9)
    first, last = s2.leaves(ids)
    for cell, low, high in zip(ids.tolist(), first.tolist(), last.tolist(), strict=True):
        known = S2CellId(cell % 2**64)
        assert (low, high) == (signed(known.range_min()), signed(known.range_max()))
