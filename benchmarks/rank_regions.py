"""`rank_regions` against a bare loop over arrays: 1 million images of two predictors, and four times as many.

The overlay is that of 1,536 S2 cells and 12 bands of latitude. Probabilities are of simulated classifiers of cells and
of bands, float32, in two tables, whose images come in different orders. The bare loop has such arrays in memory, calls
the same functions to rank them, and keeps the answers; it runs in two processes. 4 million images need 70 GB of disk.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from multiprocessing.pool import Pool
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from demo.simulate import attribute_predictor, cell_predictor

from benchmarks import FOLDER
from benchmarks.label_job import RUN, job
from benchmarks.timing import REPEATS, bar
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.geo.arrays import F8
from geosieve.inference.answers import Answerer
from geosieve.overlay.atoms import Overlay, OverlayPartition

IMAGES, MORE, FILE_IMAGES, LOOPED = 1_000_000, 4_000_000, 50_000, 4_000
BANDS = 12
PARTITIONS = ("cells", "bands")


def build(root: Path) -> Overlay:
    """The overlay, and its tables below `root`; later runs use them again."""
    height = 180 / BANDS
    features = [
        {
            "type": "Feature",
            "properties": {"name": f"{k:02d}"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [[w, s], [e, s], [e, n], [w, n], [w, s]]
                    for w, s, e, n in [(-180, -90 + k * height, 180, -90 + (k + 1) * height)]
                ],
            },
        }
        for k in range(BANDS)
    ]
    root.mkdir(parents=True, exist_ok=True)
    path = root / "bands.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    partitions = [
        {"name": "cells", "kind": "s2", "level": 4},
        {"name": "bands", "kind": "polygons", "uri": str(path), "name_column": "name"},
    ]
    config = {"name": "ranked", "rasters": {"root": str(root)}, "resolution_arcsec": 900, "partitions": partitions}
    leaf = root / f"overlay_atoms/overlay=ranked/run_id={RUN}"
    if not (leaf / "_SUCCESS").exists():
        job("build_overlay", {**config, "output": str(root)}, RUN)
    atoms = pq.read_table(leaf, partitioning=None).sort_by("atom")
    parts = pq.read_table(root / f"partitions/job=build_overlay_ranked/run_id={RUN}", partitioning=None).to_pylist()
    told = {one["partition"]: one for one in parts}
    listed = tuple(OverlayPartition(name, told[name]["partition_hash"], told[name]["n_regions"]) for name in PARTITIONS)
    labels = np.column_stack([atoms[name].to_numpy() for name in PARTITIONS])
    facts = (atoms[name].to_numpy() for name in ("area_km2", "lat", "lon"))
    land = np.full(len(labels), np.nan)
    digest = atoms["overlay_hash"][0].as_py()
    return Overlay(listed, labels, *facts, land_share=land, digest=digest)


def probabilities(overlay: Overlay, seed: int, images: int) -> dict[str, Any]:
    """Probabilities of both classifiers, float32, (images, regions)."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(overlay.n_atoms, images, p=overlay.area_km2 / overlay.area_km2.sum())
    cells = cell_predictor(rng, overlay, "cells", overlay.lat[truth], overlay.lon[truth])
    bands = attribute_predictor(rng, overlay.labels[truth, 1], BANDS)
    return {"cells": cells.astype(np.float32), "bands": bands.astype(np.float32)}


def write(folder: Path, overlay: Overlay, first: int) -> None:
    """Files of both tables of predictions below `folder`: FILE_IMAGES images, of which the first has this number."""
    ids = np.array([f"{i:08d}" for i in range(first, first + FILE_IMAGES)])
    for name, p in probabilities(overlay, first, FILE_IMAGES).items():
        order = slice(None, None, -1 if name == "bands" else 1)
        ends = pa.array(np.arange(0, p.size + 1, p.shape[1]), pa.int32())
        values = pa.ListArray.from_arrays(ends, pa.array(p[order].ravel()))
        table = pa.table({"image_id": ids[order], "probabilities": values})
        pq.write_table(table, folder / name / f"{first:08d}.parquet", row_group_size=5_000, compression="none")


