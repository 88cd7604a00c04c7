"""`train_predictor`: training shards become a predictor artefact, and a row of `predictors`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyspark.sql import DataFrame, SparkSession

from geosieve.geo.arrays import F8
from geosieve.job.main import Context, main
from geosieve.job.publishing import publishes
from geosieve.models.artefact import PartitionOfPredictor
from geosieve.models.card import model_card
from geosieve.models.onnx import as_onnx, check_packages
from geosieve.models.predictor import write_predictor
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.report import JobReport
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import PREDICTORS
from geosieve.training import launch
from geosieve.training.evaluate import OfPartition
from geosieve.training.loop import PartitionFacts, Setup
from geosieve.training.plan import ShardFiles
from geosieve.training.ranks import Ranks
from geosieve.training.read import CommittedShards, read_shards
from geosieve.training.train_config import TrainConfig

JOB = "train_predictor"
_LISTED = 5


def _leaves(config: TrainConfig) -> list[Leaf]:
    return [Leaf(PREDICTORS, {"predictor": config.name})]


@publishes(_leaves)
def train_predictor(context: Context[TrainConfig], publication: Publication) -> int:
    """Train, write the artefact, and a row that says where it is. Returns 1, the number of predictors.

    InputError if the shards, their labels or a file of them cannot be used, or the loss is not finite; ConfigError for
    a backbone, weights or heads that do not exist; RetryableError if a process dies. A later attempt of the same run
    continues from the last checkpoint.
    """
    config, report, spark = context.config, context.report, context.spark
    if config.onnx:
        check_packages()
    with report.stage("inputs"):
        shards = read_shards(spark, config.shards, list(config.heads))
        regions = {name: shards.regions(name) for name in config.heads}
        setup = _setup(context, shards, regions)
        _tell_empty(context, setup, regions)
        _check_family(config, regions)
    if context.dry_run:
        files = {name: f"{sum(of.rows):,} images in {len(of.uris)} files" for name, of in _splits(setup).items()}
        heads = {f"head {p.name}": f"{p.regions:,} regions, hash {p.digest}" for p in setup.partitions}
        context.show_plan({"shards": shards.run.uri, **files, **heads}, {})
        return 0
    with report.stage("train"):
        weights, evaluation = launch.train(spark, setup)
    with report.stage("write"):
        facts = {
            "name": config.name,
            "backbone": config.backbone,
            "partitions": [
                {
                    "name": p.name,
                    "hash": p.digest,
                    "regions": p.regions,
                    "temperature": evaluation.partitions[p.name].temperature,
                    "metrics": _metrics(evaluation.partitions[p.name]),
                }
                for p in setup.partitions
            ],
            "family": config.family,
            "preprocessing": config.preprocessing,
            "over_crops": config.over_crops,
            "shards": shards.run.uri,
            "training": config.model_dump(mode="json"),
            "code": {name: version(name) for name in ("geosieve", "torch", "timm", "horovod")},
        }
        uri = config.beside_tables("predictors", config.name, report.run_id)
        graph = _graph(report, facts, weights) if config.onnx else None
        written, digest = write_predictor(uri, facts, weights, regions, model_card(facts), graph)
        publication.write(PREDICTORS, _row(spark, uri, digest, written.partitions, facts))
        report.rows_out = 1
        report.details["predictor"] = uri
        report.details["validation"] = {name: _metrics(found) for name, found in evaluation.partitions.items()}
    report.rows_in = 1
    return 1


def _graph(report: JobReport, facts: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> bytes | None:
    """The content of network.onnx; None, with a warning, if there can be none: a training is not lost for it."""
    try:
        return as_onnx(facts, weights)
    except InputError as error:
        report.warn(f"there is no network.onnx, and scans on CPUs are slower: {error}")
        return None


def _setup(context: Context[TrainConfig], shards: CommittedShards, regions: Mapping[str, pa.Table]) -> Setup:
    config = context.config
    train, validation = (shards.files(split, config.heads) for split in (config.shards.train, config.shards.validation))
    partitions = tuple(
        PartitionFacts(
            name,
            shards.hashes[name],
            _centres(name, table, config.heads[name].haversine_km is not None),
            shards.images_of(config.shards.train, name, len(table)),
        )
        for name, table in regions.items()
    )
    identity = json.dumps([config.digest(), shards.run.uri, [[p.name, p.digest] for p in partitions]])
    return Setup(
        config,
        train,
        validation,
        partitions,
        config.beside_tables("training", config.name, context.report.run_id),
        hashlib.sha256(identity.encode()).hexdigest(),
    )


def _splits(setup: Setup) -> dict[str, ShardFiles]:
    return {setup.config.shards.train: setup.train, setup.config.shards.validation: setup.validation}


def _centres(name: str, regions: pa.Table, needed: bool) -> F8:
    """Latitude and longitude of the regions, (regions, 2). ConfigError if they are needed and one has none."""
    columns = [regions.column(axis).to_numpy(zero_copy_only=False).astype(np.float64) for axis in ("lat", "lon")]
    centres: F8 = np.stack(columns, axis=1)
    if needed and np.isnan(centres).any():
        raise ConfigError(
            f"regions of partition {name} have no centre, from which distances could be counted",
            where=f"heads.{name}.haversine_km",
            hint="leave it out: it is for cells",
        )
    return centres


def _tell_empty(context: Context[TrainConfig], setup: Setup, regions: Mapping[str, pa.Table]) -> None:
    """Warn of regions without training images: the predictor cannot learn them."""
    for partition in setup.partitions:
        empty = np.flatnonzero(partition.images == 0)
        if len(empty) == partition.regions:
            raise ConfigError(f"no training image has a region of {partition.name}", where=f"heads.{partition.name}")
        if len(empty):
            names = regions[partition.name].column("name").take(pa.array(empty[:_LISTED])).to_pylist()
            context.report.warn(
                f"partition {partition.name}: {len(empty)} of {partition.regions} regions have no training image and "
                f"will hardly ever be told: {', '.join(names)}{' …' if len(empty) > _LISTED else ''}"
            )


def _check_family(config: TrainConfig, regions: Mapping[str, pa.Table]) -> None:
    """ConfigError unless each partition of the family says the parents of its regions, in the one before."""
    for coarse, fine in zip(config.family, config.family[1:], strict=False):
        parents = regions[fine].column("parent")
        known = [parent for parent in parents.to_pylist() if parent is not None]
        if not known or max(known) >= len(regions[coarse]):
            raise ConfigError(
                f"the regions of {fine} have no parents among those of {coarse}",
                where="family",
                hint="name partitions that build_partitions made as one family, the coarsest first",
            )


def _metrics(found: OfPartition) -> dict[str, Any]:
    return {
        "images": found.images,
        "log_loss": found.log_loss,
        "top1": found.top1,
        "top5": found.top5,
        "temperature": found.temperature,
        "calibration_error": found.calibration_error,
        "reliability": [list(row) for row in found.reliability],
    }


def _row(
    spark: SparkSession, uri: str, digest: str, partitions: list[PartitionOfPredictor], facts: Mapping[str, Any]
) -> DataFrame:
    listed = [
        {
            "name": p.name,
            "hash": p.hash,
            "regions": p.regions,
            "temperature": p.temperature,
            "images": p.metrics["images"],
            "log_loss": p.metrics["log_loss"],
            "top1": p.metrics["top1"],
        }
        for p in partitions
    ]
    row: Any = {
        "artefact": uri,
        "artefact_sha256": digest,
        "backbone": facts["backbone"],
        "shards": facts["shards"],
        "partitions": listed,
    }
    return spark.createDataFrame([row], PREDICTORS.spark_schema())


def start(arguments: Sequence[str] | None = None) -> int:
    """Run the job from its command line, or as one of the ranks that `horovodrun` has started; return the exit code.

    Only rank 0 reads and writes tables.
    """
    if not launch.under_horovodrun():
        return main(JOB, TrainConfig, train_predictor, arguments)
    if Ranks.start().rank > 0:  # at once: the others wait for half a minute only
        return launch.follow()
    try:
        return main(JOB, TrainConfig, train_predictor, arguments)
    finally:
        launch.release()
