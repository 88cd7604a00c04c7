"""Training on two cores: reading against a plain loop and the step, processes against threads, Horovod, checkpoints.

Shards are of synthetic scenes of 320 x 240 pixels. The network is an EfficientNet-Lite0 with random weights, with heads
of 1,000 and 4 regions: the small model that trains without a GPU. It sees 64 x 64 pixels, as in `make demo-train`.

* Reading: the loader of training, with two worker processes that decode, crop to 224 x 224 and flip. Its peer is a
  plain loop in two processes that reads the same files with pyarrow, decodes them with the same decoder, and makes the
  same changes.
* Processes: the whole training, timed from its 6th step on, as two Horovod processes of one thread each, and as one of
  two threads with the doubled batch.
* Horovod: a step on a batch in memory with and without its optimizer, world size 1.
* Checkpoints: what one costs, beside 500 steps.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
import torch

from benchmarks import FOLDER
from benchmarks.decode_photos import scene
from benchmarks.timing import REPEATS, bar
from geosieve.images.decode import decode
from geosieve.training.evaluate import Evaluation
from geosieve.training.loader import Augment, Sampler, ShardFiles, training_batches
from geosieve.training.loop import PartitionFacts, Setup, Training, checkpoints_of, run
from geosieve.training.metrics import Metrics
from geosieve.training.plan import deal, full_batches, shuffled
from geosieve.training.ranks import Ranks
from geosieve.training.train_config import TrainConfig

FILES, ROWS, CONTENTS = 16, 512, 64
WIDTH, HEIGHT, CROP, SEEN = 320, 240, 224, 64
REGIONS = {"cells": 1_000, "density": 4}
BATCH, STEPS, UNTIMED = 32, 30, 5
EVERY = 500
"""Steps between two checkpoints."""


def write_files(folder: Path, files: int) -> ShardFiles:
    """Training shards without a job."""
    folder.mkdir()
    pictures = [np.asarray(scene(WIDTH, HEIGHT, seed=number)) for number in range(CONTENTS)]
    contents = [simplejpeg.encode_jpeg(picture, 90, "RGB", "420") for picture in pictures]
    rng, uris = np.random.default_rng(0), []
    for file in range(files):
        table = {
            "source": ["synthetic"] * ROWS,
            "image_id": [f"{file}/{row}" for row in range(ROWS)],
            "shard": pa.array([file] * ROWS, pa.int32()),
            "image": [contents[k] for k in rng.integers(0, CONTENTS, ROWS)],
            "lat": rng.uniform(-60, 60, ROWS),
            "lon": rng.uniform(-180, 180, ROWS),
            **{name: rng.integers(0, regions, ROWS) for name, regions in REGIONS.items()},
        }
        path = folder / f"part-{file:05d}.parquet"
        pq.write_table(pa.table(table), path, row_group_size=ROWS)
        uris.append(f"file:{path}")
    return ShardFiles(tuple(uris), (ROWS,) * files, tuple(REGIONS))


def setup_of(folder: Path, train: ShardFiles, identity: str, **change: Any) -> Setup:
    """A training of the small model on these files."""
    config: dict[str, Any] = {
        **{"name": "small", "seed": 1, "shards": {"root": "unused", "name": "synthetic"}, "output": "unused"},
        **{"backbone": "tf_efficientnet_lite0", "heads": {name: {} for name in REGIONS}, "batch": BATCH, "epochs": 1},
        "optimizer": {"kind": "adamw", "rate": 0.001},
        "loader": {"workers": 0},
        "preprocessing": {"resize": SEEN, "crop": SEEN},
        **change,
    }
    facts = tuple(PartitionFacts(name, name, np.zeros((n, 2)), np.ones(n, np.int64)) for name, n in REGIONS.items())
    validation = ShardFiles(train.uris[:1], train.rows[:1], train.labels)
    return Setup(TrainConfig.model_validate(config), train, validation, facts, f"file:{folder}/{identity}", identity)


def seconds(work: Callable[[], object]) -> float:
    """How long a work takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def read_plainly(uris: Iterable[str], augment: Augment | None) -> int:
    """The plain loop over some files. Returns the number of images."""
    torch.set_num_threads(1)
    images = 0
    for uri in uris:
        table = pq.read_table(uri.removeprefix("file:"))
        for row, content in enumerate(table.column("image").to_pylist()):
            pixels = decode(content)
            assert isinstance(pixels, np.ndarray)
            if augment is not None:
                augment(pixels, 0, row, 0)
            images += 1
    return images


