"""Which rank reads what: every row once, the same whoever asks, and an epoch continued by any number of ranks."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosieve.runtime.errors import ConfigError
from geosieve.training.plan import Part, after, deal, full_batches, remaining, row_order, shuffled, taken_of

FILES = st.lists(st.integers(1, 40), min_size=12, max_size=30)


def rows_of(parts: list[Part], rows: list[int]) -> Counter[tuple[int, int]]:
    return Counter((part.file, place) for part in parts for place in range(part.start, rows[part.file]))


@given(FILES, st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))
def test_every_row_goes_to_one_stream(rows: list[int], ranks: int, streams: int, epoch: int) -> None:
    dealt = deal(shuffled(len(rows), 7, epoch), rows, ranks, streams)
    assert len(dealt) == ranks and all(len(of_rank) == streams for of_rank in dealt)
    found = rows_of([part for of_rank in dealt for parts in of_rank for part in parts], rows)
    assert found == Counter((file, place) for file, n in enumerate(rows) for place in range(n))
    loads = [sum(rows[part.file] for part in parts) for of_rank in dealt for parts in of_rank]
    assert max(loads) - min(loads) <= max(rows)


@given(FILES, st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.data())
def test_what_is_left_and_what_was_taken_are_all_rows(
    rows: list[int], ranks: int, streams: int, batch: int, data: st.DataObject
) -> None:
    dealt = deal(shuffled(len(rows), 3, 1), rows, ranks, streams)
    most = min(full_batches(of_rank, rows, batch) for of_rank in dealt)
    batches = data.draw(st.integers(0, most))
    taken: Counter[tuple[int, int]] = Counter()
    for of_rank in dealt:
        readers = [
            iter([(part.file, place) for part in parts for place in range(part.start, rows[part.file])])
            for parts in of_rank
        ]
        for number in range(batches):  # as a rank reads: a batch of each stream in turn
            taken.update(next(readers[number % streams]) for _ in range(batch))
    left = rows_of(remaining(dealt, rows, batches, batch), rows)
    assert taken + left == Counter((file, place) for file, n in enumerate(rows) for place in range(n))
    assert sum(taken.values()) == ranks * batches * batch


def test_rows_of_batches_by_hand() -> None:
    rows = [5, 3, 4]
    assert after([Part(0), Part(1), Part(2)], rows, 6) == (Part(1, 1), Part(2))
    assert after([Part(0), Part(1)], rows, 5) == (Part(1),)
    assert after([Part(2, 1)], rows, 3) == ()
    # Three streams, four batches of 10: the first stream gave two of them.
    assert [taken_of(stream, 3, 4, 10) for stream in range(3)] == [20, 10, 10]
    assert full_batches(((Part(0),), (Part(1), Part(2))), rows, 2) == 2 * min(5 // 2, 7 // 2)


def test_orders_change_with_the_epoch_and_nothing_else() -> None:
    assert (row_order(1, 2, 3, 50) == row_order(1, 2, 3, 50)).all()
    assert sorted(row_order(1, 2, 3, 50)) == list(range(50))
    others = [row_order(2, 2, 3, 50), row_order(1, 3, 3, 50), row_order(1, 2, 4, 50)]
    assert all((row_order(1, 2, 3, 50) != other).any() for other in others)
    assert shuffled(9, 1, 0) == shuffled(9, 1, 0) != shuffled(9, 1, 1)


def test_fewer_files_than_streams_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 files for 2 ranks with 2 streams"):
        deal(shuffled(3, 1, 0), [10, 10, 10], 2, 2)
