"""The classes that caps and balances use: label columns of images, and names of regions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.labels.read import WITHOUT_REGION, LabelsInput, read_labels
from geosieve.runtime.errors import ConfigError
from geosieve.runtime.names import advice
from geosieve.tables.read import Run


def label_column(partition: str) -> str:
    """The column of the images table that contains the labels of a partition."""
    return f"label_{partition}"


@dataclass(frozen=True)
class Classes:
    """The labels of one run.

    `labels`: one row per image with source, image_id and one `label_column` per partition. `regions`: names of regions
    by partition and region number. Regions with the same name form one class.
    """

    labels: DataFrame
    regions: dict[str, dict[int, str]]
    run: Run

    def named(self, partition: str, names: Iterable[str]) -> dict[int, str]:
        """The regions with one of these names, as number: name.

        ConfigError if no region has one of the names; its hint suggests the most similar name.
        """
        known = list(dict.fromkeys(self.regions[partition].values()))
        wanted = set(names)
        for name in sorted(wanted - set(known)):
            hint = advice(name, known, "regions")
            raise ConfigError(f"partition {partition} has no region {name!r}", where=self.run.uri, hint=hint)
        return {number: name for number, name in self.regions[partition].items() if name in wanted}

    def name(self, partition: str, region: int | None) -> str:
        """The name of a region, or the reason in parentheses why an image has none, such as "(no data)"."""
        if region is None:
            return "(not labelled)"
        return self.regions[partition].get(region) or f"({WITHOUT_REGION.get(region, region)})"


def read_classes(spark: SparkSession, given: LabelsInput, partitions: list[str]) -> Classes:
    """Read the labels of these partitions from the run `given`.

    InputError if there is no such run, if several runs match, or if the run did not label one of the partitions.
    """
    committed = read_labels(spark, given.root, given.run, partitions)
    renamed = [F.col(name).alias(label_column(name)) for name in partitions]
    return Classes(committed.rows().select("source", "image_id", *renamed), committed.region_names(), committed.run)
