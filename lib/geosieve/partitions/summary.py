"""What a labelling run used and found: tables `partitions` and `regions_of_partition`, and counts for the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame, SparkSession

from geosieve.partitions.base import NODATA, OUTSIDE, UNKNOWN, Partition, PartitionDefinition
from geosieve.partitions.published import partitions_frame, regions_frame
from geosieve.tables.arrow import chunks
from geosieve.tables.publish import Publication
from geosieve.tables.schemas import PARTITIONS, REGIONS

_LISTED = 50  # regions that the report counts one by one; of more it gives the fullest

I8 = NDArray[np.int64]
Counts = dict[str, tuple[I8, I8]]
"""For each partition's name the labels that images have, ascending, and how many images have each."""


def count_regions(labels: DataFrame, names: list[str]) -> Counts:
    """How many images have each label of each partition, counted from the written table."""
    columns = ["partition", "region", "images"]

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            for number, name in enumerate(names):
                region, images = np.unique(chunk[name].to_numpy(), return_counts=True)
                yield pa.RecordBatch.from_arrays([np.full(region.size, number), region, images], columns)

    # Files hold neighbours, so that their counts hardly overlap and the driver adds up little more than it keeps.
    rows = labels.select(*names).mapInArrow(count, ", ".join(f"{column} bigint" for column in columns)).toPandas()
    sums = rows.groupby(["partition", "region"], as_index=False)["images"].sum().to_numpy(dtype=np.int64)
    return {name: (of[:, 1], of[:, 2]) for number, name in enumerate(names) for of in [sums[sums[:, 0] == number]]}


def publish_partitions(
    publication: Publication,
    spark: SparkSession,
    definitions: list[PartitionDefinition],
    partitions: list[Partition],
    counts: Counts,
) -> None:
    """Write the partitions that were used and their regions."""
    rows = [
        (p.name, p.digest, d.kind, p.n_regions, d.model_dump_json())
        for p, d in zip(partitions, definitions, strict=True)
    ]
    publication.write(PARTITIONS, partitions_frame(spark, rows))
    regions = []
    for p in partitions:
        labels, _ = counts[p.name]
        regions.append((p.name, p.digest, p.regions(labels[labels >= 0])))
    publication.write(REGIONS, regions_frame(spark, regions))


def summarize(partitions: list[Partition], counts: Counts) -> dict[str, dict[str, Any]]:
    """For each partition: hash, images labelled, outside, without data and of unknown value, and images by region."""
    return {p.name: _facts(p, *counts[p.name]) for p in partitions}


def _facts(partition: Partition, labels: I8, images: I8) -> dict[str, Any]:
    inside = labels >= 0
    fullest = np.lexsort((labels, -np.where(inside, images, 0)))[: min(_LISTED, int(inside.sum()))]
    regions = partition.regions(np.sort(labels[fullest]))
    names = dict(zip(regions["region"].to_pylist(), regions["name"].to_pylist(), strict=True))
    return {
        "hash": partition.digest,
        "labelled": int(images[inside].sum()),
        "outside": int(images[labels == OUTSIDE].sum()),
        "nodata": int(images[labels == NODATA].sum()),
        "unknown": int(images[labels == UNKNOWN].sum()),
        "regions_with_images": int(inside.sum()),
        "regions": {names[int(labels[i])]: int(images[i]) for i in fullest},
    }
