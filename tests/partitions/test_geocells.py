"""Geocells: nearest centroids against a plain maximum of products, and clusters of synthetic towns."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosieve.geo.outlines import areas_km2, unit_vectors
from geosieve.geo.sphere import haversine_km
from geosieve.partitions.building.geocells import NearestCentroid, Search, centroids, find_cells, voronoi

LAT, LON = st.floats(-90, 90), st.floats(-180, 180)
SEARCH = Search(min_samples=(10,), xi=(0.05, 0.1), max_eps_km=500.0, fewest=2, most=50)


@given(st.lists(st.tuples(LAT, LON), min_size=1, max_size=30), st.lists(st.tuples(LAT, LON), min_size=1, max_size=50))
def test_a_point_belongs_to_a_centroid_that_none_is_nearer_than(
    places: list[tuple[float, float]], points: list[tuple[float, float]]
) -> None:
    there, asked = unit_vectors(*np.array(places).T), unit_vectors(*np.array(points).T)
    found = NearestCentroid(there).assign(asked)
    chords = np.linalg.norm(asked[:, np.newaxis] - there, axis=2)
    assert (chords[np.arange(len(points)), found] <= chords.min(axis=1) + 1e-15).all()


def test_of_equally_near_centroids_the_first_counts() -> None:
    there = np.array([[0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, -1, 0], [0, 1, 0]], float)
    nearest = NearestCentroid(there)
    asked = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, -1, 0], [0, 0, -1]], float)
    assert nearest.assign(asked).tolist() == [0, 1, 0, 2, 0]
    assert pickle.loads(pickle.dumps(nearest)).assign(asked).tolist() == [0, 1, 0, 2, 0]
    assert NearestCentroid(there[:1]).assign(asked).tolist() == [0] * 5


def test_inside_a_geocell_only_its_own_clusters_count() -> None:
    there = unit_vectors(np.array([10.0, 0.0, 0.1]), np.array([0.0, 0.0, 0.0]))
    nearest = NearestCentroid(there, np.array([0, 1, 1]))
    here = unit_vectors(np.zeros(2), np.zeros(2))
    assert nearest.assign(here, np.array([0, 1])).tolist() == [0, 1]


def test_centroids_are_means_on_the_sphere() -> None:
    """Across ±180 the mean of 179 and -179 is 180, and around a pole it is the pole."""
    lat, lon = np.array([0.0, 0, 80, 80, 80, 80]), np.array([179.0, -179, 0, 90, 180, -90])
    means = centroids(unit_vectors(lat, lon), np.array([0, 0, 1, 1, 1, 1]))
    np.testing.assert_allclose(means, [[-1, 0, 0], [0, 0, 1]], atol=1e-15)


def test_towns_are_found_wherever_they_are() -> None:
    """Five synthetic towns, one across ±180 and one at a pole: five cells with their centroids there."""
    rng = np.random.default_rng(0)
    lat0, lon0 = np.array([48.0, -33, 10, 89.8, 0]), np.array([2.0, 151, 180, 0, -60])
    town = np.repeat(np.arange(5), 60)
    lat = np.clip(lat0[town] + rng.normal(0, 0.2, town.size), -90, 90)
    lon = (lon0[town] + rng.normal(0, 0.2, town.size) + 180) % 360 - 180
    cell_lat, cell_lon, trials = find_cells(lat, lon, SEARCH)
    distances = haversine_km(cell_lat[:, np.newaxis], cell_lon[:, np.newaxis], lat0, lon0)
    assert (distances.min(axis=0) < 30).all()
    assert len(trials) == 2 and sum(trial.get("chosen", False) for trial in trials) == 1
    scored = [trial for trial in trials if "silhouette" in trial]
    assert all(trial["silhouette"] > 0.5 and trial["davies_bouldin"] < 1 for trial in scored)


@pytest.mark.parametrize("n", [0, 3, 40])
def test_too_few_images_have_no_cells(n: int) -> None:
    lat, lon, trials = find_cells(np.full(n, 1.0), np.full(n, 2.0), SEARCH)
    assert lat.size == lon.size == 0 and all(not trial.get("chosen", False) for trial in trials)


def test_cells_within_a_cell_share_its_area() -> None:
    rng = np.random.default_rng(1)
    outer = voronoi(unit_vectors(rng.uniform(-80, 80, 6), rng.uniform(-180, 180, 6)))
    inner = voronoi(unit_vectors(rng.uniform(-80, 80, 9), rng.uniform(-180, 180, 9)), within=outer[0])

    def area(cell: list[np.ndarray]) -> float:
        return float(sum(areas_km2(piece[np.newaxis])[0] for piece in cell))

    assert sum(map(area, inner)) == pytest.approx(area(outer[0]), rel=1e-12)


def test_a_cell_of_two_metres_is_not_lost() -> None:
    """Four neighbours 2 m to the north, east, south and west leave a square of 2 m by 2 m."""
    step = 2.0 / 111_194.93  # metres in a degree of a great circle
    cells = voronoi(unit_vectors(np.array([0, step, 0, -step, 0]), np.array([0, 0, step, 0, -step])))
    areas_m2 = [1e6 * sum(float(areas_km2(piece[np.newaxis])[0]) for piece in cell) for cell in cells]
    assert areas_m2[0] == pytest.approx(4.0, rel=1e-3)
    assert sum(areas_m2) == pytest.approx(4e6 * np.pi * 6371.0088**2)
