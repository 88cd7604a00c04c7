"""Tables of predictions that somebody's models have made: one row per image and predictor.

| error_class | the image |
|---|---|
| missing_id | a row has no id, or no source |
| duplicate_prediction | has two rows of one predictor |
| wrong_length | has another number of probabilities than the partition has regions |
| wrong_region | names a region that the partition does not have, or one twice |
| not_probabilities | has probabilities that are negative, not finite, or not 1 in sum (to 1e-3) |

One such row refuses the whole image: an answer without it would be another one than asked for. A row without an array,
and no row, mean that the predictor says nothing about the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType, NumericType, StructType

from geosieve.ensemble.members import SUM_TOLERANCE
from geosieve.geo.arrays import F8, I8
from geosieve.inference.ranking_config import PredictionsInput
from geosieve.overlay.atoms import Overlay
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import advice
from geosieve.tables.schemas import IMAGE_KEY

MEMBER, DENSE, LOGS, SPARSE, REST = "member", "dense", "logs", "sparse", "rest"


@dataclass(frozen=True)
class Counts:
    """What there is: images, rows without an id, and images with two rows of one predictor."""

    images: int
    without_id: int
    repeated: int


def open_predictions(
    spark: SparkSession, inputs: Sequence[PredictionsInput], members: Mapping[str, str], overlay: Overlay
) -> DataFrame:
    """The rows of all tables: IMAGE_KEY, MEMBER, and one of DENSE, or SPARSE and REST; LOGS: DENSE are logarithms.

    `members`: partitions by the names of members. InputError if a table lacks a column, has one of another type, has
    rows of a predictor that is no member, or of one over another partition than the overlay's, or if no table has a row
    of a member.
    """
    frames = [_opened(spark, given) for given in inputs]
    hashes = {partition.name: partition.digest for partition in overlay.partitions}
    seen = set()
    for given, frame in zip(inputs, frames, strict=True):
        for row in sorted(frame.select(MEMBER, "partition_hash").distinct().collect(), key=str):
            _check_member(given.uri, row[MEMBER], row["partition_hash"], members, hashes)
            seen.add(row[MEMBER])
    lost = [name for name in members if name not in seen]
    if lost:
        raise InputError(
            f"no prediction of {', '.join(lost)}",
            where=", ".join(given.uri for given in inputs),
            hint="all answers would be without it: add its table, or take it out of the members",
        )
    kinds = {frame.schema[DENSE].dataType.simpleString() for frame in frames} - {"void"}
    array = "array<float>" if kinds <= {"array<float>"} else "array<double>"
    dense = F.col(DENSE).cast(array).alias(DENSE)
    cast = [frame.select(*IMAGE_KEY, MEMBER, dense, LOGS, SPARSE, REST) for frame in frames]
    return reduce(DataFrame.unionByName, cast)


def _opened(spark: SparkSession, given: PredictionsInput) -> DataFrame:
    columns = given.columns
    try:
        raw = spark.read.parquet(given.uri)
    except Exception as error:
        if type(error).__name__ != "AnalysisException":
            raise
        raise InputError(f"no Parquet files can be read there: {str(error)[:200]}", where=given.uri) from error
    stated = {
        columns.source: given.source,
        columns.predictor: given.predictor,
        columns.partition_hash: given.partition_hash,
    }
    needed = [columns.image_id, columns.values, *(name for name, value in stated.items() if value is None)]
    needed += [columns.rest] if given.form == "sparse" else []
    for name in needed:
        if name not in raw.columns:
            raise InputError(
                f"no column {name!r}",
                where=given.uri,
                hint=advice(name, raw.columns, "it has")
                + "; predictions.columns names them, or state one value for all",
            )
    found = raw.select(
        (F.lit(given.source) if given.source is not None else F.col(columns.source).cast("string")).alias("source"),
        F.col(columns.image_id).cast("string").alias("image_id"),
        (F.lit(given.predictor) if given.predictor is not None else F.col(columns.predictor)).alias(MEMBER),
        (F.lit(given.partition_hash) if given.partition_hash is not None else F.col(columns.partition_hash)).alias(
            "partition_hash"
        ),
        F.col(columns.values).alias("values"),
        (F.col(columns.rest).cast("double") if given.form == "sparse" else F.lit(None).cast("double")).alias(REST),
    )
    kind = found.schema["values"].dataType
    pairs = "array<struct<region:bigint,probability:double>>"
    if given.form == "sparse":
        element = kind.elementType if isinstance(kind, ArrayType) else None
        if not (isinstance(element, StructType) and {"region", "probability"} <= set(element.names)):
            raise InputError(f"column {columns.values!r} is {kind.simpleString()}, not {pairs}", where=given.uri)
        named = F.transform(
            "values",
            lambda pair: F.struct(
                pair["region"].cast("bigint").alias("region"), pair["probability"].cast("double").alias("probability")
            ),
        )
        return found.select(
            *IMAGE_KEY,
            MEMBER,
            "partition_hash",
            F.lit(None).alias(DENSE),
            F.lit(False).alias(LOGS),
            named.alias(SPARSE),
            REST,
        )
    if not (isinstance(kind, ArrayType) and isinstance(kind.elementType, NumericType)):
        raise InputError(
            f"column {columns.values!r} is {kind.simpleString()}, not an array of numbers", where=given.uri
        )
    dense = F.col("values") if isinstance(kind.elementType, FloatType) else F.col("values").cast("array<double>")
    logs = F.lit(given.form == "log_probabilities").alias(LOGS)
    return found.select(
        *IMAGE_KEY, MEMBER, "partition_hash", dense.alias(DENSE), logs, F.lit(None).cast(pairs).alias(SPARSE), REST
    )


def _check_member(where: str, member: str, digest: str, members: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    if member not in members:
        raise InputError(
            f"rows of predictor {member!r}", where=where, hint=advice(str(member), list(members), "members")
        )
    wanted = hashes[members[member]]
    if digest != wanted:
        raise InputError(
            f"{member} is over another partition than the overlay's {members[member]}: hash {str(digest)[:12]}, "
            f"not {wanted[:12]}",
            where=where,
            hint="use an overlay of the partition that the predictor tells, or state its hash if no column does",
        )


def count(rows: DataFrame, members: Iterable[str]) -> Counts:
    """Count images, without reading any array. `members`: of which there are rows."""
    known = F.col("source").isNotNull() & F.col("image_id").isNotNull()
    by_member = [F.count_if(F.col(MEMBER) == name) for name in members]
    most = F.greatest(F.lit(0), *by_member).alias("most")
    (found,) = (
        rows.groupBy(*IMAGE_KEY)
        .agg(F.count("*").alias("n"), most)
        .agg(
            F.count_if(known).alias("images"),
            F.coalesce(F.sum(F.when(~known, F.col("n"))), F.lit(0)).alias("without_id"),
            F.count_if(known & (F.col("most") > 1)).alias("repeated"),
        )
        .collect()
    )
    return Counts(found["images"], found["without_id"], found["repeated"])


@dataclass(frozen=True)
class Gathered:
    """Some images: their keys, probabilities by member, (images, regions), NaN where there are none, and refusals.

    `refused`: error class and message, by the number of the image. `defect`: how far the sum of given log-probabilities
    was from 1, at most.
    """

    source: pa.Array
    image_id: pa.Array
    values: dict[str, F8]
    refused: dict[int, tuple[str, str]]
    defect: float


def gather(rows: pa.Table, sizes: Mapping[str, F8]) -> Gathered:
    """Put the rows of some images together. All rows of an image are there, one after the other.

    `sizes`: the areas of the regions of each member's partition, km², (regions,), by which a rest is spread.
    """
    rows = rows.combine_chunks()
    image, first = image_numbers(rows)
    member = rows[MEMBER].to_pylist()
    refused: dict[int, tuple[str, str]] = {}
    values, defect = {}, 0.0
    for name, area in sizes.items():
        mine = np.flatnonzero(np.array([one == name for one in member], dtype=bool))
        held = np.full((first.size, area.size), np.nan)
        if mine.size:
            of = image[mine]
            for k in np.flatnonzero(np.bincount(of) > 1):
                refused.setdefault(int(k), ("duplicate_prediction", f"two rows of predictor {name}"))
            faults, off = _fill(held, rows, mine, of, area)
            defect = max(defect, off)
            for k, (error, message) in faults.items():
                refused.setdefault(k, (error, f"predictor {name}: {message}"))
        values[name] = held
    for k in refused:
        for held in values.values():
            held[k] = np.nan
    keys = rows.take(pa.array(first))
    return Gathered(keys["source"], keys["image_id"], values, refused, defect)


def image_numbers(rows: pa.Table) -> tuple[I8, I8]:
    """The number of each row's image, from 0, and the first row of each image."""
    new = np.ones(len(rows), bool)
    if len(rows) > 1:
        same = [np.asarray(rows[name].to_numpy()[1:] == rows[name].to_numpy()[:-1], dtype=bool) for name in IMAGE_KEY]
        new[1:] = ~(same[0] & same[1])
    return np.cumsum(new) - 1, np.flatnonzero(new)