def loader(files: ShardFiles) -> bool:
    """Reading against the plain loop."""
    config = setup_of(Path("unused"), files, "loader", preprocessing={"resize": CROP, "crop": CROP}).config
    augment = Augment(config.augmentation, config.preprocessing.crop, config.seed, 0)
    (streams,) = deal(shuffled(FILES, config.seed, 0), files.rows, 1, 2)
    times: dict[str, list[float]] = {"loader": [], "loop": [], "loop that only decodes": []}
    with multiprocessing.get_context("spawn").Pool(2) as pool:

        def plainly(change: Augment | None) -> None:
            pool.starmap(read_plainly, [(files.uris[k::2], change) for k in range(2)], chunksize=1)

        def ours() -> None:
            """From the first batch on: its processes start once an epoch."""
            batches = training_batches(
                files,
                streams,
                0,
                full_batches(streams, files.rows, BATCH),
                batch=BATCH,
                sampler=Sampler(config.seed, 0),
                augment=augment,
                preprocessing=config.preprocessing,
                processes=True,
            )
            found = len(next(batches).ids)
            start = perf_counter()
            found = sum(len(batch.ids) for batch in batches)
            times["loader"].append((perf_counter() - start) / found)

        plainly(augment)  # imports, and the page cache
        for _ in range(REPEATS):
            ours()
            times["loop"].append(seconds(lambda: plainly(augment)) / (FILES * ROWS))
            times["loop that only decodes"].append(seconds(lambda: plainly(None)) / (FILES * ROWS))
    rates = {name: 1 / median(values) for name, values in times.items()}
    print("  images/s: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()), flush=True)
    step = 1 / step_seconds(files)
    print(f"  the step alone, on two threads: {step:,.0f} images/s")
    met = bar("rate of the loader over that of the plain loop", rates["loader"] / rates["loop"], 0.8, at_least=True)
    return bar("rate of the loader over that of the step", rates["loader"] / step, 2, at_least=True) and met


def step_seconds(files: ShardFiles) -> float:
    """Seconds per image of the step on a batch in memory, two threads."""
    torch.set_num_threads(2)
    training = Training(setup_of(Path("unused"), files, "step"), Ranks.start())
    batch = next(iter(training.batches(*training.epoch_plan())))
    times = [seconds(lambda: one_step(training, batch)) for _ in range(12)]
    return median(times[2:]) / BATCH


def one_step(training: Training, batch: Any) -> None:
    """Loss, gradients, and new weights."""
    training.loss_of(batch).backward()  # type: ignore[no-untyped-call]
    training.update()


class Clock(Metrics):
    """Notes when each step was done."""

    def __init__(self, work: str, rank: int) -> None:
        super().__init__(work, rank, None)
        self.times: list[float] = []

    def step(self, *_: Any) -> None:
        self.times.append(perf_counter())

    def epoch(self, epoch: int, step: int, found: Evaluation) -> None:
        pass


def rank(folder: Path, processes: int) -> None:
    """One process of a training. Rank 0 writes the images/s of all."""
    torch.set_num_threads(2 // processes)
    files = ShardFiles(*json.loads((folder / "files.json").read_text()))
    batch = 2 * BATCH // processes
    setup = setup_of(folder, files, f"processes{processes}", batch=batch)
    clock = Clock(setup.work, Ranks.start().rank)
    run(setup, Ranks.start(), clock)
    if Ranks.start().rank == 0:
        timed = clock.times[UNTIMED:]
        rate = 2 * BATCH * (len(timed) - 1) / (timed[-1] - timed[0])
        (folder / "rate").write_text(str(rate))


def processes(folder: Path, files: ShardFiles) -> bool:
    """Two processes against one with two threads."""
    (folder / "files.json").write_text(json.dumps([files.uris, files.rows, files.labels]))
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(REPEATS):
        for n, of_n in rates.items():
            horovodrun = [str(Path(sys.executable).with_name("horovodrun")), "-np", str(n), "--gloo", sys.executable]
            command = [*horovodrun, "-m", "benchmarks.training", str(folder), str(n)]
            subprocess.run(command, check=True, capture_output=True)
            of_n.append(float((folder / "rate").read_text()))
            for old in (folder / f"processes{n}" / "checkpoints").iterdir():
                old.unlink()  # or the next would have nothing to train
    one, two = median(rates[1]), median(rates[2])
    print(f"  images/s: two processes {two:.1f}, one process of two threads {one:.1f}", flush=True)
    return bar("rate of two processes over that of two threads", two / one, 0.9, at_least=True)


class Alone(Ranks):
    """Without Horovod's optimizer."""

    def optimizer(self, inner: torch.optim.Optimizer, *_: Any) -> torch.optim.Optimizer:  # type: ignore[override]
        return inner


def horovod(folder: Path, files: ShardFiles) -> bool:
    """Horovod's optimizer at world size 1, and checkpoints."""
    torch.set_num_threads(2)
    of = Ranks.start()
    trainings = {
        "with": Training(setup_of(folder, files, "with"), of),
        "without": Training(setup_of(folder, files, "without"), Alone(of.rank, of.size, of.local)),
    }
    batch = next(iter(trainings["with"].batches(*trainings["with"].epoch_plan())))
    times: dict[str, list[float]] = {name: [] for name in trainings}
    for number in range(STEPS):
        for name, training in trainings.items():
            spent = seconds(lambda one=training: one_step(one, batch))  # type: ignore[misc]
            if number >= UNTIMED:
                times[name].append(spent)
    with_, without = median(times["with"]), median(times["without"])
    print(f"  a step of {BATCH} images: {1e3 * with_:.1f} ms with Horovod, {1e3 * without:.1f} ms without")
    met = bar("cost of Horovod's optimizer", 100 * (with_ / without - 1), 5, "%")
    checkpoints, training = checkpoints_of(trainings["with"].setup), trainings["with"]
    stalls = [seconds(lambda n=n: checkpoints.save(training.state(), n)) for n in range(5)]  # type: ignore[misc]
    size = (
        sum(path.stat().st_size for path in (folder / "with" / "checkpoints").iterdir())
        / training.config.checkpoints.keep
    )
    print(f"  a checkpoint of {size / 1e6:.0f} MB: {median(stalls):.2f} s ({size / median(stalls) / 1e6:.0f} MB/s)")
    share = median(stalls) / (median(stalls) + EVERY * with_)
    return bar(f"share of checkpoints at one every {EVERY} steps", 100 * share, 2, "%") and met


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    with tempfile.TemporaryDirectory(dir=FOLDER.resolve()) as name:
        folder = Path(name)
        files = write_files(folder / "shards", FILES)
        some = ShardFiles(files.uris[:4], files.rows[:4], files.labels)
        met = [loader(files), horovod(folder, files), processes(folder, some)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        rank(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(main())
