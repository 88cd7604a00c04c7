"""Areas bounded by great circles and their outlines, against s2geometry and scipy's spherical Voronoi cells."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from s2_oracle import area_km2
from s2geometry import S2Cell, S2CellId
from scipy.spatial import SphericalVoronoi

from geosieve.geo import s2
from geosieve.geo.outlines import OCTANTS, areas_km2, clip, lat_lon, merged, planar, unit_vectors

RADIUS_KM = 6371.0088
SPHERE_KM2 = 4 * np.pi * RADIUS_KM**2


def sphere(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_octants_are_an_eighth_of_the_sphere_each() -> None:
    np.testing.assert_allclose(areas_km2(OCTANTS), SPHERE_KM2 / 8, rtol=1e-14)


@pytest.mark.parametrize("level", [1, 2, 5, 12, 20])
def test_areas_and_corners_of_s2_cells(level: int) -> None:
    rng = np.random.default_rng(level)
    ids = s2.cell_ids(np.degrees(np.arcsin(rng.uniform(-1, 1, 200))), rng.uniform(-180, 180, 200), level)
    cells = [S2CellId(int(i) & (2**64 - 1)) for i in ids]
    np.testing.assert_allclose(areas_km2(s2.corners(ids)), [area_km2(cell) for cell in cells], rtol=1e-6)
    for found, cell in zip(s2.corners(ids), cells, strict=True):
        points = [S2Cell(cell).GetVertex(k) for k in range(4)]
        vertices = np.array([[point.x(), point.y(), point.z()] for point in points])
        near = np.abs(found[:, np.newaxis] - vertices).max(axis=2) < 1e-14
        assert near.any(axis=1).all() and near.any(axis=0).all()


def test_a_leaf_of_a_centimetre_has_the_area_of_its_parents_share() -> None:
    leaf = s2.cell_ids([48.8584], [2.2945], 30)
    areas = [areas_km2(s2.corners(s2.parents(leaf, level)))[0] for level in (30, 29, 28, 20)]
    assert areas[0] * 4 == pytest.approx(areas[1], rel=1e-5)
    assert areas[0] * 4**10 == pytest.approx(areas[3], rel=1e-4)


@pytest.mark.parametrize("level", [1, 2, 4])
def test_outlines_of_a_level_tile_the_plane(level: int) -> None:
    """Poles and antimeridian included: nothing overlaps and nothing is left over."""
    shapes = planar(s2.corners(s2.from_positions(np.arange(6 * 4**level), level)))
    assert shapely.is_valid(shapes).all()
    assert shapely.area(shapes).sum() == pytest.approx(360 * 180, rel=1e-12)
    assert shapely.union_all(shapes).area == pytest.approx(360 * 180, rel=1e-12)
    assert np.ptp(shapely.bounds(shapes)[:, [0, 2]], axis=1).max() <= 90.0


def test_clipping_keeps_the_side_of_the_normal() -> None:
    octant = OCTANTS[0]
    half = clip(octant, np.array([[1.0, -1.0, 0.0]]))  # west of 45 degrees east
    assert half is not None and areas_km2(half[np.newaxis])[0] == pytest.approx(SPHERE_KM2 / 16)
    assert clip(octant, np.array([[-1.0, -1.0, 0.0]])) is None
    whole = clip(octant, np.array([[1.0, 1.0, 1.0]]))
    assert whole is not None and np.array_equal(whole, octant)


@given(st.floats(-90, 90), st.floats(-180, 180))
def test_unit_vectors_and_back(lat: float, lon: float) -> None:
    back_lat, back_lon = lat_lon(unit_vectors(np.array([lat]), np.array([lon])))
    assert back_lat[0] == pytest.approx(lat, abs=1e-6)  # sines are flat at the poles
    if abs(lat) < 89.99:
        assert abs((back_lon[0] - lon + 180) % 360 - 180) < 1e-9


class TestVoronoi:
    """Cells from `geosieve.partitions.building.geocells.voronoi`, as they are published."""

    @pytest.mark.parametrize("n", [4, 5, 40, 174])
    def test_areas_are_those_of_scipy_and_outlines_tile_the_plane(self, n: int) -> None:
        from geosieve.partitions.building.geocells import voronoi

        centroids = sphere(n, seed=n)
        cells = voronoi(centroids)
        areas = [sum(areas_km2(piece[np.newaxis])[0] for piece in cell) for cell in cells]
        np.testing.assert_allclose(areas, SphericalVoronoi(centroids).calculate_areas() * RADIUS_KM**2, rtol=1e-9)
        shapes = np.array([merged(cell) for cell in cells])
        assert shapely.is_valid(shapes).all()
        assert shapely.area(shapes).sum() == pytest.approx(360 * 180, rel=1e-9)
        assert shapely.union_all(shapes).area == pytest.approx(360 * 180, rel=1e-9)

    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    def test_few_centroids_on_the_equator_share_the_sphere(self, n: int) -> None:
        """They lie on a great circle, for which a hull has no volume: lunes of equal areas."""
        from geosieve.partitions.building.geocells import voronoi

        centroids = unit_vectors(np.zeros(n), np.arange(n) * 360.0 / n - 179.0)
        for cell in voronoi(centroids):
            assert sum(areas_km2(piece[np.newaxis])[0] for piece in cell) == pytest.approx(SPHERE_KM2 / n, rel=1e-12)
            assert merged(cell).area == pytest.approx(360 * 180 / n, rel=1e-9)
