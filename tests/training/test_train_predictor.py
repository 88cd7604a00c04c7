"""`train_predictor` end to end: from committed shards to an artefact that answers, with one process and with two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from box_partitions import box_partition
from pyspark.sql import SparkSession
from safetensors.torch import load_file
from training_world import TrainingWorld
from workspace import JOBS

from geosieve.images.decode import decode
from geosieve.models.graph import GraphPredictor
from geosieve.models.predictor import TrainedPredictor
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO
from geosieve.training.train import train_predictor
from geosieve.training.train_config import TrainConfig

ROOT = Path(__file__).parents[2]


BOXES = {"west": (-180.0, -90.0, 0.0, 90.0), "east": (0.0, -90.0, 180.0, 85.0), "pole": (0.0, 85.0, 180.0, 90.0)}
"""Halves of the world, and a region without an image."""


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TrainingWorld:
    """Shards with 90 images, of the regions of `halves` and the cells `s2_l3`."""
    made = TrainingWorld(tmp_path_factory.mktemp("train"), spark)
    made.jobs = {**JOBS, "train_predictor": (TrainConfig, train_predictor)}
    made.publish(made.rows, "r1")
    root = {"root": str(made.tables), "sources": ["photos"], "run": "r1"}
    code, report = made.label(
        [box_partition(made.root, "halves", BOXES), {"name": "s2_l3", "kind": "s2", "level": 3}], sources=["photos"]
    )
    assert code == EXIT_DONE, report["error"]
    splits = [{"name": "validation", "share": 0.3}, {"name": "train", "share": 0.7}]
    split = {"name": "halves", "seed": 3, "groups": [], "draw": "image", "splits": splits}
    code, report = made.run("build_splits", {**split, "images": root})
    assert code == EXIT_DONE, report["error"]
    code, report = made.prepare(labels={"partitions": ["halves", "s2_l3"]}, rows_per_file=8)
    assert code == EXIT_DONE, report["error"]
    return made


def config_of(world: TrainingWorld, **change: Any) -> dict[str, Any]:
    return {
        "name": "sides",
        "seed": 1,
        "shards": {"root": str(world.tables), "name": "test"},
        "backbone": "test_resnet",
        "heads": {"halves": {}},
        "preprocessing": {"resize": 32, "crop": 32},
        "loader": {"workers": 0},
        "batch": 4,
        "epochs": 2,
        "onnx": False,
        "output": str(world.tables),
        **change,
    }


def train(world: TrainingWorld, run_id: str, *options: str, **change: Any) -> tuple[int, dict[str, Any]]:
    return world.run("train_predictor", config_of(world, **change), run_id, *options)


def horovodrun(world: TrainingWorld, run_id: str, **change: Any) -> tuple[dict[str, Any], str]:
    """The job's report of two processes that `horovodrun` starts, and what they have written to standard error."""
    path = world.root / f"{run_id}.yaml"
    path.write_text(json.dumps(config_of(world, **change)))
    command = [str(Path(sys.executable).with_name("horovodrun")), "-np", "2", "--gloo", sys.executable]
    command += [str(ROOT / "jobs/train_predictor.py"), "--config", str(path), "--run-id", run_id, "--local"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYSPARK_SUBMIT_ARGS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith('[0]<stdout>:{"job"'))
    report: dict[str, Any] = json.loads(line.removeprefix("[0]<stdout>:"))
    assert (done.returncode == 0) == (report["status"] == "done")
    return report, done.stderr


@pytest.fixture(scope="module")
def report(world: TrainingWorld) -> dict[str, Any]:
    code, report = train(world, "one", onnx=True)
    assert code == EXIT_DONE, report["error"]
    return report


def validation(world: TrainingWorld) -> list[dict[str, Any]]:
    return [row for row in world.shards().to_pylist() if row["split"] == "validation"]


