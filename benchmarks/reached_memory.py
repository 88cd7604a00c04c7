"""Memory to compute the area to the truth for 100,000 images, with probabilities of 12,893 cells in a memory map.

The probabilities are synthetic, in single precision (a file of 5.2 GB). The overlay has about 40,000 atoms. A prior of
four regions is multiplied in.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks import FOLDER
from benchmarks.timing import bar, one_core
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities, prior
from geosieve.overlay.atoms import Overlay, OverlayPartition

IMAGES, CELLS, BUCKETS, ATOMS = 100_000, 12_893, 4, 40_000
SAMPLE, AT_ONCE = 500, 1_000


def overlay(rng: np.random.Generator) -> Overlay:
    """A synthetic overlay. Each cell has at least one atom; the other atoms are spread over cells and buckets."""
    cell = np.concatenate([np.arange(CELLS), rng.integers(0, CELLS, ATOMS - CELLS)])
    labels = np.unique(np.column_stack([cell, rng.integers(0, BUCKETS, ATOMS)]), axis=0)
    n = len(labels)
    area = rng.exponential(12_000.0, n)
    partitions = (OverlayPartition("cells", "cells", CELLS), OverlayPartition("buckets", "buckets", BUCKETS))
    return Overlay(partitions, labels, area, rng.uniform(-90, 90, n), rng.uniform(-180, 180, n), np.ones(n))


def write(path: Path, rng: np.random.Generator) -> None:
    """Write probabilities (images, cells) like those of a softmax: a few cells have most of the probability."""
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(IMAGES, CELLS))
    block = np.exp(3 * rng.standard_normal((AT_ONCE, CELLS), np.float32))
    block /= block.sum(axis=1, keepdims=True)
    del values  # keep only the header: pages written through a map would count as memory of this process
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - IMAGES * CELLS * 4)
        for start in range(0, IMAGES, AT_ONCE):
            file.write(np.roll(block, start // AT_ONCE, axis=1).tobytes())


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    one_core()
    rng = np.random.default_rng(5)
    path = FOLDER / "reached_probabilities.npy"
    try:
        write(path, rng)
        world = overlay(rng)
        buckets = prior("buckets", "buckets", [1.0, 2.0, 3.0, 4.0])
        ensemble = Ensemble(world, (EnsembleMember("cells", "cells"), buckets))
        truth = rng.integers(0, world.n_atoms, IMAGES)
        values = np.load(path, mmap_mode="r")
        started, used = perf_counter(), process_time()
        reached = ensemble.area_to_truth_km2({"cells": Probabilities("cells", values)}, truth)
        seconds, used = perf_counter() - started, process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        whole = np.array(values[:SAMPLE], np.float64)
        scores = np.log(whole / world.region_areas_km2[0])[:, world.labels[:, 0]]
        scores += np.log(np.array([0.1, 0.2, 0.3, 0.4]) / world.region_areas_km2[1])[world.labels[:, 1]]
        at_truth = scores[np.arange(SAMPLE), truth[:SAMPLE], None]
        worst = np.abs(reached[:SAMPLE] / ((scores >= at_truth - 1e-9) @ world.area_km2) - 1).max()
    finally:
        path.unlink(missing_ok=True)
    print(f"  {IMAGES:,} images x {CELLS:,} cells, {world.n_atoms:,} atoms: {seconds:.0f} s, processor {used:.0f} s, "
          f"{1e3 * used / IMAGES:.2f} ms an image")  # fmt: skip
    done = bar("greatest memory of the process", peak, 2.0, unit="GiB")
    done &= bar(f"greatest relative difference of {SAMPLE} areas from all atoms", worst * 1e9, 1.0, unit="ppb")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
