"""Near duplicates among a million perceptual hashes, Spark, two cores; the groups of 20,000 by comparing all pairs."""

from __future__ import annotations

import os
import sys
from time import perf_counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyspark.sql import SparkSession
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.timing import bar
from geosieve.runtime.session import spark_session
from geosieve.splits.near_duplicates import hash_roots

HASHES, COMPARED = 1_000_000, 20_000

Hashes = NDArray[np.int64]


def synthetic_hashes(n: int, seed: int = 0) -> Hashes:
    """n hashes: 85 % with bits of unlike probability, 10 % copies with 0 to 6 flipped bits, 5 % flat images.

    The bit i is 1 with a probability between 0.3 and 0.7. Flat images agree in 40 bits.
    """
    rng = np.random.default_rng(seed)
    own, copied, flat = n * 85 // 100, n // 10, n - n * 85 // 100 - n // 10
    probability = rng.uniform(0.3, 0.7, 64)
    hashes = np.zeros(own, np.uint64)
    for bit in range(64):
        hashes |= (rng.random(own) < probability[bit]).astype(np.uint64) << np.uint64(bit)
    copies = rng.choice(hashes, copied)
    flips = rng.integers(0, 7, copied)
    for flipped in range(6):
        bit = np.uint64(1) << rng.integers(0, 64, copied).astype(np.uint64)
        copies = np.where(flips > flipped, copies ^ bit, copies)
    alike = rng.integers(0, 1 << 24, flat, dtype=np.uint64) << np.uint64(40) | np.uint64(0x12345ABCDE)
    return np.concatenate([hashes, copies, alike]).view(np.int64)


def by_comparing_all(hashes: Hashes, bits: int) -> dict[int, int]:
    """The smallest hash of each hash's component, for all that have another within `bits` bits."""
    hashes = np.unique(hashes)
    signs = 1 - 2 * np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32)
    pairs = []
    for start in range(0, hashes.size, 1_000):
        equal_less_differing = signs[start : start + 1_000] @ signs.T
        pairs.append(np.argwhere(equal_less_differing >= 64 - 2 * bits) + np.array([start, 0]))
    first, other = np.concatenate(pairs).T
    graph = coo_array((np.ones(first.size, bool), (first, other)), shape=(hashes.size, hashes.size))
    _, component = connected_components(graph, directed=False)
    _, least, size = np.unique(component, return_index=True, return_counts=True)
    joined = size[component] > 1
    return dict(zip(hashes[joined].tolist(), hashes[least][component][joined].tolist(), strict=True))


def grouped(spark: SparkSession, hashes: Hashes, bits: int) -> tuple[float, dict[int, int]]:
    """Seconds of the clock to find the roots, and the root of each hash that has a near duplicate."""
    frame = spark.createDataFrame(pd.DataFrame({"perceptual_hash": hashes}))
    start = perf_counter()
    found = hash_roots(frame, bits, hashes.size).toPandas()
    seconds = perf_counter() - start
    return seconds, dict(zip(found["perceptual_hash"].tolist(), found["root"].tolist(), strict=True))


def main() -> int:
    """Return exit code 1 if the bar is missed, or if groups differ from those found by comparing all pairs."""
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 2g pyspark-shell")
    print("  synthetic hashes: unequal bits, 10 % copies with 0 to 6 flipped bits, 5 % flat images that share 40 bits")
    seconds, same = {}, True
    with spark_session("near_duplicates", local=False) as spark:
        for bits in (4, 8):
            few = synthetic_hashes(COMPARED, seed=1)
            same &= grouped(spark, few, bits)[1] == by_comparing_all(few, bits)
            seconds[bits], roots = grouped(spark, synthetic_hashes(HASHES), bits)
            print(
                f"  {HASHES:,} hashes, {bits} bits: {seconds[bits]:.1f} s; {len(roots):,} hashes in "
                f"{len(set(roots.values())):,} groups",
                flush=True,
            )
    print(f"  groups of {COMPARED:,} hashes {'equal' if same else 'DIFFER FROM'} those by comparing all pairs")
    return 0 if bar(f"{HASHES:,} hashes, 4 bits", seconds[4], 60.0, unit="s") and same else 1


if __name__ == "__main__":
    sys.exit(main())
