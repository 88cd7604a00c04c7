"""S2 ids: every one equal to that of Google's library."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from s2_oracle import corners, degrees, leaf
from s2geometry import S2CellId

from geosieve.geo import s2
from geosieve.geo.sphere import normalize_lon

LEVELS = st.integers(0, 30)
INDEX_AND_LEVEL = LEVELS.flatmap(lambda level: st.tuples(st.integers(0, 6 * 4**level - 1), st.just(level)))
CORNER_LAT = math.degrees(math.atan(1 / math.sqrt(2)))  # 35.26, where three cube faces meet


def reference_ids(lat: np.ndarray, lon: np.ndarray, level: int) -> np.ndarray:
    pairs = zip(lat.tolist(), lon.tolist(), strict=True)
    return np.array([leaf(*pair).parent(level).id() for pair in pairs], np.uint64).view(np.int64)


def random_points(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(-180, 180, count)


def edge_points() -> tuple[np.ndarray, np.ndarray]:
    """Corners, edges and middles of the cube's faces, and the floats and small steps beside them."""
    lats = [0.0, 90.0, 45.0, CORNER_LAT, 35.26, 30.0, 60.0, 89.999999999]
    lons = [0.0, 45.0, 90.0, 135.0, 180.0, 30.0, 120.0]
    lats = [sign * lat for lat in lats for sign in (1, -1)]
    lons = [sign * lon for lon in lons for sign in (1, -1)]
    steps = [0.0, 1e-15, -1e-15, 1e-12, -1e-12, 1e-9, -1e-9]
    near_lats = {math.nextafter(lat, to) for lat in lats for to in (-100, 100)} | {
        lat + step for lat in lats for step in steps
    }
    near_lons = {math.nextafter(lon, to) for lon in lons for to in (-200, 200)} | {
        lon + step for lon in lons for step in steps
    }
    pairs = itertools.product(
        sorted(lat for lat in near_lats if abs(lat) <= 90),
        sorted(lon for lon in near_lons if -180 <= lon < 180),
    )
    lat, lon = np.array(list(pairs)).T
    return lat, lon


