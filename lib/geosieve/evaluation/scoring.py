"""From rows of truth and predictions in Spark to the short rows of numbers that the driver evaluates."""

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
"""Images that one run evaluates: the driver holds some 60 bytes of each, and 30 a system."""
MAX_VALUES = 100
"""Values that a stratum may have."""
UNKNOWN = "unknown"
"""The value of images that have none."""
CONTINENT = "continent"

_LEVEL_BITS = 1 << np.arange(len(places.LEVELS))


@dataclass(frozen=True)
class Scorer:
    """Turns joined rows into numbers; lives in the workers.

    `strata`: values by name; `areas`: whether each system has areas; `towns`: whether to look up towns.
    """

    strata: dict[str, tuple[str, ...]]
    areas: tuple[bool, ...]
    towns: bool
    continent: bool

    @property
    def schema(self) -> str:
        """Of the output, as Spark's DDL."""
        fields = ["key bigint", "named int", *(f"{stratum_column(name)} int" for name in self.strata)]
        fields += ["continent int"] if self.continent else []
        for k in range(len(self.areas)):
            fields += [f"angle_{k} double", f"geodesic_{k} double", f"area_{k} double", f"hits_{k} int"]
        return ", ".join(fields)

    def score(self, rows: pa.Table) -> pa.Table:
        """Columns of `schema` of joined rows: key, lat, lon, strata, and lat_k, lon_k, area_k of system k."""
        lat, lon = _floats(rows["lat"]), _floats(rows["lon"])
        found: dict[str, NDArray[np.generic]] = {"key": rows["key"].to_numpy()}
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
    ) -> dict[str, NDArray[np.generic]]:
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
        return {f"angle_{k}": angle, f"geodesic_{k}": geodesic, f"area_{k}": area, f"hits_{k}": hits}


def stratum_values(rows: DataFrame, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Values of each stratum, numbers by size and before words. InputError if one has more than MAX_VALUES."""
    if not names:
        return {}

    def unique(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            for name in names:
                # One more than allowed is enough to refuse.
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
    """Scores of all images of `truth`, in the order of their keys. `regions`: names of values of strata of labels.

    Rows need image_id, lat, lon, and of systems area_km2 (null where there is none).
    """
    strata = [stratum_column(name) for name in scorer.strata]
    joined = truth.select("image_id", "lat", "lon", *strata)
    for k, answers in enumerate(systems.values()):
        renamed = (F.col(ours).alias(f"{short}_{k}") for ours, short in _SHORT.items())
        # Both sides are in place by id, and a hash table costs less than sorting texts.
        joined = joined.join(answers.select("image_id", *renamed).hint("shuffle_hash"), "image_id", "left")
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
        )
        for k, name in enumerate(systems)
    }
    named = _levels(rows["named"]) if scorer.towns else None
    return Scored(rows["key"].to_numpy(np.int64).view(np.uint64), answers, tuple(strata), named)


def named_stratum(
    name: str, values: Sequence[str], codes: NDArray[np.int32], regions: Mapping[str, str] | None = None
) -> Stratum:
    """The stratum of images with values[codes], blanks last. `regions`: names of values, where they are labels.

    Regions of one name are one value. A blank stands in brackets where a region is called so.
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
