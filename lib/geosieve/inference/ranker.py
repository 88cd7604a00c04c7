"""From probabilities of images to answers, in Spark tasks: what ranks them is made once, on the driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.ensemble.conformal import ConformalSets
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities, mask_prior, prior
from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.inference.answers import Answer, Answerer
from geosieve.inference.artefact import FittedEnsemble, load_ensemble
from geosieve.inference.given import Gathered
from geosieve.inference.ranking_config import AnswerConfig, PriorConfig
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import read_published
from geosieve.runtime.errors import ConfigError
from geosieve.runtime.names import advice
from geosieve.tables.schemas import IMAGE_KEY, IMAGE_SUMMARY


def read_ranker(spark: SparkSession, config: AnswerConfig) -> tuple[Ranker, FittedEnsemble | None]:
    """What ranks images as they are asked for, and the ensemble artefact, if the configuration names one.

    InputError if there is no such overlay, or if the artefact was changed or fitted over another one; ConfigError if
    the overlay lacks a partition, or the artefact the coverage.
    """
    published = read_published(spark, config.overlay)
    overlay = published.overlay()
    fitted = None if config.ensemble is None else load_ensemble(config.ensemble, overlay)
    bounds = published.atoms[["south", "west", "north", "east"]].to_numpy(np.float64)
    return Ranker.of(_answerer(config, overlay, fitted), bounds, config.told_coverage), fitted


def _answerer(config: AnswerConfig, overlay: Overlay, fitted: FittedEnsemble | None) -> Answerer:
    """The ensemble over the overlay, and what is asked of it."""
    names = [partition.name for partition in overlay.partitions]
    for kind, given in (("members", config.members), ("priors", config.priors)):
        for name, one in given.items():
            if one.partition not in names:
                told = advice(one.partition, names, "the overlay has")
                raise ConfigError(f"no partition {one.partition!r}: {told}", where=f"{kind}.{name}.partition")
    sets = None
    if fitted is not None:
        members = fitted.ensemble.members
        if config.told_coverage is not None:
            sets = _sets_of(config, fitted.by_stratum if config.by_stratum else fitted.marginal)
    else:
        members = tuple(
            EnsembleMember(name, one.partition, one.weight, one.temperature) for name, one in config.members.items()
        )
        if config.told_coverage is not None:
            thresholds = {coverage: np.array([threshold]) for coverage, threshold in config.thresholds.items()}
            sets = _sets_of(config, {c: ConformalSets(c, of, None) for c, of in thresholds.items()})
    taken = sorted({member.name for member in members} & config.priors.keys())
    if taken:
        raise ConfigError(f"the ensemble has a member {taken[0]!r}", where="priors", hint="give the prior another name")
    priors = tuple(_prior(overlay, name, one) for name, one in config.priors.items())
    ensemble = Ensemble(overlay, (*members, *priors))
    if config.least_km2 is not None and overlay.area_km2.sum() < config.least_km2:
        raise ConfigError(f"the whole overlay has {overlay.area_km2.sum():.0f} km2", where="least_km2")
    return Answerer(ensemble, config.cut.by, config.cut.at, config.most, sets, config.least_km2)


def _sets_of(config: AnswerConfig, known: Any) -> ConformalSets:
    coverage = config.told_coverage
    if coverage not in known:
        there = ", ".join(f"{one:g}" for one in known) or "none"
        raise ConfigError(f"there is no threshold for coverage {coverage}; there are: {there}", where="coverage")
    sets: ConformalSets = known[coverage]
    return sets


def _prior(overlay: Overlay, name: str, given: PriorConfig) -> EnsembleMember:
    try:
        if given.regions is not None:
            found = mask_prior(overlay, name, given.partition, given.regions)
        else:
            n = overlay.partitions[overlay.column(given.partition)].n_regions
            if given.weights is None or len(given.weights) != n:
                raise ValueError(f"{len(given.weights or ())} weights for {n} regions of {given.partition}")
            found = prior(name, given.partition, given.weights)
    except ValueError as error:
        raise ConfigError(str(error), where=f"priors.{name}") from error
    return EnsembleMember(name, given.partition, given.weight, 1.0, found.fixed, found.density)


_REGION = pa.struct(
    [
        ("rank", pa.int32()),
        ("atom", pa.int64()),
        *((name, pa.float64()) for name in ("probability", "cumulative_probability", "cumulative_area_km2")),
        ("s2_id", pa.int64()),
    ]
)
_FLOATS = ("lat", "lon", "expected_km", "entropy", "area_50_km2", "area_90_km2")
ANSWER = pa.schema(
    [
        *((name, pa.string()) for name in (*IMAGE_KEY, "error_class", "message", "overlay_hash")),
        ("predictions", pa.int32()),
        *((name, pa.bool_()) for name in ("no_evidence", "contradiction")),
        *((name, pa.float64()) for name in _FLOATS),
        ("regions", pa.int32()),
        ("cut_short", pa.bool_()),
        ("set_coverage", pa.float64()),
        ("set_regions", pa.int64()),
        ("set_area_km2", pa.float64()),
        ("defect", pa.float64()),
        ("answer", pa.list_(_REGION)),
    ]
)
OUT = (
    "source string, image_id string, error_class string, message string, overlay_hash string, predictions int, "
    "no_evidence boolean, contradiction boolean, lat double, lon double, expected_km double, entropy double, "
    "area_50_km2 double, area_90_km2 double, regions int, cut_short boolean, set_coverage double, set_regions bigint, "
    "set_area_km2 double, defect double, answer array<struct<rank:int,atom:bigint,probability:double,"
    "cumulative_probability:double,cumulative_area_km2:double,s2_id:bigint>>"
)
"""Of an image: keys, what refuses it, or its summary and answer. The same as `ANSWER`, as Spark's DDL."""