def _fill(held: F8, rows: pa.Table, mine: I8, of: I8, area: F8) -> tuple[dict[int, tuple[str, str]], float]:
    """Put the probabilities of one member's rows, `mine`, into the rows `of` of `held`, (images, regions).

    `rows`: a table of one chunk. Returns what is wrong, by image, and the greatest defect of a sum. Of each array there
    is one copy, and few passes.
    """
    faults: dict[int, tuple[str, str]] = {}
    dense, sparse = rows[DENSE].chunk(0), rows[SPARSE].chunk(0)  # `combine_chunks` would copy all members' arrays
    lengths = np.nan_to_num(np.asarray(dense.value_lengths().to_numpy(zero_copy_only=False), float), nan=-1)[mine]
    for k in np.flatnonzero((lengths >= 0) & (lengths != area.size)):
        faults[int(of[k])] = ("wrong_length", f"{lengths[k]:.0f} probabilities of {area.size} regions")
    whole = np.flatnonzero(lengths == area.size)
    if whole.size:
        numbers, starts = dense.values.to_numpy(zero_copy_only=False), dense.offsets.to_numpy()[mine]
        for k in whole:
            held[of[k]] = numbers[starts[k] : starts[k] + area.size]
    logs = of[whole[rows[LOGS].to_numpy()[mine][whole]]]
    defect = 0.0
    if logs.size:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            top = held[logs].max(axis=1, keepdims=True)
            p = np.exp(held[logs] - top)
            total = p.sum(axis=1, keepdims=True)
            off = np.abs(np.exp(top) * total - 1)
            held[logs] = p / total
        defect = float(np.nan_to_num(off).max())
    pairs = np.flatnonzero(np.asarray(sparse.is_valid())[mine])
    for k in pairs:
        row = int(mine[k])
        fault = _spread(sparse[row].as_py(), rows[REST][row].as_py(), area, held[of[k]])
        if fault is not None:
            faults[int(of[k])] = fault
    said = np.setdiff1d(of[np.concatenate([whole, pairs])], list(faults)).astype(np.int64)
    some = held if said.size == len(held) else held[said]
    with np.errstate(invalid="ignore"):
        least, total = some.min(axis=1, initial=np.inf), some.sum(axis=1)
        bad = ~((least >= 0) & (np.abs(total - 1) <= SUM_TOLERANCE))
    for k, low, mass in zip(said[bad], least[bad], total[bad], strict=True):
        faults[int(k)] = ("not_probabilities", f"the least of them is {low:.6g}, their sum {mass:.6g}")
    return faults, defect


def _spread(pairs: list[dict[str, float | None]], rest: float | None, area: F8, into: F8) -> tuple[str, str] | None:
    """Probabilities of all regions from those of some, and a rest for the others in proportion to their areas."""
    region = np.array([-1 if pair is None or pair["region"] is None else pair["region"] for pair in pairs], np.int64)
    p = np.array([np.nan if pair is None or pair["probability"] is None else pair["probability"] for pair in pairs])
    if region.size and (region.min() < 0 or region.max() >= area.size or np.unique(region).size < region.size):
        return "wrong_region", f"regions are 0 to {area.size - 1}, each once"
    into[:] = area
    into[region] = 0.0
    left = into.sum()
    missing = 0.0 if rest is None else rest
    if left > 0:
        into *= missing / left
    into[region] = p
    return None
