"""A training on fabricated shards that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fabricated_shards import WARM, write_shards

from geosieve.training.loader import ShardFiles
from geosieve.training.loop import PartitionFacts, Setup
from geosieve.training.train_config import TrainConfig

BASE: dict[str, Any] = {
    "name": "fabricated",
    "seed": 5,
    "shards": {"root": "unused", "name": "fabricated"},
    "backbone": "test_convnext",  # without batch normalisation: ranks and one process can be compared
    "heads": {"colour": {}, "warm": {"weight": 0.5}},
    "preprocessing": {"resize": 64, "crop": 64, "crops": 1},
    "augmentation": {"scale": [0.8, 1.0]},
    "loader": {"workers": 0},
    "batch": 6,
    "epochs": 3,
    "optimizer": {"kind": "adamw", "rate": 0.003},
    "checkpoints": {"every_steps": 4},
    "output": "unused",
}


def setup_of(folder: Path, shuffled: bool = False, identity: str = "fabricated", **change: Any) -> Setup:
    """Four files of training shards and two of validation in `folder`; they are written if they are absent."""
    train = write_shards(folder / "train", 4, 20, 1) if not (folder / "train").exists() else _existing(folder, "train")
    validation = (
        write_shards(folder / "validation", 2, 30, 2, "validation")
        if not (folder / "validation").exists()
        else _existing(folder, "validation")
    )
    centres = np.array([[10.0, 20.0], [-10.0, 100.0], [60.0, -120.0], [-40.0, 10.0]])
    partitions = (
        PartitionFacts("colour", "hash of colour", centres, np.array([18, 18, 18, 18])),
        PartitionFacts("warm", "hash of warm", np.full((2, 2), np.nan), np.array([36, 36])),
    )
    config = TrainConfig.model_validate({**BASE, **change})
    return Setup(config, train, validation, partitions, f"file:{folder}/work-{identity}", identity)


def _existing(folder: Path, split: str) -> ShardFiles:
    import pyarrow.parquet as pq

    paths = sorted((folder / split).glob("*.parquet"))
    rows = tuple(pq.read_metadata(path).num_rows for path in paths)
    return ShardFiles(tuple(f"file:{path}" for path in paths), rows, ("colour", "warm"))


__all__ = ["WARM", "setup_of"]
