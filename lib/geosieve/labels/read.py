"""Reading committed labels: the labels of one run and the names of its regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo.codes import NODATA, OUTSIDE, UNMAPPED
from geosieve.partitions.read import LABEL_JOB
from geosieve.runtime.config import Config, RunId
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean
from geosieve.tables.read import Run, committed_runs, read_committed, read_runs, select_run
from geosieve.tables.schemas import LABELS, PARTITIONS, REGIONS, labels_table

REGION_COLUMNS = pa.schema(
    [
        *(("region", pa.int64()), ("name", pa.string()), ("parent", pa.int64()), ("area_km2", pa.float64())),
        *(("lat", pa.float64()), ("lon", pa.float64()), ("n_images", pa.int64()), ("geometry", pa.binary())),
    ]
)
"""Columns of `regions_of_partition`, with the outline as WKB."""

WITHOUT_REGION = {OUTSIDE: "outside", NODATA: "no data", UNMAPPED: "unknown"}
"""Negative labels, which mean that an image has no region, and their names for people."""


class LabelsInput(Config):
    """A committed run of `labels`."""

    root: str
    run: RunId = Field("latest", description="a run id or `latest`")


@dataclass(frozen=True)
class CommittedLabels:
    """One committed run of `labels`, with the partitions that are read from it.

    `hashes` and `sizes` (numbers of regions): of all partitions whose labels the run has, by name.
    """

    spark: SparkSession
    root: str
    run: Run
    partitions: tuple[str, ...]
    hashes: Mapping[str, str]
    sizes: Mapping[str, int]

    def rows(self) -> DataFrame:
        """One row per image: image_id, source, lat, lon, s2_id, run_id and a column of region indices per partition.

        RetryableError if files of the run are missing.
        """
        return read_runs(self.spark, self.root, labels_table(list(self.partitions)), [self.run])

    def regions(self, partition: str) -> pa.Table:
        """The regions of a partition that are listed, in the order of the index, with REGION_COLUMNS.

        Of an S2 level, these are the cells that contain an image.
        """
        regions = read_committed(self.spark, self.root, REGIONS, job=LABEL_JOB, run_id=self.run.run_id)
        own = regions.where(F.col("partition") == partition).select(REGION_COLUMNS.names).orderBy("region")
        return pa.Table.from_pylist([row.asDict() for row in own.collect()], REGION_COLUMNS)

    def region_names(self, only: Mapping[str, Sequence[int]] | None = None) -> dict[str, dict[int, str]]:
        """Region names by partition name and region index, in the order of the index.

        `only` maps partition names to the indices that are wanted; without it, all regions of the run are read.
        """
        regions = read_committed(self.spark, self.root, REGIONS, job=LABEL_JOB, run_id=self.run.run_id)
        wanted = F.col("partition").isin(list(self.partitions))
        if only is not None:
            keys = [f"{name}/{index}" for name, indices in only.items() for index in indices]
            wanted = F.concat_ws("/", "partition", "region").isin(keys)
        names: dict[str, dict[int, str]] = {name: {} for name in self.partitions}
        listed = regions.where(wanted).select("partition", "region", "name").orderBy("partition", "region")
        for row in listed.collect():
            names[row["partition"]][row["region"]] = row["name"]
        return names


def read_labels(spark: SparkSession, root: str, run: str, partitions: Sequence[str]) -> CommittedLabels:
    """The labels of one run. `run` is a run id or `latest`.

    InputError if there is no such run, if `run` selects several runs (`all`), or if the run has no labels for one of
    the `partitions`.
    """
    where = f"{root}/{LABELS.name}"
    chosen = select_run(committed_runs(spark, root, LABELS), run, where)
    used = read_committed(spark, root, PARTITIONS, job=LABEL_JOB, run_id=chosen.run_id)
    rows = used.select("partition", "partition_hash", "n_regions").orderBy("partition").collect()
    hashes = {row["partition"]: row["partition_hash"] for row in rows}
    sizes = {row["partition"]: row["n_regions"] for row in rows}
    missing = sorted(set(partitions) - hashes.keys())
    if missing:
        raise InputError(
            f"run {chosen.run_id} has no label of {', '.join(missing)}; it has {', '.join(hashes)}",
            where=chosen.uri,
            hint=did_you_mean(missing[0], hashes) or "label the images with it first, or choose another run",
        )
    return CommittedLabels(spark, root, chosen, tuple(partitions), hashes, sizes)
