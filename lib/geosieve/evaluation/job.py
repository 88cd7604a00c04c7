"""`evaluate`: truth × one or more systems' predictions → figures with intervals, by strata, and a summary."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import reduce
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from pydantic import Field, model_validator
from pyspark import StorageLevel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.evaluation import inputs, truth
from geosieve.evaluation.estimates import ALL, Plan, estimate
from geosieve.evaluation.inputs import ListTruth, System
from geosieve.evaluation.scored import Scored
from geosieve.evaluation.scoring import CONTINENT, MAX_IMAGES, Scorer, collect_scores, stratum_values
from geosieve.evaluation.summary import html, markdown
from geosieve.evaluation.truth import TableTruth
from geosieve.images import row_checks
from geosieve.images.row_checks import COORDINATE_COUNTS
from geosieve.job.main import Context
from geosieve.job.publishing import JobConfig, publishes
from geosieve.runtime.errors import InputError, IntegrityError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import EVALUATIONS, REJECTS

ProtocolName = Literal["geoestimation", "osv5m", "pigeon", "geoclip", "g3"]
JOB = "evaluate"
_EVERY: tuple[ProtocolName, ...] = get_args(ProtocolName)


class EvaluateConfig(JobConfig):
    """Configuration of `evaluate`."""

    truth: Annotated[ListTruth | TableTruth, Field(discriminator="format")]
    systems: list[System] = Field(min_length=1)
    baseline: str | None = Field(None, description="the system that the others are compared to; the first if not set")
    protocols: list[ProtocolName] = Field(list(_EVERY), min_length=1)
    places: bool = Field(True, description="country, region, area and city by reverse_geocoder")
    continent: bool = Field(True, description="a stratum of the truth's continents")
    balance: str | None = Field(None, description="a stratum: figures also with the same weight for each of its values")
    unmatched: Literal["error", "reject"] = Field("error", description="predictions for images without truth")
    most_refused: float = Field(
        0.01,
        ge=0,
        le=1,
        description="the greatest share of a list's rows that may be refused; exclude_ids is not counted",
    )
    samples: int = Field(1000, ge=100, le=10_000, description="bootstrap samples")
    seed: int = Field(0, ge=0, lt=2**63)
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _names(self) -> EvaluateConfig:
        names = [system.name for system in self.systems]
        if len(set(names)) < len(names):
            raise ValueError(f"systems: a name stands twice in {names}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: {self.baseline!r} is none of the systems {', '.join(names)}")
        if len(set(self.protocols)) < len(self.protocols):
            raise ValueError(f"protocols: a name stands twice in {self.protocols}")
        strata = list(self.truth.strata)
        reserved = {ALL, CONTINENT} & set(strata) if self.continent else {ALL} & set(strata)
        if reserved or len(set(strata)) < len(strata):
            raise ValueError(f"truth.strata: {', '.join(sorted(reserved)) or 'a name'} cannot stand there (twice)")
        strata += [CONTINENT] if self.continent else []
        if self.balance is not None and self.balance not in strata:
            near = did_you_mean(self.balance, strata)
            raise ValueError(f"balance: {self.balance!r} is none of the strata {', '.join(strata) or '(none)'}; {near}")
        return self


def _leaves(_: EvaluateConfig) -> list[Leaf]:
    return [Leaf(REJECTS, {"job": JOB, "part": "all"}), Leaf(EVALUATIONS)]


@publishes(_leaves)
def evaluate(context: Context[EvaluateConfig], publication: Publication) -> int:
    """Publish `evaluations`, with `_summary.md` and `_summary.html` beside it.

    Rows in (of truth and of predictions) = images evaluated + predictions used + rejects. InputError as `inputs` says.
    """
    config, report, spark = context.config, context.report, context.spark
    with report.stage("open"):
        frames = _open(context)
    if context.dry_run:
        context.show_plan({name: frame.columns for name, frame in frames.items()}, frames)
        return 0
    with ExitStack() as stack:
        with report.stage("read"):
            frames = {name: stack.enter_context(_kept(frame)) for name, frame in frames.items()}
            # Side by side: a list is often one file that one task reads.
            with ThreadPoolExecutor() as pool:
                counts = pool.map(lambda named: _check(context, *named), frames.items())
            report.rows_in = sum(sum(found.values()) for found in counts)
        with report.stage("score"):
            scored = _score(context, frames)
        with report.stage("rejects"):
            settled = {name: _matched(context, name, frame, frames[_TRUTH], scored) for name, frame in frames.items()}
            refused = [row_checks.rejects(settled[name], name) for name in frames]
            rejected = publication.write(REJECTS, reduce(DataFrame.unionByName, refused))
            report.rejected = _count_rejects(publication.written(REJECTS))
            refused_predictions = {
                system.name: _count_refused(frames[_key(k)], frames[_TRUTH]) for k, system in enumerate(config.systems)
            }
        with report.stage("estimate"):
            figures = estimate(scored, _plan(config))
    used = sum(int((~answers.missing).sum()) for answers in scored.systems.values())
    report.rows_out = len(scored) + used
    if report.rows_in != report.rows_out + rejected:
        raise IntegrityError(
            f"{report.rows_in} rows came in but {len(scored)} images and {used} predictions were evaluated and "
            f"{rejected} rejected",
            where=publication.uris[-1],
            hint="nothing was committed; please report this",
        )
    report.details |= _details(config, scored, figures) | {"refused": refused_predictions}
    with report.stage("write"):
        rows = spark.createDataFrame(_nullable(figures), EVALUATIONS.spark_schema()).coalesce(1)
        written = publication.write(EVALUATIONS, rows)
        notes = _notes(config, report.details, report.rejected)
        publication.attach(EVALUATIONS, "_summary.md", markdown(figures, notes))
        publication.attach(EVALUATIONS, "_summary.html", html(figures, notes))
    return written + rejected  # rows of tables; images and predictions were balanced above


_TRUTH = "truth"


def _open(context: Context[EvaluateConfig]) -> dict[str, DataFrame]:
    """Rows of truth and of each system, by `truth` and `systems.<number>`, their keys in the configuration."""
    config, spark = context.config, context.spark
    if isinstance(config.truth, TableTruth):
        frames = {_TRUTH: truth.read_tables(spark, config.truth)}
    else:
        frames = {_TRUTH: inputs.read_list(spark, config.truth, _TRUTH)}
    for k, system in enumerate(config.systems):
        rows = inputs.read_list(spark, system, _key(k))
        frames[_key(k)] = _with_area(rows, system.columns.area_km2 is not None)
    return frames


def _key(k: int) -> str:
    return f"systems.{k}"


def _with_area(rows: DataFrame, has_area: bool) -> DataFrame:
    """Rows of predictions with `area_km2` as a number, and what is no fault in a prediction made good."""
    text = F.col("area_km2") if has_area else F.lit(None).cast("string")
    area = F.expr("try_cast(area_km2 AS double)")
    # (0, 0) stands for an unknown position in truth; a system may answer it.
    said = F.col("area_km2").isNotNull() & ~row_checks.is_word_for_nothing(F.col("area_km2"))
    bad = (area < 0) | (area.isNull() & said)
    error = F.when(F.col("error_class") != "null_island", F.col("error_class"))
    good = error.isNull()
    return (
        rows.withColumn("area_km2", text)
        .withColumn("bad", F.coalesce(good & bad, F.lit(False)))
        .withColumns(
            {
                "message": F.when(F.col("bad"), F.lit("area_km2 is no area: negative, or no number")).when(
                    ~good, F.col("message")
                ),
                "error_class": F.when(F.col("bad"), F.lit("bad_area")).otherwise(error),
                "area_km2": F.nanvl(area, F.lit(None)),
            }
        )
        .drop("bad")
    )


@contextmanager
def _kept(frame: DataFrame) -> Iterator[DataFrame]:
    """`frame`, computed once, with the rows of an id in one place for all that follows."""
    tasks = max(4, 2 * frame.sparkSession.sparkContext.defaultParallelism)
    kept = frame.repartition(tasks, "image_id").persist(StorageLevel.DISK_ONLY)
    try:
        yield kept
    finally:
        kept.unpersist()


def _check(context: Context[EvaluateConfig], name: str, frame: DataFrame) -> dict[str | None, int]:
    """Rows by error class (None: good). InputError for what refuses a list as a whole."""
    source = _source(context.config, name)
    found = (
        frame.groupBy("input_uri", "error_class", "suspect")
        .agg(F.count("*").alias("count"), *map(F.expr, COORDINATE_COUNTS))
        .collect()
    )
    if not isinstance(source, TableTruth):
        names = source.columns
        swap_hint = f"swap {name}.columns.lat and .lon, now {names.lat!r} and {names.lon!r}"
        row_checks.refuse_other_coordinates(found, swap_hint, "subtract 360 from longitudes above 180")
        for uri in sorted({row["input_uri"] for row in found if row["suspect"]}):
            inputs.refuse_aggregates(frame, source, uri)
    counts: dict[str | None, int] = {}
    for row in found:
        counts[row["error_class"]] = counts.get(row["error_class"], 0) + row["count"]
    if not counts.get(None):
        classes = ", ".join(f"{error} {rows}" for error, rows in sorted(counts.items(), key=str)) or "it holds no rows"
        example = frame.where("message IS NOT NULL").select("message").first()
        raise InputError(
            f"no usable row ({classes})", where=name, hint=example["message"] if example is not None else ""
        )
    refused = sum(rows for error, rows in counts.items() if error not in (None, inputs.EXCLUDED))
    if refused > context.config.most_refused * (refused + counts[None]):
        classes = ", ".join(f"{error} {rows}" for error, rows in sorted(counts.items(), key=str) if error is not None)
        example = frame.where("error_class IS NOT NULL AND message IS NOT NULL").select("message").first()
        raise InputError(
            f"{refused} of {refused + counts[None]} rows are refused ({classes}), more than a share of "
            f"{context.config.most_refused:g}",
            where=name,
            hint="mend the list, or allow more by most_refused" + (f"; {example['message']}" if example else ""),
        )
    if not isinstance(source, TableTruth):
        inputs.refuse_means(frame, name)
    if name == _TRUTH and counts[None] > MAX_IMAGES:
        raise InputError(
            f"{counts[None]} images; one run evaluates at most {MAX_IMAGES}", where=name, hint="sample them"
        )
    inputs.refuse_repeats(frame, None if isinstance(source, TableTruth) else source, name)
    return counts


def _source(config: EvaluateConfig, name: str) -> ListTruth | TableTruth | System:
    return config.truth if name == _TRUTH else _system(config, name)


def _system(config: EvaluateConfig, name: str) -> System:
    return config.systems[int(name.removeprefix("systems."))]


def _matched(
    context: Context[EvaluateConfig], name: str, frame: DataFrame, images: DataFrame, scored: Scored
) -> DataFrame:
    """Predictions with error class `no_truth` or `truth_rejected` where that is so; truth as it is.

    InputError for predictions without truth unless they are to be rejects, and in any case if all are.
    """
    if name == _TRUTH:
        return frame
    good = F.col("error_class").isNull()
    n, answers = frame.where(good).count(), scored.systems[_system(context.config, name).name]
    if n == int((~answers.missing).sum()):
        return frame  # each was joined with its image
    flags = images.where("image_id IS NOT NULL").select("image_id", F.col("error_class").isNull().alias("usable"))
    joined = frame.join(flags, "image_id", "left")
    lost, barred = good & F.col("usable").isNull(), good & ~F.col("usable")
    alone = joined.where(lost).count()
    if alone and (context.config.unmatched == "error" or alone == n):
        raise InputError(
            f"{alone} of {n} predictions are for images that the truth does not have, e.g. "
            + ", ".join(repr(row["image_id"]) for row in joined.where(lost).orderBy("image_id").take(3)),
            where=name,
            hint=f"truth has ids like {_example(flags)!r}; see strip_extension, exclude_ids, and unmatched: reject",
        )
    return joined.withColumns(
        {
            "error_class": F.when(lost, "no_truth").when(barred, "truth_rejected").otherwise(F.col("error_class")),
            "message": F.when(lost, "no image of this id in the truth")
            .when(barred, "the truth of this image was rejected")
            .otherwise(F.col("message")),
        }
    )


def _example(images: DataFrame) -> str:
    row = images.orderBy("image_id").first()
    return str(row["image_id"]) if row is not None else ""


def _count_rejects(rejects: DataFrame) -> dict[str, int]:
    found = rejects.groupBy("stage", "error_class").count().collect()
    return {f"{row['stage']}: {row['error_class']}": row["count"] for row in sorted(found)}


def _count_refused(predictions: DataFrame, images: DataFrame) -> dict[str, int]:
    """Images of the truth whose prediction was refused, by error class."""
    refused = predictions.where("error_class IS NOT NULL AND image_id IS NOT NULL")
    usable = images.where("error_class IS NULL").select("image_id")
    found = refused.join(usable, "image_id").groupBy("error_class").count().collect()
    return {row["error_class"]: row["count"] for row in sorted(found)}


def _score(context: Context[EvaluateConfig], frames: dict[str, DataFrame]) -> Scored:
    config = context.config
    good = {name: frame.where("error_class IS NULL") for name, frame in frames.items()}
    images = good.pop(_TRUTH)
    strata = stratum_values(images, list(config.truth.strata))
    regions: dict[str, dict[str, str]] = {}
    if isinstance(config.truth, TableTruth):
        regions = truth.region_names(context.spark, config.truth, strata)
    areas = tuple(system.columns.area_km2 is not None for system in config.systems)
    scorer = Scorer(strata, areas, config.places, config.continent)
    systems = {system.name: good[_key(k)] for k, system in enumerate(config.systems)}
    return collect_scores(images, systems, scorer, regions)


def _plan(config: EvaluateConfig) -> Plan:
    return Plan(
        tuple(config.protocols), config.samples, config.seed, config.confidence, config.balance, config.baseline
    )


def _nullable(figures: pd.DataFrame) -> pd.DataFrame:
    """NaN as null: engines take NaN for a number."""
    return figures.astype(object).where(figures.notna(), None)


def _details(config: EvaluateConfig, scored: Scored, figures: pd.DataFrame) -> dict[str, Any]:
    """Counts, and the figures of all images as they are, for the report."""
    unbalanced = {s.name: int((s.codes >= s.n_buckets).sum()) for s in scored.strata if s.name == config.balance}
    whole = figures[(figures["stratum"] == ALL) & figures["balanced_by"].isna() & figures["compared_to"].isna()]
    whole = whole[~whole["metric"].isin(["recall_curve", "area_curve"])]
    found: dict[str, dict[str, list[float]]] = {system: {} for system in scored.systems}
    for row in _nullable(whole).to_dict("records"):
        at = "" if row["threshold_km"] is None else f" {row['threshold_km']:g} km"
        found[row["system"]][f"{row['protocol']} {row['metric']}{at}"] = [row["value"], row["low"], row["high"]]
    missing = {system: int(answers.missing.sum()) for system, answers in scored.systems.items()}
    return {"images": len(scored), "missing": missing, "left_out_of_balanced": unbalanced, "figures": found}


def _notes(config: EvaluateConfig, details: dict[str, Any], rejected: dict[str, int]) -> list[str]:
    refused = {name: classes for name, classes in details["refused"].items() if classes}
    missing = ", ".join(
        f"{name} {count - sum(details['refused'][name].values()):,}" for name, count in details["missing"].items()
    )
    named = {_TRUTH: _TRUTH} | {_key(k): system.name for k, system in enumerate(config.systems)}
    by_list: dict[str, list[str]] = {}
    for stage_and_class, rows in rejected.items():
        stage, error = stage_and_class.split(": ", 1)
        by_list.setdefault(named[stage], []).append(f"{error} {rows:,}")
    return [
        f"{details['images']:,} images. Without a prediction, which counts as a miss everywhere: {missing}.",
        *(
            f"With a prediction that was refused, which counts as a miss too: {name}: "
            + ", ".join(f"{error} {count:,}" for error, count in classes.items())
            + "."
            for name, classes in refused.items()
        ),
        *(f"Rows that were left out of {name}: {', '.join(classes)}." for name, classes in by_list.items()),
        f"Intervals: {config.confidence:.0%} percentile intervals of {config.samples:,} bootstrap samples of images "
        f"(seed {config.seed}); differences of systems are taken sample by sample, on the same images.",
        "mean_km and median_answered_km are over the images that have a prediction, and their differences over those "
        "that both systems answered; for median_km a missing prediction is infinitely far.",
        *(
            f"Balanced figures: each value of {name} weighs the same; {count:,} images without a value (outside, "
            "no data or unknown) are left out of them."
            for name, count in details["left_out_of_balanced"].items()
        ),
    ]
