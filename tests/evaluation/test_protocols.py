"""Distances, scores and areas against published figures, pyproj and plain arithmetic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import DATA, needs_data

from geosieve.evaluation import protocols
from geosieve.evaluation.protocols import EARTH_AREA_KM2, PROTOCOLS, THRESHOLDS_KM, angles, cap_area_km2, geodesics_km


def distance_km(name: str, *points: float) -> float:
    arrays = [np.array([value]) for value in points]
    return float(PROTOCOLS[name].distance_km(angles(*arrays), geodesics_km(*arrays))[0])


@pytest.mark.parametrize(
    ("name", "km"),
    [("geoestimation", 3935.746), ("osv5m", 3935.746), ("pigeon", 3940.155), ("geoclip", 3944.422), ("g3", 3944.422)],
)
def test_new_york_to_los_angeles(name: str, km: float) -> None:
    assert round(distance_km(name, 40.7128, -74.0060, 34.0522, -118.2437), 3) == km


def test_a_pair_200_km_apart_changes_sides_with_the_protocol() -> None:
    degrees = float(np.degrees(200 / 6371))  # 200 km north-south at latitude 60 under R = 6371
    pair = (60.0, 10.0, 60 + degrees, 10.0)
    assert distance_km("osv5m", *pair) == pytest.approx(200, abs=1e-9)
    assert round(distance_km("pigeon", *pair), 3) == 200.224
    assert round(distance_km("geoclip", *pair), 3) == 200.418


def test_only_some_protocols_count_a_distance_equal_to_the_threshold() -> None:
    at, missing = np.array([200.0]), np.array([np.nan])
    assert {name for name, p in PROTOCOLS.items() if p.hit(at, 200.0)[0]} == {"geoestimation", "geoclip"}
    assert not any(p.hit(missing, 2500.0)[0] for p in PROTOCOLS.values())


def test_geoscore() -> None:
    near = np.array([0.0, 1492.7])
    np.testing.assert_allclose(PROTOCOLS["osv5m"].score(near), [5000, 5000 / np.e])
    np.testing.assert_array_equal(PROTOCOLS["pigeon"].score(near), [5000, 1839])  # 1839.397…
    with pytest.raises(ValueError, match="geoclip has no GeoScore"):
        PROTOCOLS["geoclip"].score(near)


@needs_data
@pytest.mark.parametrize("system", ["", "_base"])
def test_published_distances_and_scores_of_osv5m_to_their_last_digits(system: str) -> None:
    game = pd.read_csv(DATA / "coords" / "osv5m_game_select.csv")
    answer = (game["pred_lat" + system], game["pred_lon" + system])
    found = PROTOCOLS["osv5m"].distance_km(angles(game["true_lat"], game["true_lon"], *answer), np.nan)
    np.testing.assert_allclose(found, game["distance" + system], rtol=1e-15)
    np.testing.assert_allclose(PROTOCOLS["osv5m"].score(found), game["score" + system], rtol=1e-14)


@given(st.lists(st.tuples(*[st.floats(-89, 89), st.floats(-179, 179)] * 2), min_size=1, max_size=20))
def test_geodesics_equal_those_of_pyproj_one_by_one(pairs: list[tuple[float, float, float, float]]) -> None:
    found = geodesics_km(*np.array(pairs).T)
    geod = pyproj.Geod(a=6378137.0, f=1 / 298.257223563)
    expected = [geod.inv(lon1, lat1, lon2, lat2)[2] / 1000 for lat1, lon1, lat2, lon2 in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-9)


def test_areas_of_caps() -> None:
    """Published as 3.1, 2.0e3, 1.3e5, 1.8e6 and 2.0e7 km2; the last is that of a flat disc, a cap has 1.94e7."""
    areas = cap_area_km2(THRESHOLDS_KM)
    assert [float(f"{area:.1e}") for area in areas] == [3.1, 2.0e3, 1.3e5, 1.8e6, 1.9e7]
    R = 6371.0088
    np.testing.assert_allclose(areas, 2 * np.pi * R**2 * (1 - np.cos(np.array(THRESHOLDS_KM) / R)), rtol=1e-8)
    assert pytest.approx(510_065_881, abs=1) == EARTH_AREA_KM2
    assert cap_area_km2(np.pi * R) == pytest.approx(EARTH_AREA_KM2)


@given(st.lists(st.one_of(st.floats(0, 6e8), st.just(float("nan"))), min_size=1, max_size=30))
def test_summary_of_a_curve_is_its_mean_over_the_logarithm_of_area(areas: list[float]) -> None:
    limits = np.geomspace(cap_area_km2(1.0), EARTH_AREA_KM2, 40_001)
    middles = np.sqrt(limits[1:] * limits[:-1])
    recall = np.mean(np.array(areas)[:, None] <= middles, axis=0)
    assert protocols.log_area_score(np.array(areas)).mean() == pytest.approx(recall.mean(), abs=1e-4)


def test_summary_of_a_curve_at_its_ends() -> None:
    scores = protocols.log_area_score(np.array([0.0, cap_area_km2(1.0), EARTH_AREA_KM2, np.nan, np.inf]))
    np.testing.assert_allclose(scores, [1, 1, 0, 0, 0], atol=1e-15)
