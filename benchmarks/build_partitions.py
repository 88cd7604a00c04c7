"""Adaptive S2 cells of 4.7 million points, against s2geometry objects; Voronoi cells of a million points."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from time import process_time

import numpy as np
from numpy.typing import NDArray
from s2geometry import S2CellId, S2LatLng

from benchmarks import FOLDER
from benchmarks.fabricate import clustered_points
from benchmarks.label_job import POINTS, RUN, job, prepare_images
from benchmarks.timing import bar, interleaved, one_core
from geosieve.geo import s2
from geosieve.geo.outlines import unit_vectors
from geosieve.partitions.building import adaptive_s2
from geosieve.partitions.building.cell_tree import Histogram, refine
from geosieve.partitions.building.cells import VoronoiCells
from geosieve.partitions.building.geocells import NearestCentroid

FEWER_POINTS, PEER_POINTS, VORONOI_POINTS, CENTROIDS = POINTS // 4, 100_000, 1_000_000, 2_700
START, IMG_MIN, IMG_MAX = 2, 50, 1000

Cells = dict[str, int]


def ours(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> Cells:
    """Images by token of the adaptive S2 cells, computed with arrays. `lat`, `lon` in degrees, shape (n,)."""
    cells, images = refine(Histogram.of(adaptive_s2.leaves(lat, lon)), START, s2.MAX_LEVEL, IMG_MAX, IMG_MIN)
    return dict(zip(s2.tokens(adaptive_s2.ids_of(cells)).tolist(), images.tolist(), strict=True))


def peer(lat: list[float], lon: list[float]) -> Cells:
    """The same with objects of s2geometry, point by point."""
    points = zip(lat, lon, strict=True)
    leaves = [S2CellId(S2LatLng.FromDegrees(*point)) for point in points]
    cells: dict[S2CellId, list[S2CellId]] = {}
    for leaf in leaves:
        cells.setdefault(leaf.parent(START), []).append(leaf)
    cells = {cell: held for cell, held in cells.items() if len(held) > IMG_MIN}
    level = START
    while level < s2.MAX_LEVEL and any(len(held) > IMG_MAX for held in cells.values()):
        level += 1
        for cell in [cell for cell, held in cells.items() if len(held) > IMG_MAX]:
            for leaf in cells.pop(cell):
                cells.setdefault(leaf.parent(level), []).append(leaf)
    return {cell.ToToken(): len(held) for cell, held in cells.items() if len(held) > IMG_MIN}


def spark_seconds(n: int) -> tuple[float, dict[str, dict[str, int]]]:
    """Run the job for the three partitions of GeoEstimation on n points.

    Returns its seconds without the start of the session, and its facts of each partition.
    """
    root, output = prepare_images(n), FOLDER.resolve() / "built"
    family = [{"name": f"max_{m}", "img_max": m} for m in (5000, 2000, IMG_MAX)]
    build = {"method": "adaptive_s2", "img_min": IMG_MIN, "family": family}
    shutil.rmtree(output, ignore_errors=True)
    try:
        report, _ = job("build_partitions", {"images": {"root": str(root)}, "build": build, "output": str(output)}, RUN)
    finally:
        shutil.rmtree(output, ignore_errors=True)
    stages = report["seconds"]
    print(f"  run of {n:,} points: " + ", ".join(f"{stage} {s:.1f}" for stage, s in stages.items()) + " s", flush=True)
    return sum(s for stage, s in stages.items() if stage != "session"), report["details"]["partitions"]


def main() -> int:
    """Return exit code 1 if a bar is missed or a partition differs from the peer's."""
    fewer, _ = spark_seconds(FEWER_POINTS)
    seconds, made = spark_seconds(POINTS)
    print("  cells: " + ", ".join(f"{name} {facts['regions']:,}" for name, facts in made.items()))
    done = bar(f"adaptive S2 of {POINTS:,} points, Spark, 2 cores", seconds, 60.0, unit="s")
    done &= bar("time for four times the points", seconds / fewer, 4.4)
    one_core()
    lat, lon = clustered_points(POINTS, seed=7)
    assert len(ours(lat, lon)) == made[f"max_{IMG_MAX}"]["regions"]
    few = lat[:PEER_POINTS], lon[:PEER_POINTS]
    times, results = interleaved(
        {
            "peer": partial(peer, few[0].tolist(), few[1].tolist()),
            "few": partial(ours, *few),
            "many": partial(ours, lat, lon),
        }
    )
    same = results["peer"] == results["few"]
    print(f"  cells and counts of {PEER_POINTS:,} points {'equal' if same else 'DIFFER'}")
    rates = {"s2geometry": PEER_POINTS / times["peer"], "geosieve": POINTS / times["many"]}
    print("  points/s, one core: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items()))
    done &= same and bar("geosieve over s2geometry, same points", times["peer"] / times["few"], 50.0, at_least=True)

    rng = np.random.default_rng(0)
    sphere = np.degrees(np.arcsin(rng.uniform(-1, 1, CENTROIDS))), rng.uniform(-180, 180, CENTROIDS)
    cells = VoronoiCells(NearestCentroid(unit_vectors(*sphere)))
    start = process_time()
    cells.assign(lat[:VORONOI_POINTS], lon[:VORONOI_POINTS])
    rate = VORONOI_POINTS / (process_time() - start)
    done &= bar(f"nearest of {CENTROIDS:,} geocells, one core", rate, 500_000.0, unit="points/s", at_least=True)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
