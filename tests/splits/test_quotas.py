"""How many images a cap or a balance keeps, against every possible number of small problems."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosieve.runtime.errors import InputError
from geosieve.splits.quotas import balanced, capped

NAMES = "ab"
counts_of = st.fixed_dictionaries({name: st.integers(0, 12) for name in "abc"})
shares_of = st.dictionaries(st.sampled_from(NAMES), st.fractions("1/50", 1, max_denominator=50), min_size=1)


def test_an_eighth_of_the_set_as_it_is_after_the_cap() -> None:
    # 7000 others: 1000 urban images are 1000 / 8000 = 12.5 %, and one more would be too many
    assert capped({"urban": 5000, "crops": 4000, "trees": 3000}, {"urban": Fraction(1, 8)}) == {"urban": 1000}
    assert capped({"urban": 5000, "crops": 6999}, {"urban": Fraction(1, 8)}) == {"urban": 999}
    assert capped({"urban": 999, "crops": 7000}, {"urban": Fraction(1, 8)}) == {"urban": 999}


def test_two_caps_are_shares_of_one_whole() -> None:
    # 40 + 20 of 100 besides 40 others
    shares = {"urban": Fraction(2, 5), "crops": Fraction(1, 5)}
    assert capped({"urban": 900, "crops": 900, "trees": 40}, shares) == {"urban": 40, "crops": 20}


def test_millions_of_images_and_a_share_near_one() -> None:
    share = Fraction(999_999, 1_000_000)
    assert capped({"urban": 10**12, "trees": 3}, {"urban": share}) == {"urban": 3 * 999_999}


@given(counts_of, shares_of)
def test_no_greater_numbers_respect_the_caps(counts: dict[str, int], shares: dict[str, Fraction]) -> None:
    free = sum(n for name, n in counts.items() if name not in shares)
    names = sorted(shares)
    fitting = [
        kept
        for kept in product(*(range(counts[name] + 1) for name in names))
        if all(n <= shares[name] * (free + sum(kept)) for name, n in zip(names, kept, strict=True))
    ]
    greatest = [max(column) for column in zip(*fitting, strict=True)]
    if free + sum(greatest) == 0 and sum(counts.values()):
        with pytest.raises(InputError, match="leave nothing"):
            capped(counts, shares)
    else:
        assert capped(counts, shares) == dict(zip(names, greatest, strict=True))


def test_as_many_as_the_smallest_bucket_or_as_asked() -> None:
    counts = {"lowest": 900, "low": 70, "medium": 40, "high": 17}
    assert balanced(counts, None) == 17
    assert balanced(counts, 10) == 10
    with pytest.raises(InputError, match="18 images are asked of every region, but 'high' has 17"):
        balanced(counts, 18)


def test_empty_buckets_are_named() -> None:
    with pytest.raises(InputError, match="no image in 'high', 'medium'"):
        balanced({"lowest": 9, "medium": 0, "high": 0}, 1)
