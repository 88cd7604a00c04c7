"""The classes that caps and balances name: label columns of images, and the regions' names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo.codes import NODATA, OUTSIDE, UNMAPPED
from geosieve.partitions.read import LABEL_JOB
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.names import advice, did_you_mean
from geosieve.splits.config import LabelsInput
from geosieve.tables.read import Run, committed_runs, read_committed, read_runs, select_runs
from geosieve.tables.schemas import LABELS, PARTITIONS, REGIONS, labels_table

_WITHOUT_REGION = {OUTSIDE: "(outside)", NODATA: "(no data)", UNMAPPED: "(unknown value)"}


def label_column(partition: str) -> str:
    """The name under which a partition's labels stand among the columns of images."""
    return f"label_{partition}"


@dataclass(frozen=True)
class Classes:
    """Labels of one run: rows source, image_id and `label_column`s, and the regions' names by partition and number.

    Regions that share a name are one class.
    """

    labels: DataFrame
    regions: dict[str, dict[int, str]]
    run: Run

    def named(self, partition: str, names: Iterable[str]) -> dict[int, str]:
        """The regions of these names, by number. ConfigError names the nearest region where there is none of a name."""
        known = list(dict.fromkeys(self.regions[partition].values()))
        wanted = set(names)
        for name in sorted(wanted - set(known)):
            hint = advice(name, known, "regions")
            raise ConfigError(f"partition {partition} has no region {name!r}", where=self.run.uri, hint=hint)
        return {number: name for number, name in self.regions[partition].items() if name in wanted}

    def name(self, partition: str, region: int | None) -> str:
        """The name of a region, or in brackets why an image has none."""
        if region is None:
            return "(not labelled)"
        return self.regions[partition].get(region) or _WITHOUT_REGION.get(region, f"({region})")


def read_classes(spark: SparkSession, given: LabelsInput, partitions: list[str]) -> Classes:
    """Labels of the run for these partitions. InputError if the run has no such column or gives no names."""
    runs = select_runs(committed_runs(spark, given.root, LABELS), given.run, f"{given.root}/{LABELS.name}")
    if len(runs) > 1:
        raise ConfigError("labels.run: one run gives the classes", where=given.root, hint="name it, or write latest")
    run = runs[0]
    described = {
        table.name: read_committed(spark, given.root, table, job=LABEL_JOB, run_id=run.run_id)
        for table in (PARTITIONS, REGIONS)
    }
    have = sorted(row.partition for row in described[PARTITIONS.name].select("partition").collect())
    missing = [name for name in partitions if name not in have]
    if missing:
        raise InputError(
            f"the labels have no partition {', '.join(repr(name) for name in missing)}; they have {', '.join(have)}",
            where=run.uri,
            hint=did_you_mean(missing[0], have) or "label the images with it first, or choose another labels.run",
        )
    names = described[REGIONS.name].where(F.col("partition").isin(partitions)).select("partition", "name", "region")
    regions: dict[str, dict[int, str]] = {name: {} for name in partitions}
    for row in names.orderBy("partition", "region").collect():
        regions[row.partition][row.region] = row.name
    labels = read_runs(spark, given.root, labels_table(partitions), [run])
    renamed = [F.col(name).alias(label_column(name)) for name in partitions]
    return Classes(labels.select("source", "image_id", *renamed), regions, run)