@dataclass(frozen=True)
class Ranker:
    """Ranks images; broadcast to the workers.

    `sizes`: areas of the regions, km², by member. `lat`, `lon`, `bounds` (south, west, north, east), `s2_id`: of each
    region of answers, in degrees.
    """

    answerer: Answerer
    hashes: dict[str, str]
    sizes: dict[str, F8]
    coverage: float | None
    digest: str
    lat: F8
    lon: F8
    bounds: F8  # (regions, 4)
    s2_id: I8

    @classmethod
    def of(cls, answerer: Answerer, bounds: F8, coverage: float | None) -> Ranker:
        """`bounds`: of the atoms, (atoms, 4)."""
        ensemble = answerer.ensemble
        columns = {name: ensemble.overlay.column(partition) for name, partition in answerer.partitions.items()}
        regions = answerer.regions
        return cls(
            answerer,
            {name: ensemble.overlay.partitions[k].digest for name, k in columns.items()},
            {name: ensemble.overlay.region_areas_km2[k] for name, k in columns.items()},
            coverage,
            regions.digest,
            regions.lat,
            regions.lon,
            bounds if answerer.groups is None else joined(bounds, answerer.groups),
            s2.cell_ids(regions.lat, regions.lon),
        )

    def places(self, spark: SparkSession) -> DataFrame:
        """Rows of what `ranked_regions` tells of each region that an answer may have."""
        columns = {
            "atom": np.arange(self.lat.size),
            "area_km2": self.answerer.regions.area_km2,
            **{"lat": self.lat, "lon": self.lon},
            **{name: self.bounds[:, k] for k, name in enumerate(("south", "west", "north", "east"))},
        }
        return spark.createDataFrame(pd.DataFrame(columns))

    def rank(self, given: Gathered) -> pa.RecordBatch:
        """Rows like ANSWER, one per image."""
        answers = list(self._answers(given))
        said = np.stack([~np.isnan(values[:, 0]) for values in given.values.values()]).sum(axis=0)
        refused = [given.refused.get(k) for k in range(len(answers))]
        columns: dict[str, Any] = {
            "source": given.source,
            "image_id": given.image_id,
            "error_class": [None if one is None else one[0] for one in refused],
            "message": [None if one is None else one[1][:500] for one in refused],
            "overlay_hash": [self.digest] * len(answers),
            "predictions": said,
            "no_evidence": said == 0,
            "contradiction": [not one.leading.atom.size for one in answers],
            "regions": [len(one.chosen) for one in answers],
            "cut_short": [one.cut_short for one in answers],
            "set_coverage": [self.coverage] * len(answers),
            "set_regions": [one.summary.set_size for one in answers],
            "set_area_km2": [one.summary.set_area_km2 for one in answers],
            "defect": [given.defect] * len(answers),
            "answer": self._regions(answers),
        }
        for name in ("lat", "lon", "expected_km", "entropy"):
            columns[name] = _or_null([getattr(one.summary, name) for one in answers])
        for k, name in enumerate(("area_50_km2", "area_90_km2")):
            columns[name] = _or_null([one.summary.areas[k] for one in answers])
        arrays = [
            of
            if isinstance(of, pa.Array)
            else of.combine_chunks()
            if isinstance(of, pa.ChunkedArray)
            else pa.array(of, kind)
            for of, kind in ((columns[field.name], field.type) for field in ANSWER)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=ANSWER)

    def _answers(self, given: Gathered) -> Iterator[Answer]:
        predictions = {name: Probabilities(self.hashes[name], values) for name, values in given.values.items()}
        for images, n in self.answerer.images(predictions):
            for image in range(n):
                yield self.answerer.answer(images, image)

    def _regions(self, answers: list[Answer]) -> pa.Array:
        """The regions of all answers, as lists of structs."""
        ends = np.cumsum([0, *(len(one.chosen) for one in answers)])

        def every(of: list[Any]) -> Any:
            return np.concatenate(of) if of else np.empty(0)

        atom = every([one.leading.atom[one.chosen] for one in answers]).astype(np.int64)
        columns = {
            "rank": every([one.chosen + 1 for one in answers]).astype(np.int32),
            "atom": atom,
            "probability": every([one.leading.probability[one.chosen] for one in answers]),
            "cumulative_probability": np.minimum(
                every([np.cumsum(one.leading.probability)[one.chosen] for one in answers]), 1.0
            ),
            "cumulative_area_km2": every([np.cumsum(one.leading.area_km2)[one.chosen] for one in answers]),
            "s2_id": self.s2_id[atom],
        }
        arrays = [pa.array(columns[field.name], field.type) for field in _REGION]
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), pa.StructArray.from_arrays(arrays, fields=list(_REGION))
        )