def test_the_artefact_gives_the_figures_that_it_tells(world: TrainingWorld, report: dict[str, Any]) -> None:
    predictor = TrainedPredictor.load(report["details"]["predictor"])
    rows = validation(world)
    log_p = predictor.log_probabilities([np.asarray(decode(row["image"])) for row in rows])["halves"]
    labels = np.array([row["halves"] for row in rows])
    told = predictor.facts.partitions[0].metrics
    assert told["images"] == len(rows) and told == report["details"]["validation"]["halves"]
    assert -log_p[np.arange(len(rows)), labels].mean() == pytest.approx(told["log_loss"], abs=1e-5)
    assert (log_p.argmax(axis=1) == labels).mean() == pytest.approx(told["top1"])
    assert predictor.facts.partitions[0].hash == world_hash(world, "halves")
    assert predictor.regions["halves"].column("name").to_pylist() == ["west", "east", "pole"]
    assert any("pole" in warning for warning in report["warnings"])  # it has no training image
    graph = GraphPredictor.load(report["details"]["predictor"], threads=1)
    told = graph.log_probabilities([np.asarray(decode(row["image"])) for row in rows])["halves"]
    assert told == pytest.approx(log_p, abs=1e-4) and graph.digest == predictor.digest


def world_hash(world: TrainingWorld, partition: str) -> str:
    leaf = world.tables / "partitions/job=label_attributes/run_id=r1"
    rows = pq.read_table(leaf, partitioning=None).to_pylist()
    return next(row["partition_hash"] for row in rows if row["partition"] == partition)


def test_the_table_says_where_the_artefact_is(world: TrainingWorld, report: dict[str, Any]) -> None:
    leaf = world.tables / "predictors/predictor=sides/run_id=one"
    (row,) = pq.read_table(leaf, partitioning=None).to_pylist()
    assert row["artefact"] == report["details"]["predictor"] and row["backbone"] == "test_resnet"
    assert row["partitions"][0]["hash"] == world_hash(world, "halves")
    assert (report["rows_in"], report["rows_out"]) == (1, 1)
    assert train(world, "one", onnx=True)[0] == EXIT_NOTHING_TO_DO


@pytest.fixture(scope="module")
def tasks(world: TrainingWorld) -> dict[str, torch.Tensor]:
    """Weights that two tasks of Spark have learned."""
    code, report = train(world, "two", processes=2)
    assert code == EXIT_DONE, report["error"]
    return load_file(Path(report["details"]["predictor"], "weights.safetensors"))


def test_tasks_of_spark_train_as_processes_of_horovod(
    world: TrainingWorld, tasks: dict[str, torch.Tensor], report: dict[str, Any]
) -> None:
    code, again = train(world, "three", processes=2)
    assert code == EXIT_DONE, again["error"]
    found = load_file(Path(again["details"]["predictor"], "weights.safetensors"))
    assert all(torch.equal(value, found[name]) for name, value in tasks.items())
    alone = load_file(Path(report["details"]["predictor"], "weights.safetensors"))
    assert not all(torch.equal(value, alone[name]) for name, value in tasks.items())


def test_processes_of_horovodrun_train_as_tasks_of_spark_do(
    world: TrainingWorld, tasks: dict[str, torch.Tensor]
) -> None:
    report, _ = horovodrun(world, "run")
    assert report["status"] == "done", report["error"]
    found = load_file(Path(report["details"]["predictor"], "weights.safetensors"))
    assert all(torch.allclose(value, found[name], atol=1e-5) for name, value in tasks.items())
    again, _ = horovodrun(world, "run")
    assert again["status"] == "nothing_to_do"  # and the other process is told


def test_what_all_processes_find_wrong_and_what_one_finds(world: TrainingWorld) -> None:
    report, _ = horovodrun(world, "few", loader={"workers": 6})
    assert "files for 2 ranks with 6 streams each" in report["error"]
    with cut_off(world):
        code, told = train(world, "cut")
        assert code == EXIT_BAD_INPUT and "damaged or cut off" in told["error"]
    with an_image_replaced(world):
        for processes in (1, 2):
            code, told = train(world, f"replaced{processes}", processes=processes)
            assert code == EXIT_BAD_INPUT and "cannot be decoded" in told["error"]


