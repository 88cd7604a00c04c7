"""Job `rank_regions`: from anybody's probabilities to ranked regions with areas.

The rows of an image come together by one shuffle, unless there is one predictor only. Each task then ranks images as
they come; the driver sees counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.ensemble.conformal import ConformalSets
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities, mask_prior, prior
from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.inference.answers import Answer, Answerer
from geosieve.inference.artefact import load_ensemble
from geosieve.inference.given import KEYS, Gathered, count, gather, image_numbers, open_predictions
from geosieve.inference.ranking_config import PriorConfig, RankConfig
from geosieve.job.main import Context
from geosieve.job.publishing import publishes
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import read_published
from geosieve.runtime.errors import ConfigError, InputError, IntegrityError
from geosieve.runtime.frames import arrow_batches, on_disk
from geosieve.runtime.names import advice
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import IMAGE_SUMMARY, RANKED_REGIONS, REJECTS

JOB = "rank_regions"
_BATCH_BYTES = 8 << 20
_TASK_BYTES = 256 << 20
"""Of the arrays that a task ranks, and that Spark sorts for it."""


def _leaves(config: RankConfig) -> list[Leaf]:
    values = {"ranking": config.name}
    rejects = Leaf(REJECTS, {"job": JOB, "part": config.name})
    return [rejects, Leaf(RANKED_REGIONS, values), Leaf(IMAGE_SUMMARY, values)]


@publishes(_leaves)
def rank_regions(context: Context[RankConfig], publication: Publication) -> int:
    """Write `ranked_regions`, `image_summary` and `rejects`. Returns the number of images, and of rows without an id.

    The report says how far sums of given log-probabilities were from 1, at most, before they were normalised.

    InputError if predictions are over other partitions than the overlay's, or of predictors that are no members, if
    there are none of a member, or if an artefact was changed; ConfigError if the overlay lacks a partition, or the
    artefact the coverage.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("inputs"):
        published = read_published(spark, config.overlay)
        answerer = _answerer(config, published.overlay())
        overlay = answerer.ensemble.overlay
        members = {one.name: one.partition for one in answerer.ensemble.members if one.fixed is None}
        rows = open_predictions(spark, config.predictions, members, overlay)
    if context.dry_run:
        found = {name: f"over {partition}" for name, partition in members.items()}
        context.show_plan({"overlay": overlay.digest, **found}, {"predictions": rows})
        return 0
    with report.stage("count"):
        counts = count(rows)
        report.rows_in = counts.images + counts.without_id
        if not counts.images:
            raise InputError("there are no predictions of any image", where=config.predictions[0].uri)
    bounds = published.atoms[["south", "west", "north", "east"]].to_numpy(np.float64)
    ranker = Ranker.of(answerer, bounds, config.told_coverage)
    widest = max(area.size for area in ranker.sizes.values())
    known = rows.where(F.col("source").isNotNull() & F.col("image_id").isNotNull())
    if len(members) > 1 or counts.repeated:
        known = _together(known, counts.images, 8 * sum(area.size for area in ranker.sizes.values()))
    shared = spark.sparkContext.broadcast(ranker)

    def ranked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for some in whole_images(batches):
            yield shared.value.rank(some)

    with (
        arrow_batches(spark, max(1, _BATCH_BYTES // (8 * widest))),
        on_disk(known.mapInArrow(ranked, OUT)) as answers,
    ):
        with report.stage("rank"):
            publication.write(RANKED_REGIONS, _regions(answers))
        with report.stage("write"):
            report.rows_out = publication.write(IMAGE_SUMMARY, _summaries(answers, report.run_id))
            rejected = publication.write(REJECTS, _rejects(answers, rows))
            report.rejected = _by_class(publication.written(REJECTS))
            report.details["log_probability_defect"] = answers.agg(F.max("defect")).first()[0]  # type: ignore[index]
    if report.rows_out + rejected != report.rows_in:
        raise IntegrityError(f"{report.rows_in} images came in, {report.rows_out} were ranked, {rejected} rejected")
    report.details |= _details(publication.written(IMAGE_SUMMARY))
    return report.rows_in


def _answerer(config: RankConfig, overlay: Overlay) -> Answerer:
    """The ensemble over the overlay, and what is asked of it."""
    names = [partition.name for partition in overlay.partitions]
    for kind, given in (("members", config.members), ("priors", config.priors)):
        for name, one in given.items():
            if one.partition not in names:
                told = advice(one.partition, names, "the overlay has")
                raise ConfigError(f"no partition {one.partition!r}: {told}", where=f"{kind}.{name}.partition")
    sets = None
    if config.ensemble is not None:
        fitted = load_ensemble(config.ensemble, overlay)
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


def _sets_of(config: RankConfig, known: Any) -> ConformalSets:
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


def _together(rows: DataFrame, images: int, size: int) -> DataFrame:
    """The rows of an image one after the other."""
    spark = rows.sparkSession
    tasks = max(2 * int(spark.sparkContext.defaultParallelism), -(-images * size // _TASK_BYTES))
    return rows.repartition(tasks, *KEYS).sortWithinPartitions(*KEYS)


def whole_images(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Tables of whole images, from batches in which the rows of an image stand one after the other."""
    held = None
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        rows = rows if held is None else pa.concat_tables([held, rows])
        if not len(rows):
            continue
        start = int(image_numbers(rows)[1][-1])  # of the last image, which may go on in the next batch
        if start:
            yield rows.slice(0, start)
        held = rows.slice(start)
    if held is not None:
        yield held


_REGION = pa.struct(
    [
        ("rank", pa.int32()),
        ("atom", pa.int64()),
        *(
            (name, pa.float64())
            for name in ("probability", "area_km2", "cumulative_probability", "cumulative_area_km2", "lat", "lon")
        ),
        *((name, pa.float64()) for name in ("south", "west", "north", "east")),
        ("s2_id", pa.int64()),
    ]
)
_FLOATS = ("lat", "lon", "expected_km", "entropy", "area_50_km2", "area_90_km2")
_ANSWER = pa.schema(
    [
        *((name, pa.string()) for name in (*KEYS, "error_class", "message", "overlay_hash")),
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
    "set_area_km2 double, defect double, answer array<struct<rank:int,atom:bigint,probability:double,area_km2:double,"
    "cumulative_probability:double,cumulative_area_km2:double,lat:double,lon:double,south:double,west:double,"
    "north:double,east:double,s2_id:bigint>>"
)
"""Of an image: keys, what refuses it, or its summary and answer. The same as `_ANSWER`, as Spark's DDL."""


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
        columns = {m.name: ensemble.overlay.column(m.partition) for m in ensemble.members if m.fixed is None}
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

    def rank(self, rows: pa.Table) -> pa.RecordBatch:
        """Rows like _ANSWER, one per image, from the rows of whole images."""
        given = gather(rows, self.sizes)
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
            for of, kind in ((columns[field.name], field.type) for field in _ANSWER)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=_ANSWER)

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
            "area_km2": every([one.leading.area_km2[one.chosen] for one in answers]),
            "cumulative_probability": np.minimum(
                every([np.cumsum(one.leading.probability)[one.chosen] for one in answers]), 1.0
            ),
            "cumulative_area_km2": every([np.cumsum(one.leading.area_km2)[one.chosen] for one in answers]),
            "lat": self.lat[atom],
            "lon": self.lon[atom],
            **{name: self.bounds[atom, k] for k, name in enumerate(("south", "west", "north", "east"))},
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


def _regions(answers: DataFrame) -> DataFrame:
    one = answers.where("error_class IS NULL").select(*KEYS, "overlay_hash", F.explode("answer").alias("region"))
    return one.select(*KEYS, "overlay_hash", "region.*").sortWithinPartitions("s2_id")


def _summaries(answers: DataFrame, run_id: str) -> DataFrame:
    found = answers.where("error_class IS NULL").drop("error_class", "message", "defect", "answer")
    own = {"answer_run_id": F.lit(run_id), "answer_source": F.col("source"), "answer_image_id": F.col("image_id")}
    unknown = {c.name: F.lit(None).cast(c.spark_type) for c in IMAGE_SUMMARY.columns if c.name not in found.columns}
    return found.withColumns({**unknown, **own})


def _rejects(answers: DataFrame, rows: DataFrame) -> DataFrame:
    refused = answers.where("error_class IS NOT NULL").select(
        F.concat_ws("/", *KEYS).alias("id"), F.lit(None).cast("string").alias("uri"), "error_class", "message"
    )
    without = rows.where(F.col("source").isNull() | F.col("image_id").isNull()).select(
        F.col("image_id").alias("id"),
        F.lit(None).cast("string").alias("uri"),
        F.lit("missing_id").alias("error_class"),
        F.lit("a prediction of no image: its source or id is null").alias("message"),
    )
    return refused.unionByName(without).withColumn("stage", F.lit("predictions"))


def _by_class(rejects: DataFrame) -> dict[str, int]:
    return {row["error_class"]: row["count"] for row in sorted(rejects.groupBy("error_class").count().collect())}


def _details(summaries: DataFrame) -> dict[str, Any]:
    (row,) = summaries.agg(
        F.count_if("no_evidence").alias("no_evidence"),
        F.count_if("contradiction").alias("contradiction"),
        F.count_if("cut_short").alias("cut_short"),
        F.percentile_approx("area_50_km2", 0.5).alias("median_area_50_km2"),
    ).collect()
    return dict(row.asDict())
