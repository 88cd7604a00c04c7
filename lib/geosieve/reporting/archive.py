"""Job `report_archive`: one self-contained page of a ranking's answers, to look at in a browser.

The driver holds what the page holds: sums, cells of one degree, and as many images as the configuration allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from geosieve.job.main import Context
from geosieve.reporting.answers import Answers, read_answers
from geosieve.reporting.archive_config import ReportConfig
from geosieve.reporting.outline import builtin_outline, land_outline
from geosieve.reporting.page import Page, render
from geosieve.reporting.shown import cut, shown
from geosieve.reporting.thumbnails import thumbnails
from geosieve.reporting.truth import Compared, compare, true_positions
from geosieve.runtime.errors import InputError
from geosieve.runtime.files import Files
from geosieve.runtime.frames import on_disk
from geosieve.runtime.output import check_output_file
from geosieve.tables.read import committed_runs, read_runs, select_run
from geosieve.tables.schemas import AUDIT, EVALUATIONS, IMAGE_KEY, REJECTS

JOB = "report_archive"
_RANKING_JOBS = ("rank_regions", "geolocate_archive")
_RUNS = 20
"""Runs whose times and audit records are told; the latest."""
_LARGE = 20_000_000
"""Bytes of a page that is told to be large."""
_FIGURES = 200
"""Of an evaluation, at most."""


def report_archive(context: Context[ReportConfig]) -> None:
    """Write the page.

    InputError if there is no such ranking or run, if an answer lacks regions, or if the overlay that is named is not
    the one that was ranked. ConfigError if the output cannot be written.
    """
    config, report, spark = context.config, context.report, context.spark
    files = Files(spark)
    with report.stage("inputs"):
        answers = read_answers(spark, config.answers)
        outline = config.outline or builtin_outline()
        lines = [] if outline is None else land_outline(outline)
    if context.dry_run:
        context.show_plan(
            {f"run {run.run_id}": f"{run.rows} images" for run in answers.runs}, {"summaries": answers.summaries}
        )
        return
    check_output_file(files, config.output)
    with ExitStack() as kept:
        with report.stage("count"):
            summaries = answers.summaries
            counts = _counts(summaries)
            report.rows_in = counts["images"]
            cells = _cells(summaries)
        with report.stage("images"):
            order = [F.xxhash64(*IMAGE_KEY), *map(F.col, IMAGE_KEY)]
            number = (F.row_number().over(Window.orderBy(*order)) - 1).cast("bigint")
            listed = kept.enter_context(
                on_disk(summaries.orderBy(*order).limit(config.images).withColumn("number", number))
            )
            images = _images(listed)
            detailed = listed.where(F.col("number") < config.detailed).select(*IMAGE_KEY, "number", "regions")
            details = _details(answers, detailed, config.regions)
        if config.thumbnails is not None:
            with report.stage("thumbnails"):
                pictures = thumbnails(detailed, config.thumbnails.root or answers.root, config.thumbnails)
                for at, jpeg in pictures.items():
                    details[at]["jpeg"] = jpeg
                report.details["thumbnails"] = len(pictures)
        compared = None
        if config.truth is not None:
            with report.stage("truth"):
                compared = _compared(answers, config, detailed, details)
                report.details["truths"] = 0 if compared is None else compared.images
        with report.stage("runs"):
            audit = _audit(answers)
            rejects = _rejects(answers)
            figures = [] if config.evaluation is None else _figures(answers, config.evaluation)
    page = Page(
        title=config.title or f"Where the images of “{answers.ranking}” may have been taken",
        ranking=answers.ranking,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        runs=[(run.run_id, run.committed_at, run.rows) for run in answers.runs],
        counts=counts,
        cells=cells,
        images=images,
        details=details,
        most_regions=config.regions,
        outline=lines,
        truth_asked=config.truth is not None,
        compared=compared,
        figures=figures,
        rejects=rejects,
        reports=[_of_run(one) for one in answers.reports[-_RUNS:]],
        audit=audit,
        pictures=config.thumbnails is not None,
        price=None if config.price_per_hour is None else (config.price_per_hour, config.currency),
    )
    with report.stage("write"):
        text = render(page)
        size = len(text.encode())
        if size > _LARGE:
            report.warn(f"the page has {size / 1e6:.0f} MB, which browsers take long to open: fewer images or regions")
        files.write_text(config.output, text)
    report.rows_out = len(images)
    report.outputs = [config.output]
    report.details |= {"bytes": size, "with_regions": len(details)}


def _counts(summaries: DataFrame) -> dict[str, Any]:
    own = (F.col("answer_source") == F.col("source")) & (F.col("answer_image_id") == F.col("image_id"))
    (row,) = summaries.agg(
        F.count("*").alias("images"),
        F.count_if("no_evidence").alias("no_evidence"),
        F.count_if("contradiction").alias("contradiction"),
        F.count_if("cut_short").alias("cut_short"),
        F.count_if(~own).alias("copies"),
        F.count_if("claim_contradicts").alias("claim_contradicts"),
        F.count("claim_p").alias("claims"),
        F.count_if("out_of_domain").alias("out_of_domain"),
        F.count("domain_p").alias("domains"),
        F.percentile_approx("area_50_km2", 0.5).alias("area_50_km2"),
        F.percentile_approx("area_90_km2", 0.5).alias("area_90_km2"),
        F.percentile_approx("expected_km", 0.5).alias("expected_km"),
    ).collect()
    return dict(row.asDict())


def _cells(summaries: DataFrame) -> list[tuple[int, float, float]]:
    """Images by cells of one degree: their number, and the mean of their best points. At most 64,800."""
    south, west = F.least(F.floor("lat"), F.lit(89)), F.floor("lon")
    found = summaries.where("lat IS NOT NULL").groupBy(south.alias("south"), west.alias("west"))
    rows = found.agg(F.count("*").alias("n"), F.avg("lat").alias("lat"), F.avg("lon").alias("lon")).collect()
    return sorted(((row["n"], round(row["lat"], 2), round(row["lon"], 2)) for row in rows), reverse=True)


def _images(listed: DataFrame) -> list[dict[str, Any]]:
    """What the list tells of each image, by its number."""
    figures = ("lat", "lon", "expected_km", "area_50_km2", "area_90_km2", "regions", "cut_short")
    flags = ("no_evidence", "contradiction", "claim_contradicts", "out_of_domain")
    own = (F.col("answer_source") == F.col("source")) & (F.col("answer_image_id") == F.col("image_id"))
    rows = listed.select(
        "number",
        cut("source").alias("source"),
        cut("image_id").alias("image_id"),
        F.when(~own, cut("answer_image_id")).alias("copy_of"),
        *figures,
        *flags,
    ).collect()
    found = [row.asDict() for row in sorted(rows, key=lambda row: int(row["number"]))]
    for row in found:
        for name in ("source", "image_id", "copy_of"):
            row[name] = None if row[name] is None else shown(row[name])
    return found


_REGION = (
    *("rank", "probability", "area_km2", "cumulative_probability", "cumulative_area_km2"),
    *("lat", "lon", "south", "west", "north", "east"),
)


def _details(answers: Answers, detailed: DataFrame, most: int) -> dict[int, dict[str, Any]]:
    """The leading regions of some images, by number. InputError if an answer has fewer than its summary says."""
    wanted = F.broadcast(detailed.withColumnRenamed("regions", "of_all"))
    place = F.row_number().over(Window.partitionBy("number").orderBy("rank"))
    regions = answers.regions.join(wanted, [*IMAGE_KEY]).withColumn("place", place)
    rows = regions.where(F.col("place") <= most).select("number", *_REGION).collect()
    found = {
        row["number"]: {"of_all": row["regions"], "regions": []}
        for row in detailed.select("number", "regions").collect()
    }
    for row in sorted(rows, key=lambda row: (row["number"], row["rank"])):
        found[row["number"]]["regions"].append([row[name] for name in _REGION])
    for number, one in found.items():
        if len(one["regions"]) != min(one["of_all"], most):
            raise InputError(
                f"the answer of image number {number} has {len(one['regions'])} of {one['of_all']} regions",
                where=f"{answers.root}/ranked_regions/ranking={answers.ranking}",
                hint="rows are gone, or stand there twice",
            )
    return found


def _compared(
    answers: Answers, config: ReportConfig, detailed: DataFrame, details: Mapping[int, dict[str, Any]]
) -> Compared | None:
    assert config.truth is not None  # asked for only then
    truth = true_positions(answers, config.truth.root or answers.root)
    known = truth.join(F.broadcast(detailed.select(*IMAGE_KEY, "number")), [*IMAGE_KEY])
    for row in known.select("number", "true_lat", "true_lon").collect():
        details[row["number"]]["truth"] = (row["true_lat"], row["true_lon"])
    return compare(answers, truth, config.truth.overlay)


def _rejects(answers: Answers) -> list[dict[str, Any]]:
    """Refused images by class, the most frequent first, with one example each."""
    spark, mine = answers.summaries.sparkSession, {run.run_id for run in answers.runs}
    runs = [
        run
        for job in _RANKING_JOBS
        for run in committed_runs(spark, answers.root, REJECTS, job=job, part=answers.ranking)
        if run.run_id in mine
    ]
    if not runs:
        return []
    example = F.min(F.struct(cut("id").alias("id"), cut("uri").alias("uri"), "message")).alias("example")
    rows = read_runs(spark, answers.root, REJECTS, runs).groupBy("error_class")
    found = rows.agg(F.count("*").alias("n"), example).orderBy(F.col("n").desc(), "error_class").limit(100).collect()
    return [
        {"error_class": row["error_class"], "n": row["n"], **{k: v for k, v in row["example"].asDict().items()}}
        for row in found
    ]


def _figures(answers: Answers, which: str) -> list[dict[str, Any]]:
    """Figures of a run of `evaluate` over all images, without curves and differences."""
    spark, root = answers.summaries.sparkSession, answers.root
    run = select_run(committed_runs(spark, root, EVALUATIONS), which, f"{root}/{EVALUATIONS.name}")
    rows = read_runs(spark, root, EVALUATIONS, [run]).where(
        "stratum = 'all' AND compared_to IS NULL AND balanced_by IS NULL AND metric NOT LIKE '%curve'"
    )
    columns = ("system", "protocol", "metric", "threshold_km", "value", "low", "high", "n")
    found = rows.select(*columns).orderBy("system", "protocol", "metric", "threshold_km").limit(_FIGURES).collect()
    return [row.asDict() for row in found]


def _audit(answers: Answers) -> list[dict[str, Any]]:
    runs = answers.beside(AUDIT)[-_RUNS:]
    if not runs:
        return []
    rows = read_runs(answers.summaries.sparkSession, answers.root, AUDIT, runs).orderBy("started_at").collect()
    return [row.asDict(recursive=True) for row in rows]


def _of_run(report: dict[str, Any]) -> dict[str, Any]:
    """What is told of a run's work; nothing if it left no report."""
    seconds = {str(name): float(s) for name, s in report.get("seconds", {}).items()}
    told = {name: report.get(name) for name in ("job", "run_id", "rows_in", "rows_out")}
    return {**told, "seconds": seconds, "warnings": [str(one) for one in report.get("warnings", ())]}
