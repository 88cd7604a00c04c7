"""Content hashes: the same for the same facts, whatever computed them."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from geosieve.runtime.identity import content_digest, nanodegrees


def digest(**facts: object) -> str:
    return content_digest("test", 1, facts)


def test_the_form_is_the_documented_one() -> None:
    # By hand: kind, version, facts with sorted keys; numbers of 12 significant digits.
    text = '["density",1,{"edges":[1,10.5,123.456789012],"units":"physical"}]'
    facts = {"units": "physical", "edges": [1.0, 10.5, 123.4567890123]}
    assert content_digest("density", 1, facts) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("number", [0.1, 1 / 3, 12345.678, 1e-9, 3.4e38, -2.5e-7])
def test_the_last_bits_of_a_number_do_not_count(number: float) -> None:
    up, down = math.nextafter(number, math.inf), math.nextafter(number, -math.inf)
    assert digest(x=number) == digest(x=up) == digest(x=down)
    assert digest(x=number) != digest(x=number * (1 + 1e-10))


def test_one_number_has_one_form() -> None:
    assert digest(x=1) == digest(x=1.0) == digest(x=np.float32(1)) == digest(x=np.int16(1))
    assert digest(x=[1, 2]) == digest(x=(1.0, 2.0)) == digest(x=np.array([1, 2]))
    assert digest(x=0.0) == digest(x=-0.0)


def test_what_differs_differs() -> None:
    every = [digest(), digest(x=None), digest(x=True), digest(x="1"), digest(x=1), digest(x=[1]), digest(y=1)]
    every += [
        digest(x=[[1]]),
        digest(x=[1, 2]),
        digest(x=[2, 1]),
        digest(x=float("nan")),
        digest(x=float("inf")),
        digest(x=b"1"),
    ]
    every += [content_digest("other", 1, {}), content_digest("test", 2, {})]
    assert len(set(every)) == len(every)


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        digest(x={1})


def test_positions_are_rounded_to_a_tenth_of_a_millimetre() -> None:
    assert nanodegrees([-179.9999999994, 1e-10, 48.8566140]).tolist() == [-179_999_999_999, 0, 48_856_614_000]
