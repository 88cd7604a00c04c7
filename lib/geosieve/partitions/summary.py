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
from geosieve.tables.arrow import chunks
from geosieve.tables.publish import Publication
from geosieve.tables.schemas import PARTITIONS, REGIONS

_LISTED = 50  # regions that the report counts one by one; of more it gives the fullest

_REGIONS_PER_FILE = 100_000

Counts = dict[str, dict[int, int]]
"""Images by partition name and region index."""


def count_regions(labels: DataFrame, names: list[str]) -> Counts:
    """How many images have each label of each partition, counted from the written table."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            for number, name in enumerate(names):
                region, images = np.unique(chunk[name].to_numpy(), return_counts=True)
                yield pa.RecordBatch.from_arrays([np.full(region.size, number), region, images], counted)

    # Files hold neighbours, so that their counts hardly overlap and the driver adds up little more than it keeps.
    counted = ["partition", "region", "images"]
    rows = labels.select(*names).mapInArrow(count, ", ".join(f"{column} bigint" for column in counted)).toPandas()
    sums = rows.groupby(["partition", "region"], as_index=False)["images"].sum()
    return {
        name: dict(zip(group["region"].tolist(), group["images"].tolist(), strict=True))
        for number, name in enumerate(names)
        for group in [sums[sums["partition"] == number]]
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
    regions = []
    for p in partitions:
        observed = np.array(sorted(region for region in counts.get(p.name, {}) if region >= 0), dtype=np.int64)
        regions.append(p.regions(observed).to_pandas().assign(partition=p.name, partition_hash=p.digest))
    listed = pd.concat(regions)[["partition", "partition_hash", "region", "name", "wkb"]]
    # From pandas, by Arrow: an S2 level may have a million cells with images.
    schema = "partition string, partition_hash string, region bigint, name string, wkb binary"
    frame = spark.createDataFrame(listed, schema)
    frame = frame.withColumn("geometry", F.expr("ST_GeomFromWKB(wkb)")).drop("wkb")
    publication.write(REGIONS, frame.coalesce(1 + len(listed) // _REGIONS_PER_FILE))


def summarize(partitions: list[Partition], counts: Counts) -> dict[str, dict[str, Any]]:
    """For each partition: hash, images labelled, outside, without data and of unknown value, and images by region."""
    return {p.name: _facts(p, counts.get(p.name, {})) for p in partitions}


def _facts(partition: Partition, counts: dict[int, int]) -> dict[str, Any]:
    inside = {region: n for region, n in counts.items() if region >= 0}
    fullest = sorted(inside, key=lambda region: (-inside[region], region))[:_LISTED]
    regions = partition.regions(np.array(sorted(fullest), dtype=np.int64))
    names = dict(zip(regions["region"].to_pylist(), regions["name"].to_pylist(), strict=True))
    return {
        "hash": partition.digest,
        "labelled": sum(inside.values()),
        "outside": counts.get(OUTSIDE, 0),
        "nodata": counts.get(NODATA, 0),
        "unknown": counts.get(UNKNOWN, 0),
        "regions_with_images": len(inside),
        "regions": {names[region]: inside[region] for region in fullest},
    }
