"""Training with shards, checkpoints and artefacts on S3: the same as on a disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import torch
from fabricated_training import setup_of
from s3_server import S3Server
from small_predictor import write_example

from geosieve.models.predictor import TrainedPredictor
from geosieve.runtime import store
from geosieve.runtime.errors import RetryableError
from geosieve.training import loop
from geosieve.training.loop import Setup
from geosieve.training.metrics import Metrics
from geosieve.training.plan import ShardFiles
from geosieve.training.ranks import Ranks

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1", "AWS_HTTPS": "NO"}
BUCKET = "s3a://trained"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    found = S3Server()
    for name, value in {**KEYS, "AWS_S3_ENDPOINT": found.endpoint}.items():
        monkeypatch.setenv(name, value)
    store._s3.cache_clear()
    yield found
    store._s3.cache_clear()
    found.close()


def on_s3(server: S3Server, setup: Setup) -> Setup:
    """The same training, after its shards were copied."""
    keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    client: Any = boto3.client("s3", endpoint_url=f"http://{server.endpoint}", **keys)
    client.create_bucket(Bucket="trained")

    def copied(files: ShardFiles, split: str) -> ShardFiles:
        names = [f"shards/{split}=a b#1/{Path(uri).name}" for uri in files.uris]
        for uri, name in zip(files.uris, names, strict=True):
            client.upload_file(uri.removeprefix("file:"), "trained", name)
        return replace(files, uris=tuple(f"{BUCKET}/{name}" for name in names))

    train, validation = copied(setup.train, "train"), copied(setup.validation, "validation")
    return replace(setup, train=train, validation=validation, work=f"{BUCKET}/work")


class Killed(Metrics):
    def step(self, step: int, *_: Any) -> None:
        if step > 9:
            raise KeyboardInterrupt


def test_a_training_that_is_killed_and_continued_on_s3_equals_one_on_disk(server: S3Server, tmp_path: Path) -> None:
    local = setup_of(tmp_path, epochs=2)
    expected, evaluation = loop.run(local, Ranks.start(), Metrics(local.work, 0, None))
    setup = on_s3(server, local)
    with pytest.raises(KeyboardInterrupt):
        loop.run(setup, Ranks.start(), Killed(setup.work, 0, None))
    names = store.list_folder(f"{BUCKET}/work/checkpoints")
    assert [name[:15] for name in names] == ["step-0000000004", "step-0000000008"]
    found, again = loop.run(setup, Ranks.start(), Metrics(setup.work, 0, None))
    assert all(torch.equal(value, found[name]) for name, value in expected.items()) and again == evaluation
    assert len(store.list_folder(f"{BUCKET}/work/checkpoints")) == 3  # the last two, and the best
    assert store.list_folder(f"{BUCKET}/work") == ["metrics.jsonl"]


def test_a_store_that_is_down_is_no_fault_of_the_shards(server: S3Server, tmp_path: Path) -> None:
    setup = on_s3(server, setup_of(tmp_path, epochs=1))
    with server.refusing(503, lambda request: request.path.endswith(".parquet")), pytest.raises(RetryableError):
        loop.run(setup, Ranks.start(), Metrics(setup.work, 0, None))


def test_an_artefact_on_s3(server: S3Server, tmp_path: Path) -> None:
    on_s3(server, setup_of(tmp_path))
    images = [np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)]
    for uri in (f"{BUCKET}/predictors/a", str(tmp_path / "a")):
        write_example(uri)
    there, here = (TrainedPredictor.load(uri) for uri in (f"{BUCKET}/predictors/a", str(tmp_path / "a")))
    assert there.digest == here.digest
    assert (there.log_probabilities(images)["s2_fine"] == here.log_probabilities(images)["s2_fine"]).all()