def write_all(folder: Path, overlay: Overlay, pool: Pool) -> None:
    """Predictions of all images; later runs use them again."""
    if not (folder / "done").exists():
        for name in PARTITIONS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        pool.starmap(write, [(folder, overlay, first) for first in range(0, MORE, FILE_IMAGES)], chunksize=1)
        (folder / "done").touch()
        os.sync()  # the kernel would write behind what is timed


def inputs(folder: Path, overlay: Overlay, images: int) -> list[dict[str, Any]]:
    """Tables of the predictions of the first images: links to files of `write_all`."""
    some = folder.with_name(f"predictions_{images}")
    shutil.rmtree(some, ignore_errors=True)
    for of in overlay.partitions:
        (some / of.name).mkdir(parents=True)
        for file in sorted((folder / of.name).iterdir())[: images // FILE_IMAGES]:
            (some / of.name / file.name).hardlink_to(file)
    return [
        {"uri": str(some / of.name), "predictor": of.name, "source": "synthetic", "partition_hash": of.digest}
        for of in overlay.partitions
    ]


def looped(overlay: Overlay, seed: int) -> float:
    """Images a second of the bare loop in one process."""
    members = tuple(EnsembleMember(name, name) for name in PARTITIONS)
    answerer = Answerer(Ensemble(overlay, members), "mass", 0.9, 1000, None, None)
    values = probabilities(overlay, seed, LOOPED)
    predictions = {of.name: Probabilities(of.digest, values[of.name]) for of in overlay.partitions}
    next(answers(answerer, predictions))
    start = perf_counter()
    kept = list(answers(answerer, predictions))
    return len(kept) / (perf_counter() - start)


def answers(answerer: Answerer, predictions: Any) -> Iterator[tuple[F8, F8]]:
    """What is told of each image, and of the regions of its answer."""
    for images, n in answerer.images(predictions):
        for image in range(n):
            one = answerer.answer(images, image)
            yield one.leading.probability[one.chosen], one.leading.area_km2[one.chosen]


def ranked(root: Path, inputs: list[dict[str, Any]], images: int) -> tuple[float, float]:
    """Seconds of the job for images, without the start of its session, and memory of its largest worker, GiB."""
    output = root / "ranked"
    shutil.rmtree(output, ignore_errors=True)
    config = {
        **{"name": "benchmark", "overlay": {"root": str(root), "name": "ranked"}, "predictions": inputs},
        **{"members": {name: {"partition": name} for name in PARTITIONS}, "output": str(output)},
    }
    report, used = job("rank_regions", config, RUN)
    if report["rows_out"] != images:
        raise SystemExit(f"{report['rows_out']} of {images} images")
    shutil.rmtree(output, ignore_errors=True)
    print(
        f"  {images:,} images: " + ", ".join(f"{stage} {s:.0f}" for stage, s in report["seconds"].items()) + " s",
        flush=True,
    )
    seconds = sum(s for stage, s in report["seconds"].items() if stage != "session")
    return seconds, max(used.worker_rss.values()) / 2**30


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    os.environ["OMP_NUM_THREADS"] = "1"
    root = FOLDER.resolve() / "ranking"
    overlay = build(root)
    print(f"  {overlay.n_atoms:,} atoms of {overlay.partitions[0].n_regions:,} cells and {BANDS} bands")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rates = [
            sum(pool.starmap(looped, [(overlay, 2 * n), (overlay, 2 * n + 1)], chunksize=1)) for n in range(REPEATS)
        ]
        write_all(root / "predictions", overlay, pool)
    loop = median(rates)
    seconds, memory = {}, {}
    for images in (IMAGES, MORE):
        seconds[images], memory[images] = ranked(root, inputs(root / "predictions", overlay, images), images)
    rate = IMAGES / seconds[IMAGES]
    print(f"  images/s: job {rate:,.0f}, bare loop in two processes {loop:,.0f}")
    met = [
        bar("rate of the job over that of the bare loop", rate / loop, 0.5, at_least=True),
        bar("time of four times as many images", seconds[MORE] / seconds[IMAGES], 4.4),
        bar("memory of the largest worker over that of a quarter as many", memory[MORE] / memory[IMAGES], 1.1),
        bar("memory of the largest worker", memory[MORE], 1.0, unit="GiB"),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