def cell_corners(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on corners of cells of all levels, as near as degrees can say."""
    lat, lon = random_points(count, seed)
    pairs = enumerate(zip(lat.tolist(), lon.tolist(), strict=True))
    lat, lon = np.array([corners(leaf(*pair).parent(k % 31))[k % 4] for k, pair in pairs]).T
    return lat, normalize_lon(lon)  # on the 180th meridian at either sign


@pytest.mark.parametrize("level", range(31))
def test_ids_equal_the_reference_at_every_level(level: int) -> None:
    for lat, lon in (random_points(1000, level), edge_points()):
        if lat.size > 1000:
            lat, lon = lat[level % 7 :: 7], lon[level % 7 :: 7]
        np.testing.assert_array_equal(s2.cell_ids(lat, lon, level), reference_ids(lat, lon, level))


@pytest.mark.parametrize("points", [random_points(60_000, 99), edge_points(), cell_corners(10_000, 98)])
def test_leaf_ids_equal_the_reference(points: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(s2.cell_ids(*points), reference_ids(*points, 30))


def test_sine_and_cosine_are_the_c_library_s() -> None:
    # Equality with the reference rests on this: other ones may change one leaf id in millions.
    angles = np.random.default_rng(3).uniform(-np.pi, np.pi, 200_000)
    assert np.sin(angles).tolist() == [math.sin(angle) for angle in angles.tolist()]
    assert np.cos(angles).tolist() == [math.cos(angle) for angle in angles.tolist()]


def test_a_point_has_one_id_wherever_it_stands_in_an_array() -> None:
    lat, lon = random_points(40_000, 4)
    ids = s2.cell_ids(lat, lon)
    np.testing.assert_array_equal(s2.cell_ids(lat[::-3], lon[::-3]), ids[::-3])
    assert [int(s2.cell_ids(lat[k], lon[k])) for k in range(100)] == ids[:100].tolist()


def test_known_cells() -> None:
    # The faces' centres by definition; the Eiffel Tower.
    lat, lon = [0, 0, 90, 0, 0, -90], [0, 90, 0, 180, -90, 0]
    assert s2.tokens(s2.cell_ids(lat, lon, 0)).tolist() == ["1", "3", "5", "7", "9", "b"]
    assert s2.cell_ids(48.8584, 2.2945, 10) == leaf(48.8584, 2.2945).parent(10).id()
    assert str(s2.tokens(s2.cell_ids(48.8584, 2.2945, 10))) == "47e66f"


@pytest.mark.parametrize("level", [0, 1, 12, 30])
def test_a_point_on_the_180th_meridian_is_in_one_cell(level: int) -> None:
    lat = np.linspace(-90, 90, 721)
    west = s2.cell_ids(lat, -180.0, level)
    for lon in (180.0, 540.0, -540.0):
        np.testing.assert_array_equal(s2.cell_ids(lat, lon, level), west)
    np.testing.assert_array_equal(west, reference_ids(lat, np.full_like(lat, -180.0), level))


def test_longitudes_wrap_whole_turns() -> None:
    lat, lon = random_points(1000, 5)
    lon = np.round(lon * 2**30) / 2**30  # few enough bits that whole turns add without rounding
    for turns in (-3, -1, 1, 1000):
        np.testing.assert_array_equal(s2.cell_ids(lat, lon + 360 * turns), s2.cell_ids(lat, lon))


def test_poles_are_where_the_reference_has_them() -> None:
    lon = np.linspace(-180, 179, 360)
    for lat in (90.0, -90.0):
        expected = reference_ids(np.full_like(lon, lat), lon, 30)
        np.testing.assert_array_equal(s2.cell_ids(lat, lon), expected)


def test_shapes_broadcast_and_may_be_empty() -> None:
    lat, lon = np.linspace(-80, 80, 400)[:, None], np.linspace(-170, 170, 300)
    grid = s2.cell_ids(lat, lon, 12)
    flat = s2.cell_ids(np.repeat(lat, 300), np.tile(lon, 400), 12)
    np.testing.assert_array_equal(grid, flat.reshape(400, 300))
    assert grid.dtype == np.int64
    assert s2.cell_ids([], []).shape == (0,)
    assert [a.shape for a in s2.centres(np.empty(0, np.int64))] == [(0,), (0,)]
    assert s2.tokens(np.empty(0, np.int64)).shape == s2.from_tokens([]).shape == (0,)
    for transform in (s2.centres, s2.levels, s2.positions, s2.tokens, s2.is_valid):
        assert np.shape(transform(grid))[-2:] == (400, 300)


@pytest.mark.parametrize(
    ("lat", "lon", "message"),
    [
        (math.nan, 0, "nan at position 1: a latitude"),
        (90.5, 0, r"90\.5 at position 1: a latitude"),
        (-math.inf, 0, "-inf at position 1: a latitude"),
        (0, math.nan, "nan at position 1: a longitude"),
        (0, math.inf, "inf at position 1: a longitude"),
    ],
)
def test_coordinates_that_are_no_place_are_refused(lat: float, lon: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        s2.cell_ids([0, lat], [0, lon])


@given(INDEX_AND_LEVEL)
def test_the_centre_of_a_cell_is_in_it(cell: tuple[int, int]) -> None:
    index, level = cell
    identity = s2.from_positions(index, level)
    lat, lon = s2.centres(identity)
    assert s2.cell_ids(lat, lon, level) == identity
    assert -90 <= lat <= 90
    assert -180 <= lon < 180


@given(INDEX_AND_LEVEL)
@example((2, 0))
@example((3, 0))
def test_a_centre_equals_the_reference(cell: tuple[int, int]) -> None:
    identity = s2.from_positions(*cell)
    expected_lat, expected_lon = degrees(S2CellId(int(identity.view(np.uint64))).ToLatLng())
    expected_lon = -180.0 if expected_lon == 180.0 else expected_lon
    lat, lon = s2.centres(identity)
    assert lat == pytest.approx(expected_lat, abs=1e-13)
    assert lon == pytest.approx(expected_lon, abs=1e-12)


@given(INDEX_AND_LEVEL)
def test_positions_and_levels_describe_a_cell(cell: tuple[int, int]) -> None:
    identity = s2.from_positions(*cell)
    assert (int(s2.positions(identity)), int(s2.levels(identity))) == cell
    expected = S2CellId(int(identity.view(np.uint64)))
    assert expected.is_valid() and expected.level() == cell[1]


@given(INDEX_AND_LEVEL, LEVELS)
def test_a_parent_holds_its_children(cell: tuple[int, int], other_level: int) -> None:
    (index, level), identity = cell, s2.from_positions(*cell)
    if other_level > level:
        with pytest.raises(ValueError, match=f"coarser than level {other_level}"):
            s2.parents(identity, other_level)
        return
    parent = s2.parents(identity, other_level)
    assert s2.positions(parent) == index // 4 ** (level - other_level)
    expected = S2CellId(int(identity.view(np.uint64))).parent(other_level)
    assert int(parent.view(np.uint64)) == expected.id()


@pytest.mark.parametrize("level", [0, 1, 2, 5])
def test_positions_number_the_cells_of_a_level_in_s2_order(level: int) -> None:
    ids = s2.from_positions(np.arange(6 * 4**level), level)
    np.testing.assert_array_equal(s2.positions(ids), np.arange(6 * 4**level))
    first = S2CellId.Begin(level)
    for identity in ids.view(np.uint64)[: 6 * 4 ** min(level, 3)].tolist():
        assert identity == first.id()
        first = first.next()


def test_neighbours_in_position_share_an_edge() -> None:
    # The Hilbert curve's defining property, across faces too.
    lat, lon = s2.centres(s2.from_positions(np.arange(6 * 4**4), 4))
    points = np.stack(
        [
            np.cos(np.radians(lat)) * np.cos(np.radians(lon)),
            np.cos(np.radians(lat)) * np.sin(np.radians(lon)),
            np.sin(np.radians(lat)),
        ]
    )
    step = np.degrees(np.linalg.norm(np.diff(points, axis=1), axis=0))
    assert step.max() < 90 / 16 * 1.4


def test_levels_may_differ_in_one_array() -> None:
    lat, lon = random_points(31, 6)
    ids = np.array([s2.cell_ids(a, b, level) for level, (a, b) in enumerate(zip(lat, lon, strict=True))])
    np.testing.assert_array_equal(s2.levels(ids), np.arange(31))
    centre_lat, centre_lon = s2.centres(ids)
    for level in range(31):
        assert s2.cell_ids(centre_lat[level], centre_lon[level], level) == ids[level]
        assert s2.from_positions(s2.positions(ids)[level], level) == ids[level]


@given(INDEX_AND_LEVEL)
def test_tokens_equal_the_reference_and_come_back(cell: tuple[int, int]) -> None:
    identity = s2.from_positions(*cell)
    token = str(s2.tokens(identity))
    assert token == S2CellId(int(identity.view(np.uint64))).ToToken()
    padded = token.ljust(16, "0")
    np.testing.assert_array_equal(s2.from_tokens([token, token.upper(), padded]), [identity] * 3)


def test_tokens_of_many_cells() -> None:
    ids = s2.parents(s2.cell_ids(*random_points(3000, 7)).reshape(1000, 3), 17)
    texts = s2.tokens(ids)
    assert texts.shape == (1000, 3)
    np.testing.assert_array_equal(s2.from_tokens(texts), ids)
    np.testing.assert_array_equal(s2.from_tokens(texts.astype(object)[:, ::-1]), ids[:, ::-1])


@pytest.mark.parametrize(
    "text", ["", "0", "X", "89c2z", "89c2 ", "-9c25", "89c25900000000001", "e1", "2", "8\x009", "nan", "é1"]
)
def test_text_that_is_no_cell_s_token_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at position 1: not the token of an S2 cell"):
        s2.from_tokens(["89c259", text])


def test_tokens_that_were_read_as_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="read them as strings"):
        s2.from_tokens([890.0])


@given(st.integers(-(2**63), 2**63 - 1))
def test_validity_equals_the_reference(value: int) -> None:
    expected = bool(S2CellId(value % 2**64).is_valid())
    assert bool(s2.is_valid(value)) == expected
    assert s2.is_valid(np.array([value])).tolist() == [expected]


@pytest.mark.parametrize("transform", [s2.centres, s2.levels, s2.positions, s2.tokens])
def test_an_invalid_id_is_named(transform) -> None:
    good = int(s2.cell_ids(1, 2))
    for bad in (0, -1, 2, -(2**63)):
        with pytest.raises(ValueError, match=f"^{bad} at position 1: not the id of an S2 cell"):
            transform([good, bad, 0])
    with pytest.raises(ValueError, match="only integers"):
        transform([float(good)])


@pytest.mark.parametrize("level", [-1, 31])
def test_levels_outside_0_to_30_are_refused(level: int) -> None:
    for call in (
        lambda: s2.cell_ids(0, 0, level),
        lambda: s2.parents(s2.cell_ids(0, 0), level),
        lambda: s2.from_positions(0, level),
    ):
        with pytest.raises(ValueError, match="S2 levels are 0 to 30"):
            call()


def test_an_index_outside_its_level_is_refused() -> None:
    for index in (-1, 24):
        with pytest.raises(ValueError, match=f"^{index} at position 1: level 1 has 24 cells"):
            s2.from_positions([0, index], 1)
