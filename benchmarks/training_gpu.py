"""Training on one GPU against a bare step: ResNet-50x1 in bfloat16, batches of 128 images of 224 x 224 pixels.

The peer is what a user would write with PyTorch alone: forward, backward and step on a batch that lies on the GPU. Ours
is the whole training on training shards of synthetic scenes, timed from its 21st step to its last. Beside it, for what
limits it: the same step of ours on a batch that lies on the GPU, and the loader alone.

Without a GPU it says so, and measures nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional

from benchmarks import FOLDER
from benchmarks.timing import REPEATS, bar
from benchmarks.training import REGIONS, setup_of, write_files
from geosieve.models.network import Network
from geosieve.training.evaluate import Evaluation
from geosieve.training.loader import ShardFiles
from geosieve.training.loop import Training, run
from geosieve.training.metrics import Metrics
from geosieve.training.ranks import Ranks

BACKBONE, BATCH, SIDE = "resnetv2_50x1_bit.goog_in21k", 128, 224
FILES, STEPS, UNTIMED = 64, 30, 20


def rate(step: Callable[[], object]) -> float:
    """Images a second of a step on the GPU: the median of REPEATS times STEPS of them."""
    for _ in range(UNTIMED):
        step()
    found = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = perf_counter()
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
        found.append(STEPS * BATCH / (perf_counter() - start))
    return median(found)


def bare() -> float:
    """The step as PyTorch's documentation writes it."""
    network = Network(BACKBONE, REGIONS).to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images = torch.randn(BATCH, 3, SIDE, SIDE, device="cuda").to(memory_format=torch.channels_last)
    labels = [torch.randint(0, regions, (BATCH,), device="cuda") for regions in REGIONS.values()]

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            losses = [functional.cross_entropy(found, of) for found, of in zip(network(images), labels, strict=True)]
        sum(losses).backward()  # type: ignore[union-attr, no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return rate(step)


class Clock(Metrics):
    """When the first step after the untimed ones, and the last one, were done."""

    def __init__(self, work: str) -> None:
        super().__init__(work, 0, None)
        self.times: list[float] = []

    def step(self, step: int, *_: Any) -> None:
        if step == UNTIMED:
            torch.cuda.synchronize()
        self.times.append(perf_counter())

    def epoch(self, epoch: int, step: int, found: Evaluation) -> None:
        pass


def ours(folder: Path, files: ShardFiles, workers: int) -> tuple[float, float, float]:
    """Images a second of the whole training, of its step alone, and of the loader alone."""
    change: dict[str, Any] = {
        **{"backbone": BACKBONE, "batch": BATCH, "precision": "bfloat16", "loader": {"workers": workers}},
        "preprocessing": {"resize": SIDE, "crop": SIDE},
        "checkpoints": {"every_steps": 1_000_000},
    }
    setup = setup_of(folder, files, "gpu", **change)
    stepping, reading = _parts(Training(setup_of(folder, files, "step", **change), Ranks.start()))
    clock = Clock(setup.work)
    run(setup, Ranks.start(), clock)
    timed = clock.times[UNTIMED - 1 :]
    return BATCH * (len(timed) - 1) / (timed[-1] - timed[0]), stepping, reading


def _parts(training: Training) -> tuple[float, float]:
    """Images a second of the step alone, and of the loader alone."""
    training.network.train()
    start, read, first = 0.0, 0, None
    for batch in training.batches(*training.epoch_plan()):
        if first is None:
            first, start = batch, perf_counter()  # from the first batch on: its processes start once an epoch
        else:
            read += len(batch.ids)
    reading = read / (perf_counter() - start)
    assert first is not None
    there = replace(first, images=first.images.to(training.device))

    def step() -> None:
        training.loss_of(there).backward()  # type: ignore[no-untyped-call]
        training.update()

    return rate(step), reading


def main() -> int:
    """Return exit code 1 if the bar is missed."""
    if not torch.cuda.is_available():
        print("  there is no GPU: nothing is measured")
        return 0
    workers = max(1, len(os.sched_getaffinity(0)) - 1)
    print(f"  {torch.cuda.get_device_name()}, {workers} processes that read, PyTorch {torch.__version__}", flush=True)
    peer = bare()
    print(f"  bare step on a batch on the GPU: {peer:,.0f} images/s", flush=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.resolve()) as name:
        whole, stepping, reading = ours(Path(name), write_files(Path(name) / "shards", FILES), workers)
    print(f"  loader alone {reading:,.0f}, our step alone {stepping:,.0f}, training {whole:,.0f} images/s")
    return 0 if bar("rate of training over that of the bare step", whole / peer, 0.9, at_least=True) else 1


if __name__ == "__main__":
    sys.exit(main())
