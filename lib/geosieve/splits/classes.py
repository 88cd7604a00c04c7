"""The classes that caps and balances name: label columns of images, and the regions' names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.labels.read import WITHOUT_REGION, read_labels
from geosieve.runtime.errors import ConfigError
from geosieve.runtime.names import advice
from geosieve.splits.config import LabelsInput
from geosieve.tables.read import Run


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
        return self.regions[partition].get(region) or f"({WITHOUT_REGION.get(region, region)})"


def read_classes(spark: SparkSession, given: LabelsInput, partitions: list[str]) -> Classes:
    """Labels of the run for these partitions. InputError if the run has no such column or gives no names."""
    committed = read_labels(spark, given.root, given.run, partitions)
    renamed = [F.col(name).alias(label_column(name)) for name in partitions]
    return Classes(committed.rows().select("source", "image_id", *renamed), committed.region_names(), committed.run)
