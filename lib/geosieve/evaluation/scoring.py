"""Turn the rows of truth and predictions in Spark into arrays on the driver, with a few numbers per image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.evaluation import places
from geosieve.evaluation.continents import CONTINENTS
from geosieve.evaluation.inputs import stratum_column
from geosieve.evaluation.protocols import angles, geodesics_km
from geosieve.evaluation.scored import Answers, Scored, Stratum
from geosieve.labels.read import WITHOUT_REGION
from geosieve.runtime.errors import InputError
from geosieve.tables.arrow import chunks

MAX_IMAGES = 5_000_000
"""Maximum number of images in one run: the driver needs about 60 bytes per image, and 30 more for each system."""
MAX_VALUES = 100
"""Maximum number of values of a stratum."""
UNKNOWN = "unknown"
"""The value for images that have none."""
CONTINENT = "continent"

_LEVEL_BITS = 1 << np.arange(len(places.LEVELS))


@dataclass(frozen=True)
class Scorer:
    """Computes the scores of joined rows, in the Spark workers.

    `strata`: the values of each stratum, by its name. `areas`: whether each system reports areas. `towns`: whether to
    compare place names. `continent`: whether to look up the continent of the true position.
    """

    strata: dict[str, tuple[str, ...]]
    areas: tuple[bool, ...]
    towns: bool
    continent: bool

    @property
    def schema(self) -> str:
        """The schema of the output, as a Spark DDL string."""
        fields = ["key bigint", "named int", *(f"{stratum_column(name)} int" for name in self.strata)]
        fields += ["continent int"] if self.continent else []
        for k in range(len(self.areas)):
            fields += [f"angle_{k} double", f"geodesic_{k} double", f"area_{k} double", f"hits_{k} int"]
            fields.append(f"refused_{k} string")
        return ", ".join(fields)

    def score(self, rows: pa.Table) -> pa.Table:
        """Compute the columns of `schema`, one row per image.

        Input columns: key, lat, lon, the strata, and lat_k, lon_k, area_k, refused_k for system k. Positions are in
        degrees, areas in km²; both are null where there is none. refused_k is the error class of a refused prediction.

        In the output, angle_k is in radians and geodesic_k in km; refused_k is unchanged. Strata are indices of their
        values. In `named` and hits_k, bit l stands for level l of `places.LEVELS`.
        """
        lat, lon = _floats(rows["lat"]), _floats(rows["lon"])
        found: dict[str, NDArray[np.generic] | pa.Array] = {"key": rows["key"].to_numpy()}
        truth = places.gazetteer().nearest(lat, lon) if self.towns or self.continent else None
        found["named"] = _bits(places.gazetteer().named[truth]) if self.towns else np.zeros(len(lat), np.int32)
        for name, values in self.strata.items():
            texts = pc.fill_null(rows[stratum_column(name)], UNKNOWN)
            found[stratum_column(name)] = pc.index_in(texts, pa.array(values)).to_numpy().astype(np.int32)
        if self.continent:
            continents = pa.array(places.gazetteer().continent[truth])
            found["continent"] = pc.index_in(continents, pa.array(CONTINENTS)).to_numpy().astype(np.int32)
        for k, has_area in enumerate(self.areas):
            found |= self._answer(k, rows, lat, lon, truth, has_area)
        return pa.table(found)

    def _answer(
        self,
        k: int,
        rows: pa.Table,
        lat: NDArray[np.float64],
        lon: NDArray[np.float64],
        truth: NDArray[np.int64] | None,
        has_area: bool,
    ) -> dict[str, NDArray[np.generic] | pa.Array]:
        answer_lat, answer_lon = _floats(rows[f"lat_{k}"]), _floats(rows[f"lon_{k}"])
        there = ~np.isnan(answer_lat)
        angle, geodesic = np.full((2, lat.size), np.nan)
        hits = np.zeros(lat.size, np.int32)
        points = lat[there], lon[there], answer_lat[there], answer_lon[there]
        angle[there], geodesic[there] = angles(*points), geodesics_km(*points)
        if self.towns and truth is not None:
            answered = places.gazetteer().nearest(*points[2:])
            hits[there] = _bits(places.hits(truth[there], answered))
        area = _floats(rows[f"area_{k}"]) if has_area else np.full(lat.size, np.nan)
        found = {"angle": angle, "geodesic": geodesic, "area": area, "hits": hits, "refused": rows[f"refused_{k}"]}
        return {f"{name}_{k}": values for name, values in found.items()}


def stratum_values(rows: DataFrame, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The values of each stratum that occur in `rows`: numbers in ascending order, then words in alphabetical order.

    Null counts as UNKNOWN. InputError if a stratum has more than MAX_VALUES values.
    """
    if not names:
        return {}

    def unique(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            for name in names:
                # One value more than allowed suffices to detect that there are too many.
                values = pc.unique(pc.fill_null(chunk[stratum_column(name)], UNKNOWN))[: MAX_VALUES + 1]
                yield pa.RecordBatch.from_arrays([pa.array([name] * len(values)), values], ["name", "value"])

    columns = rows.select(*(stratum_column(name) for name in names))
    found = columns.mapInArrow(unique, "name string, value string").distinct().toPandas()
    values = {name: tuple(sorted(group["value"], key=_rank)) for name, group in found.groupby("name")}
    for name in names:
        if len(values.get(name, ())) > MAX_VALUES:
            raise InputError(
                f"stratum {name} has more than {MAX_VALUES} values",
                where="truth.strata",
                hint="group them first; a figure of a handful of images says little",
            )
    return {name: values.get(name, ()) for name in names}


def _rank(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def collect_scores(
    truth: DataFrame, systems: dict[str, DataFrame], scorer: Scorer, regions: Mapping[str, Mapping[str, str]]
) -> Scored:
    """Score all images of `truth`, and return them sorted by key.

    `truth`: columns image_id, lat, lon and the strata. `systems`: for each system, columns image_id, lat, lon, area_km2
    (null where there is none) and error_class (null unless the row is refused); ids are unique. `regions`: for strata
    that are partitions, the region name of each value.
    """
    strata = [stratum_column(name) for name in scorer.strata]
    joined = truth.select("image_id", "lat", "lon", *strata)
    for k, answers in enumerate(systems.values()):
        values = (f"if(error_class IS NULL, {ours}, NULL) AS {short}_{k}" for ours, short in _SHORT.items())
        # Both sides are already partitioned by id, and a hash table is cheaper than sorting texts.
        columns = answers.selectExpr("image_id", *values, f"error_class AS refused_{k}")
        joined = joined.join(columns.hint("shuffle_hash"), "image_id", "left")
    keyed = joined.withColumn("key", F.xxhash64("image_id")).drop("image_id")

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            yield from scorer.score(chunk).to_batches()

    rows = keyed.mapInArrow(score, scorer.schema).toPandas()
    rows = rows.sort_values("key", kind="stable", ignore_index=True)
    return _scored(rows, list(systems), scorer, regions)


_SHORT = {"lat": "lat", "lon": "lon", "area_km2": "area"}


def _scored(rows: pd.DataFrame, systems: list[str], scorer: Scorer, regions: Mapping[str, Mapping[str, str]]) -> Scored:
    strata = [
        named_stratum(name, values, rows[stratum_column(name)].to_numpy(np.int32), regions.get(name))
        for name, values in scorer.strata.items()
    ]
    if scorer.continent:
        strata.append(named_stratum(CONTINENT, CONTINENTS, rows["continent"].to_numpy(np.int32)))
    answers = {
        name: Answers(
            rows[f"angle_{k}"].to_numpy(),
            rows[f"geodesic_{k}"].to_numpy(),
            rows[f"area_{k}"].to_numpy() if scorer.areas[k] else None,
            _levels(rows[f"hits_{k}"]) if scorer.towns else None,
            pd.Categorical(rows[f"refused_{k}"]),
        )
        for k, name in enumerate(systems)
    }
    named = _levels(rows["named"]) if scorer.towns else None
    return Scored(rows["key"].to_numpy(np.int64).view(np.uint64), answers, tuple(strata), named)


def named_stratum(
    name: str, values: Sequence[str], codes: NDArray[np.int32], regions: Mapping[str, str] | None = None
) -> Stratum:
    """Build a stratum whose blanks come last. `codes`: the index into `values` for each image, (n,).

    `regions`: the region name of each value, if the values are labels of a partition. Regions with the same name become
    one value. If a region has the same name as a blank (e.g. "outside"), the blank is put in brackets.
    """
    blanks = {UNKNOWN: UNKNOWN} | ({str(k): word for k, word in WITHOUT_REGION.items()} if regions is not None else {})
    named = [(regions or {}).get(value, value) for value in values]
    buckets = dict.fromkeys(own for value, own in zip(values, named, strict=True) if value not in blanks)
    words = {value: f"({word})" if word in buckets else word for value, word in blanks.items()}
    shown = [words.get(value, own) for value, own in zip(values, named, strict=True)]
    place = {word: code for code, word in enumerate(dict.fromkeys([*buckets, *shown]))}
    merged = np.array([place[word] for word in shown], np.int32)
    return Stratum(name, tuple(place), merged[codes], len(place) - len(buckets))


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy())


def _bits(levels: NDArray[np.bool_]) -> NDArray[np.int32]:
    return (levels @ _LEVEL_BITS).astype(np.int32)


def _levels(bits: pd.Series[int]) -> NDArray[np.bool_]:
    return np.asarray((bits.to_numpy()[:, None] & _LEVEL_BITS) != 0)
