"""Distances and areas, against pyproj's geodesics and authalic latitude, and figures worked out by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyproj import Geod, Proj

from geosieve.geo.sphere import (
    EARTH_RADIUS_KM,
    authalic_cell_area_km2,
    cell_area_km2,
    haversine_km,
    normalize_lon,
)

LATITUDES = st.floats(-90, 90)
LONGITUDES = st.floats(-180, 180)
WGS84_SURFACE_KM2 = 510_065_621.724  # 4 pi R_A^2 with R_A of the WGS-84 ellipsoid


def test_new_york_to_los_angeles_with_three_radii() -> None:
    # The radii of the published evaluation protocols.
    pair = 40.7128, -74.0060, 34.0522, -118.2437
    assert haversine_km(*pair, radius_km=6371.0) == pytest.approx(3935.746, abs=5e-4)
    assert haversine_km(*pair, radius_km=6378.137) == pytest.approx(3940.155, abs=5e-4)


def test_distance_equals_a_geodesic_on_a_spherical_ellipsoid() -> None:
    rng = np.random.default_rng(0)
    lat1, lat2 = np.degrees(np.arcsin(rng.uniform(-1, 1, (2, 5000))))
    lon1, lon2 = rng.uniform(-180, 180, (2, 5000))
    geodesic = Geod(a=EARTH_RADIUS_KM * 1000, f=0).inv(lon1, lat1, lon2, lat2)[2] / 1000
    np.testing.assert_allclose(haversine_km(lat1, lon1, lat2, lon2), geodesic, rtol=1e-13, atol=1e-10)


def test_a_degree_is_the_same_along_every_great_circle() -> None:
    degree = EARTH_RADIUS_KM * math.pi / 180
    along = haversine_km([0, 0, 89.5, -0.5], [0, 179.5, 0, 7], [1, 0, 89.5, 0.5], [0, -179.5, 180, 7])
    np.testing.assert_allclose(along, degree, rtol=1e-14)


@pytest.mark.parametrize("gap_deg", [1e-3, 1e-6, 1e-9, 1e-12])
def test_a_point_short_of_the_antipode_is_short_by_that_much(gap_deg: float) -> None:
    half = EARTH_RADIUS_KM * math.pi
    short = half - haversine_km(0.0, 0.0, gap_deg, 180.0)
    # What remains is the rounding of half the circumference itself, 4 nanometres and a bit.
    assert short == pytest.approx(EARTH_RADIUS_KM * math.radians(gap_deg), abs=2e-11)


@pytest.mark.parametrize("step_deg", [1e-6, 1e-9, 1e-12, 1e-15, 1e-100])
def test_tiny_distances_keep_their_digits(step_deg: float) -> None:
    expected = EARTH_RADIUS_KM * math.radians(step_deg)
    assert haversine_km(0, 0, step_deg, 0) == pytest.approx(expected, rel=1e-14)
    assert haversine_km(0, 0, 0, step_deg) == pytest.approx(expected, rel=1e-14)


@given(LATITUDES, LONGITUDES)
def test_the_antipode_is_half_the_circumference_away(lat: float, lon: float) -> None:
    assert haversine_km(lat, lon, -lat, lon + 180) == pytest.approx(EARTH_RADIUS_KM * math.pi, rel=1e-14)


@given(LATITUDES, LONGITUDES, LATITUDES, LONGITUDES)
def test_distance_is_symmetric_and_vanishes_only_at_the_point(
    lat1: float, lon1: float, lat2: float, lon2: float
) -> None:
    there, back = haversine_km(lat1, lon1, lat2, lon2), haversine_km(lat2, lon2, lat1, lon1)
    assert there == back
    assert haversine_km(lat1, lon1, lat1, lon1) == 0
    assert 0 <= there <= EARTH_RADIUS_KM * math.pi * (1 + 1e-15)


def test_distance_broadcasts() -> None:
    assert haversine_km(np.zeros((3, 1)), 0, 0, np.zeros(4)).shape == (3, 4)


@pytest.mark.parametrize(
    ("lon", "wrapped"),
    [
        (180, -180),
        (-180, -180),
        (540, -180),
        (190, -170),
        (-190, 170),
        (360, 0),
        (-720.25, -0.25),
        (1e9, -80),
    ],
)
def test_longitude_wraps(lon: float, wrapped: float) -> None:
    assert normalize_lon(lon) == wrapped


@given(st.floats(-180, 180, exclude_max=True))
@example(5e-324)
@example(-5e-324)
@example(math.nextafter(180, 0))
def test_longitude_in_range_keeps_every_bit(lon: float) -> None:
    assert normalize_lon(lon) == lon


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(math.nextafter(-180, -181))
def test_longitude_wraps_without_rounding(lon: float) -> None:
    wrapped = float(normalize_lon(lon))
    assert -180 <= wrapped < 180
    assert (Fraction(lon) - Fraction(wrapped)) % 360 == 0


@pytest.mark.parametrize("lat", [90.0001, -91, math.nan, math.inf])
def test_a_bad_latitude_is_named_with_its_position(lat: float) -> None:
    with pytest.raises(ValueError, match=f"^{lat:.5g}.* at position 2: a latitude"):
        haversine_km([0, 10, lat, -100], 0, 0, 0)
    with pytest.raises(ValueError, match=r"at position \(1, 0\)"):
        haversine_km([[0], [lat]], 0, 0, 0)
    for area in (cell_area_km2, authalic_cell_area_km2):
        with pytest.raises(ValueError, match=r"a latitude is in \[-90, 90\]"):
            area(0, lat, 1)


@pytest.mark.parametrize("lon", [math.nan, math.inf, -math.inf])
def test_a_longitude_that_is_no_number_is_refused(lon: float) -> None:
    with pytest.raises(ValueError, match="at position 1: a longitude"):
        normalize_lon([0, lon])
    with pytest.raises(ValueError, match="a longitude"):
        haversine_km(0, 0, 0, lon)


@pytest.mark.parametrize("area", [cell_area_km2, authalic_cell_area_km2])
def test_cells_are_not_upside_down_nor_wider_than_the_globe(area) -> None:
    with pytest.raises(ValueError, match=r"^2\.0 at position 1: the southern"):
        area([0, 2], [1, 1], 1)
    for width in (-1, 360.5, math.nan):
        with pytest.raises(ValueError, match="width"):
            area(0, 1, width)


def test_the_whole_sphere() -> None:
    assert cell_area_km2(-90, 90, 360) == pytest.approx(4 * math.pi * EARTH_RADIUS_KM**2, rel=1e-15)
    assert round(float(cell_area_km2(-90, 90, 360))) == 510_065_881


def test_the_whole_ellipsoid() -> None:
    assert authalic_cell_area_km2(-90, 90, 360) == pytest.approx(WGS84_SURFACE_KM2, abs=1e-3)


@pytest.mark.parametrize("area", [cell_area_km2, authalic_cell_area_km2])
@given(south=LATITUDES, middle=LATITUDES, north=LATITUDES)
def test_areas_add_up(area, south: float, middle: float, north: float) -> None:
    south, middle, north = sorted((south, middle, north))
    parts = area(south, middle, 0.5) + area(middle, north, 0.5)
    assert parts == pytest.approx(area(south, north, 0.5), rel=1e-13)
    assert area(south, north, 0.5) == pytest.approx(area(-north, -south, 0.5), rel=1e-14)


@pytest.mark.parametrize("height_deg", [1e-2, 1e-5, 1e-8])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_small_cell_at_the_pole_keeps_its_digits(height_deg: float, sign: int) -> None:
    edge = 90 - height_deg
    height = math.radians(90 - edge)  # as far as the pole is from the edge once rounded
    south, north = sorted((sign * edge, sign * 90))
    # A flat cap's sector, with the first term of what curvature takes away.
    flat = EARTH_RADIUS_KM**2 * math.radians(30) * height**2 / 2 * (1 - height**2 / 12)
    assert cell_area_km2(south, north, 30) == pytest.approx(flat, rel=1e-12)
    # On the ellipsoid the polar radius of curvature, a / sqrt(1 - e^2), takes the place of R.
    polar_radius = 6378.137 / (1 - 1 / 298.257223563)
    flat = polar_radius**2 * math.radians(30) * height**2 / 2
    assert authalic_cell_area_km2(south, north, 30) == pytest.approx(flat, rel=max(1e-12, height**2))


def test_ellipsoidal_area_equals_a_densified_geodesic_polygon() -> None:
    geod = Geod(ellps="WGS84")
    for south, north in [(0, 1), (45, 47), (-80, -79.5), (88, 89)]:
        lon = np.linspace(0, 3, 20_001)  # parallels are no geodesics: many short ones follow them
        lons = np.concatenate([lon, lon[::-1]])
        lats = np.concatenate([np.full(lon.size, south), np.full(lon.size, north)])
        expected = abs(geod.polygon_area_perimeter(lons, lats)[0]) / 1e6
        assert authalic_cell_area_km2(south, north, 3) == pytest.approx(expected, rel=1e-8)


def test_ellipsoidal_area_equals_the_extent_of_an_equal_area_map() -> None:
    # Lambert's cylindrical equal-area projection maps a cell to a rectangle of the cell's area.
    rng = np.random.default_rng(1)
    south, north = np.sort(rng.uniform(-90, 90, (2, 1000)), axis=0)
    projection = Proj(proj="cea", ellps="WGS84")
    width_m = projection(1.0, 0.0)[0]
    height_m = projection(np.zeros(1000), north)[1] - projection(np.zeros(1000), south)[1]
    expected = width_m * height_m / 1e6
    np.testing.assert_allclose(authalic_cell_area_km2(south, north, 1), expected, rtol=1e-11, atol=1e-8)
