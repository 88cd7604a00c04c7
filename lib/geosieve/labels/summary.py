"""The tables that describe a labelling run (`partitions`, `regions_of_partition`), and label counts for its report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import SparkSession

from geosieve.geo.arrays import I8
from geosieve.geo.codes import NODATA, OUTSIDE, UNMAPPED
from geosieve.partitions.base import Partition, PartitionDefinition
from geosieve.partitions.read import partitions_frame, regions_frame, used_partitions
from geosieve.runtime.errors import IntegrityError, RetryableError
from geosieve.tables.publish import Publication
from geosieve.tables.schemas import PARTITIONS, REGIONS

_LISTED = 50  # the report lists at most this many regions of a partition: those with the most images

Counts = dict[str, tuple[I8, I8]]
"""Maps each partition name to the labels that occur, in ascending order, and the number of images with each label."""


class _Sums(AccumulatorParam[Counts]):
    """Merges counts on the driver as they arrive. So memory grows with the number of regions, not of tasks."""

    def zero(self, value: Counts) -> Counts:
        return {}

    def addInPlace(self, value1: Counts, value2: Counts) -> Counts:
        for name, counts in value2.items():
            value1[name] = _sum(value1[name], counts) if name in value1 else counts
        return value1


def _counts(labels: pa.ChunkedArray) -> tuple[I8, I8]:
    # value_counts uses a hash table. np.unique would sort the labels, which takes a fifth of the time of labelling.
    found = pc.value_counts(labels)
    labels, images = found.field("values").to_numpy(), found.field("counts").to_numpy()
    order = np.argsort(labels)
    return labels[order], images[order]


def _sum(first: tuple[I8, I8], second: tuple[I8, I8]) -> tuple[I8, I8]:
    labels, at = np.unique(np.concatenate([first[0], second[0]]), return_inverse=True)
    images = np.zeros(labels.size, dtype=np.int64)
    np.add.at(images, at, np.concatenate([first[1], second[1]]))
    return labels, images


class LabelCounter:
    """Counts the images per label and partition while tasks write the labels.

    It is a Spark accumulator. Spark adds the counts of each writing task once, even if the task is retried.
    """

    def __init__(self, spark: SparkSession, names: list[str]) -> None:
        self._names = names
        self._found = spark.sparkContext.accumulator({}, _Sums())

    def add(self, labels: pa.Table) -> None:
        """Count `labels`, which has one column per partition. Called in a task, before it writes them."""
        self._found.add({name: _counts(labels[name]) for name in self._names})

    def counts(self, rows: int) -> Counts:
        """The counts of all tasks. Called on the driver, after `rows` rows were written.

        RetryableError if more labels of a partition were counted than `rows`: they were written again, because another
        attempt of the run was writing at the same time (on S3). IntegrityError if fewer were counted.
        """
        none = np.empty(0, dtype=np.int64)
        found = {name: self._found.value.get(name, (none, none)) for name in self._names}
        for name, (_, images) in found.items():
            if images.sum() != rows:
                failure = RetryableError if images.sum() > rows else IntegrityError
                raise failure(
                    f"{images.sum()} labels of {name} were counted, {rows} were written",
                    hint="nothing was committed; run again",
                )
        return found


def publish_partitions(
    publication: Publication,
    spark: SparkSession,
    definitions: list[PartitionDefinition],
    partitions: list[Partition],
    counts: Counts,
) -> None:
    """Write the tables of partitions and their regions, without committing them.

    `definitions` and `partitions` are in the same order. If a partition cannot list all its regions, only those that
    occur in `counts` are written.
    """
    publication.write(PARTITIONS, partitions_frame(spark, used_partitions(definitions, partitions)))
    regions = []
    for p in partitions:
        labels, _ = counts[p.name]
        regions.append((p.name, p.digest, p.regions(labels[labels >= 0])))
    publication.write(REGIONS, regions_frame(spark, regions))


def summarize(partitions: list[Partition], counts: Counts) -> dict[str, dict[str, Any]]:
    """For the report, by partition name: hash, and numbers of images.

    The numbers are those with a region (`labelled`), those `outside` the partition, without data (`nodata`) and with a
    value that the partition does not assign (`unknown`), and those of the regions with the most images, by name.
    """
    return {p.name: _facts(p, *counts[p.name]) for p in partitions}


def _facts(partition: Partition, labels: I8, images: I8) -> dict[str, Any]:
    inside = labels >= 0
    fullest = np.lexsort((labels, -np.where(inside, images, 0)))[: min(_LISTED, int(inside.sum()))]
    regions = partition.regions(np.sort(labels[fullest]))
    names = dict(zip(regions["region"].to_pylist(), regions["name"].to_pylist(), strict=True))
    by_name: dict[str, int] = {}
    for i in fullest:  # regions may share a name
        name = names[int(labels[i])]
        by_name[name] = by_name.get(name, 0) + int(images[i])
    return {
        "hash": partition.digest,
        "labelled": int(images[inside].sum()),
        "outside": int(images[labels == OUTSIDE].sum()),
        "nodata": int(images[labels == NODATA].sum()),
        "unknown": int(images[labels == UNMAPPED].sum()),
        "regions_with_images": int(inside.sum()),
        "regions": by_name,
    }
