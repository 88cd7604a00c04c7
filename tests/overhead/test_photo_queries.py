"""Queries are divided so that every photo belongs to exactly one part."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from geosieve.overhead.harvest_config import Box
from geosieve.overhead.queries import Query, divided, millionths

WORLD = Query(-90_000_000, -180_000_000, 90_000_000, 180_000_000, 0, 1000)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    south, north = sorted(draw(st.lists(st.integers(-90_000_000, 90_000_000), min_size=2, max_size=2, unique=True)))
    west, east = sorted(draw(st.lists(st.integers(-180_000_000, 180_000_000), min_size=2, max_size=2, unique=True)))
    if draw(st.booleans()):
        north, east = (
            min(90_000_000, south + draw(st.integers(1, 80))),
            min(180_000_000, west + draw(st.integers(1, 80))),
        )
    begin = draw(st.integers(0, 10))
    return Query(south, west, north, east, begin, begin + draw(st.integers(1, 9)))


def within(query: Query) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(query.south, query.north), st.integers(query.west, query.east))


@given(st.data())
def test_each_photo_of_a_query_is_in_exactly_one_part(data: st.DataObject) -> None:
    query = data.draw(queries())
    sample = data.draw(st.lists(within(query), max_size=9))
    parts = divided(query, sample)
    position = data.draw(st.one_of(within(query), st.sampled_from(sample)) if sample else within(query))
    uploaded = data.draw(st.integers(query.begin - 1, query.end))
    holders = [part for part in parts if part.has(position, uploaded)]
    if parts:
        assert len(holders) == query.has(position, uploaded)
        # Borders of parts are positions, too.
        for part in parts:
            corner = (part.north, part.east)
            assert sum(other.has(corner, part.begin) for other in parts) == query.has(corner, part.begin)
    else:
        assert query.end - query.begin == 1 and min(query.north - query.south, query.east - query.west) < 16


def test_divisions_come_to_an_end_even_if_all_samples_lie_in_a_corner() -> None:
    query, steps = WORLD, 0
    while parts := divided(query, [(query.south, query.west), (query.south + 1, query.west)]):
        query = max(
            parts, key=lambda part: (part.north - part.south) * (part.east - part.west) * (part.end - part.begin)
        )
        steps += 1
    assert steps < 200  # 7/8 of each side remain: 1.8e8 and 3.6e8 millionths are below 16 after 122 and 127 steps


def test_medians_divide_a_sample_into_equal_parts() -> None:
    sample = [(lat * lat * 1000, lon * lon * 1000) for lat in range(20) for lon in range(20)]
    query = Query(0, 0, 400_000, 400_000, 0, 100)
    counts = [sum(part.has(position, 5) for position in sample) for part in divided(query, sample)]
    assert sum(counts) == 400 and max(counts) == 100


def test_a_crowd_at_one_place_is_divided_by_time() -> None:
    query = Query(0, 0, 1_000_000, 1_000_000, 100, 200)
    parts = divided(query, [(5, 5)] * 9 + [(7, 9)] * 8)
    assert [(part.begin, part.end) for part in parts] == [(100, 125), (125, 150), (150, 175), (175, 200)]
    assert {(part.south, part.west, part.north, part.east) for part in parts} == {(0, 0, 1_000_000, 1_000_000)}


def test_borders_at_the_pole_and_at_180_belong_to_the_last_box() -> None:
    assert WORLD.has((90_000_000, 180_000_000), 999) and not WORLD.has((90_000_000, 180_000_000), 1000)
    smaller = Query(0, 0, 10, 10, 0, 1)
    assert not smaller.has((10, 5), 0) and smaller.borders((10, 5), 0) and not smaller.borders((11, 5), 0)
    assert smaller.has((0, 0), 0) and not smaller.borders((0, 0), 0)


def test_positions_are_rounded_down_exactly() -> None:
    assert [millionths(Decimal(text)) for text in ("48.858370", "-0.0000001", "0.9999999", "-33.5")] == [
        *(48_858_370, -1, 999_999, -33_500_000)
    ]


def test_a_box_across_180_is_two_queries() -> None:
    box = Box(south=-20, west=170, north=-10, east=-170)
    west, east = box.queries(0, 1)
    assert (west.west, west.east, east.west, east.east) == (170_000_000, 180_000_000, -180_000_000, -170_000_000)
