"""Job `label_attributes`: finds the region of every image in every partition and writes table `labels`.

The images are shuffled once, by latitude band and longitude. So each task needs only few blocks of each raster; it
labels its points with all partitions. `labels` has one row per image and one column per partition. A query needs no
join to combine partitions, and reads only the columns that it names from the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo import s2
from geosieve.images.read import (
    NO_POSITION,
    NO_POSITION_MESSAGE,
    NOT_POSITIONED,
    POSITIONED,
    ImagesInput,
    read_images,
)
from geosieve.job.main import Context
from geosieve.job.publishing import JobConfig, publishes
from geosieve.labels.summary import LabelCounter, publish_partitions, summarize
from geosieve.partitions.base import Assigner, Partition, doubts
from geosieve.partitions.config import PartitionsConfig
from geosieve.partitions.read import LABEL_JOB, CommittedTables
from geosieve.rasters.candidates import NOTHING, CandidateIndex, join_outlines, occupied_cells
from geosieve.tables.arrow import chunks, tasks_for
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schema import Table
from geosieve.tables.schemas import PARTITIONS, REGIONS, REJECTS, labels_table

_BATCH_ROWS = 50_000


class LabelConfig(PartitionsConfig, JobConfig):
    """Configuration of `label_attributes`."""

    images: ImagesInput

    @model_validator(mode="after")
    def _columns(self) -> LabelConfig:
        _table(self)  # fails if a partition has the name of another column of `labels`
        return self


def _table(config: LabelConfig) -> Table:
    return labels_table([definition.name for definition in config.partitions])


def _leaves(config: LabelConfig) -> list[Leaf]:
    job = {"job": LABEL_JOB}
    return [Leaf(REJECTS, {**job, "part": "all"}), Leaf(PARTITIONS, job), Leaf(REGIONS, job), Leaf(_table(config))]


@publishes(_leaves)
def label_attributes(context: Context[LabelConfig], publication: Publication) -> int:
    """Label the images of the configured runs with every partition. Returns the number of images read.

    Writes `labels`, the tables that describe the partitions and their regions, and `rejects` for images without a
    position. In a dry run it only shows the plan and returns 0. InputError if there are no such images; ConfigError if
    a partition cannot be built.
    """
    config, report, spark, table = context.config, context.report, context.spark, _table(context.config)
    with report.stage("inputs"):
        chosen = read_images(spark, config.images)
        chosen.tell(report)
        tables = CommittedTables(spark, config.rasters.root, config.rasters.run)
        partitions = [definition.build(tables) for definition in config.partitions]
        for doubt in doubts(partitions):
            report.warn(doubt)
    report.rows_in, images = chosen.count, chosen.rows
    points = images.where(POSITIONED).select("image_id", "source", "lat", "lon")
    rejects = images.where(NOT_POSITIONED).select(*_reject_columns())
    counter = LabelCounter(spark, [p.name for p in partitions])
    if context.dry_run:
        found = chosen.found()
        found |= {f"partition {p.name}": f"{p.n_regions} regions, hash {p.digest}" for p in partitions}
        unjoined = dict.fromkeys((p.name for p in partitions), NOTHING)
        labels = label_points(points, partitions, unjoined, table, report.rows_in, counter)
        context.show_plan(found, {"labels": labels})
        return 0
    with report.stage("join"):
        indices = _indices(spark, points, partitions)
    labels = label_points(points, partitions, indices, table, report.rows_in, counter)
    with report.stage("label"):  # one Spark job: it shuffles, reads the rasters and writes
        report.rows_out = publication.write(table, labels)
    with report.stage("rejects"):
        rejected = publication.write(REJECTS, rejects)
        report.rejected = {NO_POSITION: rejected} if rejected else {}
    with report.stage("summary"):
        counts = counter.counts(report.rows_out)
        publish_partitions(publication, spark, config.partitions, partitions, counts)
        report.details["partitions"] = summarize(partitions, counts)
        for name, facts in report.details["partitions"].items():
            if facts["labelled"] == 0 and report.rows_out:
                report.warn(f"partition {name} covers none of the {report.rows_out} images")
            if facts["unknown"]:
                report.warn(f"partition {name} does not name the value at {facts['unknown']} images")
    return report.rows_in


def _reject_columns() -> list[Any]:
    return [
        F.col("image_id").alias("id"),
        F.col("uri"),
        F.lit("label").alias("stage"),
        F.lit(NO_POSITION).alias("error_class"),
        F.lit(NO_POSITION_MESSAGE).alias("message"),
    ]


def _indices(spark: SparkSession, points: DataFrame, partitions: list[Partition]) -> dict[str, CandidateIndex]:
    """For each partition name, the files or polygons of the partition that are near each cell with points."""
    outlines = {p.name: p.outlines() for p in partitions}
    if not any(outlines.values()):  # no partition has items that matter only to nearby points
        return dict.fromkeys(outlines, NOTHING)
    return join_outlines(spark, occupied_cells(points), outlines)


def label_points(
    points: DataFrame,
    partitions: list[Partition],
    indices: dict[str, CandidateIndex],
    table: Table,
    rows: int,
    counter: LabelCounter,
) -> DataFrame:
    """The rows of `labels` for `points`, a frame with columns image_id, source, lat, lon (WGS-84, degrees).

    `indices` has the candidates of each partition by name; `table` is the schema of the result, see `labels_table`. The
    approximate number of points, `rows`, determines the number of tasks. `counter` counts the labels whenever the
    frame is computed.
    """
    context = points.sparkSession.sparkContext
    labeller = Labeller({p.name: (p.assigner(), indices[p.name]) for p in partitions})
    shared = context.broadcast(labeller)

    def label_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            labelled = shared.value.label(chunk)
            counter.add(labelled)
            yield from labelled.to_batches(_BATCH_ROWS)

    ordered = points.repartitionByRange(tasks_for(points.sparkSession, rows), *_shuffle_key())
    return ordered.mapInArrow(label_batches, table.spark_schema())


def _shuffle_key() -> list[Any]:
    """Latitude bands from north to south, and longitude within a band. A band is 512 rows of a 30″ raster high."""
    return [F.floor((90.0 - F.col("lat")) / F.lit(512 / 120)), F.col("lon")]


@dataclass(frozen=True)
class Labeller:
    """Labels points with every partition; broadcast to the workers.

    `partitions` maps each partition name to its assigner and its candidate index.
    """

    partitions: dict[str, tuple[Assigner, CandidateIndex]]

    def label(self, points: pa.Table) -> pa.Table:
        """Add s2_id and one column of region indices (int64) per partition; rows are sorted by s2_id.

        `points` has the columns image_id, source, lat, lon (WGS-84, degrees). A negative index is a code that says why
        there is no region, see `geo.codes`.
        """
        leaves = s2.cell_ids(points["lat"].to_numpy(), points["lon"].to_numpy())
        order = np.argsort(leaves, kind="stable")
        points = points.take(order)
        lat, lon = points["lat"].to_numpy(), points["lon"].to_numpy()
        columns = {"s2_id": leaves[order]}
        for name, (assigner, index) in self.partitions.items():
            columns[name] = assigner.assign(lat, lon, index.candidates(lat, lon))
        for name, values in columns.items():
            points = points.append_column(name, pa.array(values, pa.int64()))
        return points
