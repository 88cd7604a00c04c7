"""Shapes across the antimeridian and around poles, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from geosieve.geo.antimeridian import areas_of, crosses, shortest_edges, unwrap

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


RIGHT_ANGLES = [(170, -10), (180, -10), (-180, -10), (-170, -10), (-170, -20), (-180, -20), (180, -20), (170, -20)]


@pytest.mark.parametrize(
    "ring",
    [
        ACROSS.exterior.coords,
        RIGHT_ANGLES,  # +180 and -180 are one meridian: nothing is between them
        RIGHT_ANGLES[::-1],
        [(170, -10), (179.9, -10), (-180, -10), (-170, -10), (-170, -20), (-180, -20), (179.9, -20), (170, -20)],
        [(170, -10), (180, -10), (-170, -10), (-170, -20), (-180, -20), (170, -20)],
        [(170, -10), (180, -10), (-179.9, -10.001), (-170, -11), (-170, -20), (180, -20)],
        [(177, -16), (180, -16.1), (-180, -16.1), (-180, -16.5), (180, -16.5)],  # as Fiji in world-atlas
        # with a vertex every degree, along the meridian as well
        [
            *((170 + k, -10) for k in range(11)),
            *((-180 + k, -10) for k in range(11)),
            *((-170 - k, -20) for k in range(11)),
            *((180, y) for y in range(-20, -14)),
            *((180, y) for y in range(-15, -21, -1)),
            *((180 - k, -20) for k in range(11)),
        ],
    ],
)
def test_a_jump_over_180_away_from_a_pole_is_a_crossing(ring: list[tuple[float, float]]) -> None:
    assert crosses(Polygon(ring))
    shape = shortest_edges(Polygon(ring))
    east_of_0 = [(lon % 360, lat) for lon, lat in ring]  # nothing of it is near longitude 0
    assert shape.area == pytest.approx(Polygon(east_of_0).area)
    assert not shape.intersects(box(-160, -90, 160, 90))


@pytest.mark.parametrize(
    "ring",
    [
        box(-180, -90, 180, -60).exterior.coords,
        box(-180, -60, 180, 75).exterior.coords,  # closed along two parallels
        box(-80, 0, 80, 10).exterior.coords,
        [(-180, -80), (0, -70), (180, -80), (180, -90), (-180, -90)],  # as Antarctica in Natural Earth
        [(-180, -60), (180, -60), (180, -80), (90, -70), (0, -80), (-90, -70), (-180, -80)],  # an ocean around it
        [(-170, -90), (-170, -60), (0, -60), (170, -60), (170, -90)],  # at the pole every edge has no length
    ],
)
def test_a_shape_that_is_cut_at_180_stays_as_it_is(ring: list[tuple[float, float]]) -> None:
    assert not crosses(Polygon(ring))
    assert shortest_edges(Polygon(ring)).equals(Polygon(ring))


@pytest.mark.parametrize("seed", range(20))
def test_what_a_ring_across_180_holds_is_what_it_holds_in_longitudes_from_0_to_360(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 30))
    shell = np.column_stack([180 + 40 * np.cos(angle), 30 * np.sin(angle)]) * rng.uniform(0.7, 1, 30)[:, np.newaxis]
    shell[:, 0] += 180 - shell[:, 0].mean()
    shell[rng.random(30) < 0.2, 0] = 180.0  # written as +180 or -180, at random
    if not Polygon(shell).is_valid:
        shell = shapely.get_coordinates(Polygon(shell).convex_hull.exterior)
    hole = np.array([[-3, -3], [3, -3], [3, 3], [-3, 3]]) + shapely.get_coordinates(Polygon(shell).centroid)
    both = Polygon(shell).difference(Polygon(hole))
    rings = [shapely.get_coordinates(ring) for ring in (both.exterior, *both.interiors)]
    for ring in rings:
        beyond = (ring[:, 0] > 180) | ((ring[:, 0] == 180) & (rng.random(len(ring)) < 0.5))
        beyond[-1] = beyond[0]
        ring[beyond, 0] -= 360
    shape = shortest_edges(Polygon(rings[0], rings[1:]))
    lon, lat = rng.uniform(130, 230, 2000), rng.uniform(-40, 40, 2000)
    inside = shapely.intersects_xy(shape, np.where(lon > 180, lon - 360, lon), lat)
    np.testing.assert_array_equal(inside, shapely.intersects_xy(both, lon, lat))
    assert shape.area == pytest.approx(both.area)


def test_a_ring_of_both_rings_around_a_pole_is_between_them() -> None:
    around = [[(lon, lat) for lon in (0, 90, 180, -90)] for lat in (60, 80)]
    for shell, hole in (around, around[::-1]):  # TopoJSON of world-atlas has Antarctica's coast as the hole
        assert shortest_edges(Polygon(shell, [hole])).equals(box(-180, 60, 180, 80))
    last_metres = [(lon, 89.999) for lon in (0, 90, 180, -90)]
    assert shortest_edges(Polygon(around[1], [last_metres])).equals(box(-180, 80, 180, 90))


@pytest.mark.parametrize(
    ("ring", "told"),
    [
        ([(0, 0), (120, 0), (-120, 0)], "either half"),
        ([(0, 10), (120, 10), (-120, 10), (0, 20), (120, 20), (-120, 20)], "more than once"),
        ([(-90, 10), (90, 10), (170, 50), (-170, 50)], "exactly 180 degrees"),
    ],
)
def test_a_ring_that_may_hold_this_or_that_is_told(ring: list[tuple[float, float]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        shortest_edges(Polygon(ring))


def test_polygons_in_collections_are_found_and_points_and_lines_are_told() -> None:
    nested = GeometryCollection([box(0, 0, 1, 1), GeometryCollection([MultiPolygon([box(2, 0, 3, 1)])])])
    assert areas_of(nested).equals(MultiPolygon([box(0, 0, 1, 1), box(2, 0, 3, 1)]))
    assert shortest_edges(nested).equals(areas_of(nested))
    for other in (Point(0, 0), LineString([(0, 0), (1, 1)]), GeometryCollection([nested, Point(0, 0)])):
        with pytest.raises(ValueError, match=r"holds a (Point|LineString)"):
            areas_of(other)
