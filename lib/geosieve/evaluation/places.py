"""Country, region, area and city of points, by the nearest town of `reverse_geocoder`, as OSV-5M counts them.

A name counts with those above it: two towns called Springfield are two cities. An image whose own place has no name at
a level is left out of that level. The nearest town is the nearest in plain degrees, which near the antimeridian and the
poles is not the nearest on Earth; published figures are made that way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import reverse_geocoder
from numpy.typing import NDArray

from geosieve.evaluation.continents import CONTINENT_OF
from geosieve.geo.arrays import F8

LEVELS = ("country", "region", "area", "city")
_COLUMNS = ("cc", "admin1", "admin2", "name")


@dataclass(frozen=True)
class Gazetteer:
    """Towns: names by level (m, 4), numbers that tell full names apart (m, 4), and whether there is a name (m, 4)."""

    names: NDArray[np.object_]
    numbers: NDArray[np.int32]
    named: NDArray[np.bool_]
    continent: NDArray[np.object_]

    def nearest(self, lat: F8, lon: F8) -> NDArray[np.int64]:
        """Row of the nearest town to each point (degrees, finite)."""
        tree = reverse_geocoder.RGeocoder(mode=1, verbose=False).tree
        return np.asarray(tree.query(np.column_stack([lat, lon]))[1], np.int64)


@lru_cache(maxsize=1)
def gazetteer() -> Gazetteer:
    """The towns of more than 1,000 people that reverse_geocoder brings; read once a process."""
    # mode=1: the other one starts processes of its own, which a Spark worker must not.
    towns = pd.DataFrame(reverse_geocoder.RGeocoder(mode=1, verbose=False).locations)
    numbers = [towns.groupby(list(_COLUMNS[: level + 1])).ngroup() for level in range(len(LEVELS))]
    names = towns[list(_COLUMNS)].to_numpy(object)
    continent = towns["cc"].map(CONTINENT_OF).fillna("unknown").to_numpy(object)
    return Gazetteer(names, np.column_stack(numbers).astype(np.int32), names != "", continent)


def hits(truth: NDArray[np.int64], answer: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the towns (rows of the gazetteer, shape (n,)) agree at each level, shape (n, 4); unnamed truth: no."""
    towns = gazetteer()
    return np.asarray((towns.numbers[truth] == towns.numbers[answer]) & towns.named[truth])
