"""Shapes across the antimeridian and around poles, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import Point, Polygon, box

from geosieve.geo.antimeridian import has_long_edges, shortest_edges, unwrap

ACROSS = Polygon([(170, 0), (-170, 0), (-170, 10), (170, 10)])  # 20 degrees wide by the shorter way


def test_unwrapped_longitudes_are_continuous() -> None:
    assert unwrap(np.array([170.0, -170.0, -150.0, 170.0])).tolist() == [170, 190, 210, 170]


def test_a_shape_across_the_antimeridian_is_cut_there() -> None:
    shape = shortest_edges(ACROSS)
    assert shape.area == pytest.approx(200)
    assert shape.equals(box(170, 0, 180, 10).union(box(-180, 0, -170, 10)))


def test_holes_stay_in_their_shell() -> None:
    shape = shortest_edges(Polygon(ACROSS.exterior, [[(178, 4), (-178, 4), (-178, 6), (178, 6)]]))
    assert shape.area == pytest.approx(200 - 8)
    assert not shape.contains(Point(179, 5)) and not shape.contains(Point(-179, 5))


@pytest.mark.parametrize("pole", [-90.0, 90.0])
def test_a_ring_around_a_pole_holds_it(pole: float) -> None:
    lat = np.copysign(60.0, pole)
    shape = shortest_edges(Polygon([(lon, lat) for lon in (0, 90, 180, -90)]))
    assert shape.area == pytest.approx(360 * 30)
    assert shape.contains(Point(33, np.copysign(89.0, pole)))


def test_edges_that_are_meant_the_other_way_around_are_found() -> None:
    assert has_long_edges(ACROSS)
    assert not has_long_edges(box(-180, -90, 180, -60))  # cut at ±180, as GeoJSON demands
    assert not has_long_edges(box(-80, 0, 80, 10))
