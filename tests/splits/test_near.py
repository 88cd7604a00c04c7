"""Near points against a plain loop over all pairs; cubes against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod
from s2_oracle import corners, leaf

from geosieve.splits.groups import component_roots
from geosieve.splits.near import Cubes, level_within, nearest_km, preceded, unit_vectors

SPHERE = Geod(a=6371008.8, b=6371008.8)


def places(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points near a pole, near the antimeridian, and anywhere."""
    rng = np.random.default_rng(seed)
    lat = np.concatenate([rng.uniform(89, 90, n), rng.uniform(-1, 1, n), rng.uniform(-90, 90, n), [90, -90, 90, 0, 0]])
    wrapped = (rng.uniform(179, 181, n) + 180) % 360 - 180
    lon = np.concatenate([rng.uniform(-180, 180, n), wrapped, rng.uniform(-180, 180, n), [0, 0, 77, 180, -180]])
    return lat, lon


def all_distances_km(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    lat1, lat2 = np.meshgrid(a[0], b[0], indexing="ij")
    lon1, lon2 = np.meshgrid(a[1], b[1], indexing="ij")
    return np.asarray(SPHERE.inv(lon1, lat1, lon2, lat2)[2]) / 1000


@pytest.mark.parametrize("km", [0.5, 25, 200, 2500, 20_015])
def test_nearest_is_that_of_a_loop(km: float) -> None:
    points, others = places(60, 1), places(40, 2)
    expected = all_distances_km(points, others).min(axis=1)
    expected[expected > km] = np.nan
    np.testing.assert_allclose(nearest_km(*points, *others, km), expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("km", [25, 200])
def test_preceded_is_that_of_a_loop(km: float) -> None:
    lat, lon = places(60, 3)
    rank = np.random.default_rng(4).permutation(lat.size)
    distance = all_distances_km((lat, lon), (lat, lon))
    distance[rank[None, :] >= rank[:, None]] = np.inf
    expected = distance.min(axis=1)
    expected[expected > km] = np.nan
    np.testing.assert_allclose(preceded(lat, lon, rank, lat, lon, rank, km), expected, rtol=1e-9, atol=1e-8)


def test_nothing_is_near_an_empty_set() -> None:
    none = np.array([])
    assert np.isnan(nearest_km(*places(3, 0), none, none, 100)).all()
    assert nearest_km(none, none, *places(3, 0), 100).size == 0


@given(
    st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 1), st.floats(0, 360), st.floats(0.001, 20_000)
)  # fmt: skip
def test_a_ball_touches_the_cube_of_every_point_in_it(
    lat: float, lon: float, part: float, azimuth: float, km: float
) -> None:
    other_lon, other_lat, _ = SPHERE.fwd(lon, lat, azimuth, part * km * 1000 * (1 - 1e-12))
    cubes = Cubes.for_balls(km)
    point, touched = cubes.touched(unit_vectors(np.array([lat]), np.array([lon])), km)
    assert 1 <= touched.size <= 8 and len(set(touched.tolist())) == touched.size and (point == 0).all()
    assert cubes.of(unit_vectors(np.array([other_lat]), np.array([other_lon])))[0] in touched


@pytest.mark.parametrize("km", [0.001, 0.01, 1, 100])
def test_a_cell_is_no_wider_than_the_spacing(km: float) -> None:
    lat, lon = places(60, 5)
    corner = np.array([corners(leaf(*place).parent(level_within(km))) for place in zip(lat, lon, strict=True)])
    for first, second in ((0, 2), (1, 3)):
        *_, metres = SPHERE.inv(corner[:, first, 1], corner[:, first, 0], corner[:, second, 1], corner[:, second, 0])
        np.testing.assert_array_less(metres / 1000, km)


def test_least_sufficient_level() -> None:
    """S2's published maximal diagonals: a level 14 cell measures at most 0.949 km, one of level 13 1.9 km."""
    assert level_within(0.95) == 14
    assert level_within(0.94) == 15
    assert level_within(1.9) == 13
    assert level_within(1e-9) == 30
    assert level_within(20_015) == 0


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=25))
def test_components_are_those_of_walking_along_edges(edges: list[tuple[int, int]]) -> None:
    nodes, roots = component_roots(*np.array(edges).T)
    for node, root in zip(nodes.tolist(), roots.tolist(), strict=True):
        reached, size = {node}, 0
        while len(reached) > size:
            size = len(reached)
            reached |= {b for pair in edges for a, b in (pair, pair[::-1]) if a in reached}
        assert root == min(reached)
    assert nodes.tolist() == sorted({n for pair in edges for n in pair})


def test_ends_of_the_earth_are_half_a_circumference_apart() -> None:
    found = nearest_km(np.array([90.0]), np.array([0.0]), np.array([-90.0]), np.array([0.0]), 20_015.2)
    assert found[0] == pytest.approx(math.pi * 6371.0088)
