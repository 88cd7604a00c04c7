"""Reading committed training shards: their files, and the partitions whose labels they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from geosieve.geo.arrays import I8
from geosieve.labels.read import CommittedLabels, read_labels
from geosieve.runtime.config import validate
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.names import advice, did_you_mean
from geosieve.tables.publish import CONFIG, REPORT
from geosieve.tables.read import Run, attachment, named_run, read_runs
from geosieve.tables.schemas import TRAINING_SHARDS, training_shards_table
from geosieve.training.config import TrainingSetConfig
from geosieve.training.files import SHARDS_FILE
from geosieve.training.plan import ShardFiles
from geosieve.training.train_config import ShardsInput


@dataclass(frozen=True)
class CommittedShards:
    """One committed run of `training_shards`. `hashes`: those of the partitions whose labels it holds, by name."""

    spark: SparkSession
    root: str
    run: Run
    config: TrainingSetConfig
    hashes: dict[str, str]
    labels_run: str

    def files(self, split: str, labels: Iterable[str]) -> ShardFiles:
        """The files of a split, of which the columns `labels` are read. InputError if there is no such split."""
        with attachment(self.spark, self.run, SHARDS_FILE) as path:
            listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        own = sorted((file for file in listed if file["split"] == split), key=lambda file: file["shard"])
        if not own:
            known = {file["split"] for file in listed}
            raise InputError(f"no split {split!r}", where=self.run.uri, hint=advice(split, known, "splits"))
        uris = tuple(f"{self.run.uri}/{file['name']}" for file in own)
        return ShardFiles(uris, tuple(int(file["rows"]) for file in own), tuple(labels))

    def regions(self, partition: str) -> pa.Table:
        """The regions of a partition, in the order of their index, with the columns of `regions_of_partition`.

        ConfigError if not all regions are listed, as of an S2 level; InputError if the labels' run is gone, or has
        another version of the partition.
        """
        labels = self._labels(partition)
        if labels.hashes[partition] != self.hashes[partition]:
            raise InputError(
                f"run {self.labels_run} of labels has another version of partition {partition} than the shards",
                where=self.run.uri,
                hint="make the shards again",
            )
        found = labels.regions(partition)
        if len(found) != labels.sizes[partition] or not found.num_rows:
            raise ConfigError(
                f"partition {partition} has {labels.sizes[partition]:,} regions, of which {len(found)} are listed",
                where=f"heads.{partition}",
                hint="a level of S2 is no partition to learn: build_partitions makes cells that follow the images",
            )
        return found

    def _labels(self, partition: str) -> CommittedLabels:
        return read_labels(self.spark, self.config.labels.root, self.labels_run, [partition])

    def images_of(self, split: str, partition: str, regions: int) -> I8:
        """The number of images of a split in each region, (regions,)."""
        table = training_shards_table([partition])
        rows = read_runs(self.spark, self.root, table, [self.run]).where(F.col("split") == split)
        counts = np.zeros(regions, dtype=np.int64)
        for row in rows.where(F.col(partition) >= 0).groupBy(F.col(partition).alias("region")).count().collect():
            counts[row["region"]] = row["count"]
        return counts


def read_shards(spark: SparkSession, given: ShardsInput, partitions: list[str]) -> CommittedShards:
    """The run of training shards that `given` names.

    InputError if there is no such training set or run, or if it has no labels of one of the `partitions`.
    """
    kind = ("training set", "training sets")
    run = named_run(spark, given.root, TRAINING_SHARDS, given.name, given.run, kind, "prepare_training_set")
    config = validate(TrainingSetConfig, _json(spark, run, CONFIG), where=f"{run.uri}/{CONFIG}")
    details = _json(spark, run, REPORT)["details"]
    hashes = dict(details["partitions"])
    missing = sorted(set(partitions) - hashes.keys())
    if missing:
        raise InputError(
            f"the shards have no labels of {', '.join(missing)}; they have {', '.join(hashes)}",
            where=run.uri,
            hint=did_you_mean(missing[0], hashes) or "prepare_training_set with them in labels.partitions",
        )
    labels_run = str(details["runs"]["labels"]).rpartition("run_id=")[2]
    return CommittedShards(spark, given.root, run, config, hashes, labels_run)


def _json(spark: SparkSession, run: Run, name: str) -> Any:
    with attachment(spark, run, name) as path:
        return json.loads(path.read_text(encoding="utf-8"))
