"""What a labelling run used and found: tables `partitions` and `regions_of_partition`, and counts for the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.partitions.base import NODATA, OUTSIDE, UNKNOWN, Partition, PartitionDefinition
from geosieve.tables.publish import Publication
from geosieve.tables.schemas import PARTITIONS, REGIONS

_LISTED = 50  # regions that the report counts one by one; of more it gives the fullest

Counts = dict[str, dict[int, int]]
"""Images by partition name and region index."""


def count_regions(labels: DataFrame, names: list[str]) -> Counts:
    """How many images have each label of each partition, counted from the written table."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for name in names:
                region, images = np.unique(batch[name].to_numpy(), return_counts=True)
                yield pa.RecordBatch.from_pydict(
                    {"partition": [name] * region.size, "region": region, "images": images}
                )

    counted = labels.select(*names).mapInArrow(count, "partition string, region bigint, images bigint")
    rows = counted.groupBy("partition", "region").agg(F.sum("images").alias("images")).toPandas()
    return {
        str(name): dict(zip(group["region"].tolist(), group["images"].tolist(), strict=True))
        for name, group in rows.groupby("partition")
    }


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
    publication.write(PARTITIONS, spark.createDataFrame(rows, PARTITIONS.spark_schema()).coalesce(1))
    regions = pd.DataFrame(
        [
            (p.name, p.digest, region.index, region.name, region.wkb)
            for p in partitions
            for region in p.regions(np.array(sorted(r for r in counts.get(p.name, {}) if r >= 0), dtype=np.int64))
        ],
        columns=["partition", "partition_hash", "region", "name", "wkb"],
    )
    schema = "partition string, partition_hash string, region bigint, name string, wkb binary"
    # From pandas, by Arrow: an S2 level may have a million cells with images.
    frame = spark.createDataFrame(regions, schema).withColumn("geometry", F.expr("ST_GeomFromWKB(wkb)")).drop("wkb")
    publication.write(REGIONS, frame.coalesce(1))


def summarize(partitions: list[Partition], counts: Counts) -> dict[str, dict[str, Any]]:
    """For each partition: hash, images labelled, outside, without data and of unknown value, and images by region."""
    return {p.name: _facts(p, counts.get(p.name, {})) for p in partitions}


def _facts(partition: Partition, counts: dict[int, int]) -> dict[str, Any]:
    inside = {region: n for region, n in counts.items() if region >= 0}
    fullest = sorted(inside, key=lambda region: (-inside[region], region))[:_LISTED]
    names = {r.index: r.name for r in partition.regions(np.array(sorted(fullest), dtype=np.int64))}
    return {
        "hash": partition.digest,
        "labelled": sum(inside.values()),
        "outside": counts.get(OUTSIDE, 0),
        "nodata": counts.get(NODATA, 0),
        "unknown": counts.get(UNKNOWN, 0),
        "regions_with_images": len(inside),
        "regions": {names[region]: inside[region] for region in fullest},
    }