@contextmanager
def cut_off(world: TrainingWorld) -> Iterator[None]:
    """Inside the block, one shard of the training split lacks its end."""
    name = next(file["name"] for file in world.files() if file["split"] == "train")
    path = world.leaf() / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    try:
        yield
    finally:
        path.write_bytes(whole)


@contextmanager
def an_image_replaced(world: TrainingWorld) -> Iterator[None]:
    """Inside the block, an image of one shard of the training split is none."""
    name = next(file["name"] for file in world.files() if file["split"] == "train")
    path = world.leaf() / name
    whole, crc = path.read_bytes(), path.with_name(f".{name}.crc")
    checksum = crc.read_bytes()
    crc.unlink()  # Hadoop would find the change
    table = pq.ParquetFile(path).read()
    images = [*table.column("image").to_pylist()[:-1], b"no image"]
    at = table.schema.get_field_index("image")
    pq.write_table(table.set_column(at, table.schema.field(at), [pa.array(images, pa.binary())]), path)
    try:
        yield
    finally:
        path.write_bytes(whole)
        crc.write_bytes(checksum)


def test_what_does_not_fit_is_named(world: TrainingWorld, tmp_path: Path) -> None:
    code, report = train(world, "x", heads={"s2_l3": {}})
    assert code == EXIT_BAD_CONFIG and "a level of S2 is no partition to learn" in report["error"]
    code, report = train(world, "x", heads={"halfs": {}})
    assert code == EXIT_BAD_INPUT and "halves" in report["error"]
    code, report = train(world, "x", shards={"root": str(world.tables), "name": "tests"})
    assert code == EXIT_BAD_INPUT and "test" in report["error"]
    code, report = train(world, "x", shards={"root": str(world.tables), "name": "test", "validation": "validating"})
    assert code == EXIT_BAD_INPUT and "validation" in report["error"]
    code, report = train(world, "x", heads={"halves": {"haversine_km": 70}})
    assert code == EXIT_BAD_CONFIG and "haversine_km" in report["error"]
    code, report = train(world, "x", backbone="test_resnett")
    assert code == EXIT_BAD_CONFIG and "test_resnet" in report["error"]
    code, report = train(world, "x", weights=str(tmp_path / "none.pth"))
    assert code == EXIT_BAD_CONFIG and "no such file" in report["error"]
    code, report = train(world, "x", processes=3)
    assert code == EXIT_BAD_CONFIG and "cores" in report["error"]
    assert not (world.tables / "predictors/predictor=sides/run_id=x/_SUCCESS").exists()


def test_a_dry_run_shows_and_writes_nothing(world: TrainingWorld) -> None:
    code, report = train(world, "dry", "--dry-run")
    assert code == EXIT_DONE and "3 regions" in report["details"]["inputs"]["head halves"]
    assert not list(world.tables.glob("_predictors/sides/dry")) and not list(world.tables.glob("_training/sides/dry"))


def test_labels_of_another_version_of_the_partition_are_refused(world: TrainingWorld) -> None:
    """The run of labels was made again, with other borders, after the shards were made."""
    leaf = world.tables / "partitions/job=label_attributes/run_id=r1"
    (path,) = leaf.glob("*.parquet")
    before = path.read_bytes()
    path.with_name(f".{path.name}.crc").unlink()  # Hadoop would find the change
    table = pq.read_table(path)
    hashes = ["0" * 64 for _ in range(len(table))]
    pq.write_table(table.set_column(table.schema.get_field_index("partition_hash"), "partition_hash", [hashes]), path)
    try:
        code, report = train(world, "other")
        assert code == EXIT_BAD_INPUT and "another version of partition halves" in report["error"]
    finally:
        path.write_bytes(before)
