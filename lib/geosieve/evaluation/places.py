"""Country, region, area and city of points: those of the nearest town in `reverse_geocoder`, as in OSV-5M.

Names are compared together with the names of all levels above: two towns called Springfield are different cities. An
image whose true place has no name at a level is not counted at that level. The nearest town is found by distance in
plain degrees. Near the antimeridian and the poles this may not be the nearest town on Earth, but published figures are
computed in this way.
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
    """m towns, at the four LEVELS.

    `names`: (m, 4). `numbers`: (m, 4), equal where the names of a level and of all levels above are equal. `named`:
    whether there is a name, (m, 4). `continent`: (m,).
    """

    names: NDArray[np.object_]
    numbers: NDArray[np.int32]
    named: NDArray[np.bool_]
    continent: NDArray[np.object_]

    def nearest(self, lat: F8, lon: F8) -> NDArray[np.int64]:
        """The row of the town nearest to each point, (n,). Points in degrees, finite, (n,)."""
        tree = reverse_geocoder.RGeocoder(mode=1, verbose=False).tree
        return np.asarray(tree.query(np.column_stack([lat, lon]))[1], np.int64)


@lru_cache(maxsize=1)
def gazetteer() -> Gazetteer:
    """The towns with more than 1,000 inhabitants that come with reverse_geocoder; read once per process."""
    # mode=1, because mode 2 starts processes, which a Spark worker must not do.
    towns = pd.DataFrame(reverse_geocoder.RGeocoder(mode=1, verbose=False).locations)
    numbers = [towns.groupby(list(_COLUMNS[: level + 1])).ngroup() for level in range(len(LEVELS))]
    names = towns[list(_COLUMNS)].to_numpy(object)
    continent = towns["cc"].map(CONTINENT_OF).fillna("unknown").to_numpy(object)
    return Gazetteer(names, np.column_stack(numbers).astype(np.int32), names != "", continent)


def hits(truth: NDArray[np.int64], answer: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether true and predicted town agree at each level, (n, 4). False where the true place has no name.

    Towns are rows of the gazetteer, (n,).
    """
    towns = gazetteer()
    return np.asarray((towns.numbers[truth] == towns.numbers[answer]) & towns.named[truth])