def _or_null(values: list[float]) -> pa.Array:
    return pa.array(np.array(values, dtype=np.float64), from_pandas=True)  # NaN is null


def joined(bounds: F8, groups: I8) -> F8:
    """Bounding boxes of groups of boxes, (groups, 4); of all longitudes if one of a group crosses ±180."""
    n = int(groups.max()) + 1
    found = np.tile([90.0, 180.0, -90.0, -180.0], (n, 1))
    for k in range(4):
        (np.minimum if k < 2 else np.maximum).at(found[:, k], groups, bounds[:, k])
    found[np.unique(groups[bounds[:, 1] > bounds[:, 3]])[:, None], [1, 3]] = [-180.0, 180.0]
    return found


def regions_of(answers: DataFrame, ranker: Ranker) -> DataFrame:
    """Rows of `ranked_regions` from rows of OUT.

    They are sorted without what is the same for all rows of a region, which they get afterwards.
    """
    one = answers.where("error_class IS NULL").select(*IMAGE_KEY, F.explode("answer").alias("region"))
    rows = one.select(*IMAGE_KEY, "region.*").sortWithinPartitions("s2_id")
    # True for all rows. Spark takes out a sort before a join, unless a filter that it cannot move is between them.
    rows = rows.where(F.spark_partition_id() >= 0)
    places = F.broadcast(ranker.places(answers.sparkSession))
    return rows.join(places, "atom").withColumn("overlay_hash", F.lit(ranker.digest))


def summaries_of(answers: DataFrame, run_id: str) -> DataFrame:
    """Rows of `image_summary` from rows of OUT: each image has an answer of its own, in this run."""
    found = answers.where("error_class IS NULL").drop("error_class", "message", "defect", "answer")
    own = {"answer_run_id": F.lit(run_id), "answer_source": F.col("source"), "answer_image_id": F.col("image_id")}
    unknown = {c.name: F.lit(None).cast(c.spark_type) for c in IMAGE_SUMMARY.columns if c.name not in found.columns}
    return found.withColumns({**unknown, **own})
