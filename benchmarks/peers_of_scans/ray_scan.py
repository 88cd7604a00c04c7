"""Photos of a folder to probabilities with Ray Data, as its documentation shows: a class of map_batches."""

from __future__ import annotations

import sys
from typing import Any

import ray
from network import BATCH, SIDE, Look

folder, output = sys.argv[1:]


class Scores:
    """One actor with two threads."""

    def __init__(self) -> None:
        self.look = Look(threads=2)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"path": batch["path"], "probabilities": self.look(batch["image"])}


ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
images = ray.data.read_images(folder, size=(SIDE, SIDE), mode="RGB", include_paths=True)
images.map_batches(Scores, batch_size=BATCH, concurrency=1, num_cpus=1).write_parquet(output)
