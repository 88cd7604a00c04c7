"""Build an overlay at 120 and 30 arc-seconds, and compare the area to the truth with the pixel algorithm.

The inputs are real maps (population proxy in 4 buckets, MODIS land cover in 7 classes), S2 cells of synthetic points
and simulated predictors.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from demo import prepare
from demo.simulate import attribute_predictor, cell_predictor

from benchmarks import FOLDER
from benchmarks.fabricate import clustered_points
from benchmarks.label_job import POINTS, RUN, job, prepare_images
from benchmarks.timing import bar, interleaved, one_core
from geosieve.ensemble.leading import scored
from geosieve.ensemble.members import Ensemble, EnsembleMember, Probabilities
from geosieve.ensemble.ranking import rank
from geosieve.geo.arrays import F8, I8
from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay.atoms import AtomGrid, Overlay, OverlayPartition, row_numbers
from geosieve.overlay.spans import describe, find_spans, sum_up

IMAGES, SORTED, PIXEL_IMAGES, ORDERED = 1000, 100, 5, 3
PARTITIONS = ("cells", "density", "land_cover")
EVIDENCE = [Path("demo/evidence/density.yaml"), Path("demo/evidence/land_cover.yaml")]


def build(arcsec: int) -> tuple[Path, float, float]:
    """Build the overlay at this resolution.

    Returns the root of the tables, the job's seconds without the start of the session, and the memory of its Python
    workers: the sum of their peaks, in GiB.
    """
    prepare.population_proxy()
    images, root = prepare_images(POINTS), FOLDER.resolve() / "overlay"
    if not list(root.glob(f"partitions/job=build_partitions/run_id={RUN}/_SUCCESS")):
        family = {"method": "adaptive_s2", "img_min": 50, "family": [{"name": "fine", "img_max": 1000}]}
        config: dict[str, Any] = {"images": {"root": str(images)}, "build": family, "output": str(root)}
        job("build_partitions", config, RUN)
    evidence = [yaml.safe_load(path.read_text()) for path in EVIDENCE]
    for one in evidence:
        if not list(root.glob(f"raster_catalog/collection={one['rasters']['collection']}/run_id={RUN}/_SUCCESS")):
            job("catalog_rasters", {"rasters": one["rasters"], "output": str(root)}, RUN)
    cells = {"name": "cells", "kind": "built", "root": str(root), "partition": "fine"}
    config = {
        "name": f"arcsec_{arcsec}",
        "rasters": {"root": str(root)},
        "resolution_arcsec": arcsec,
        "partitions": [cells, *(one["partition"] for one in evidence)],
        "output": str(root),
    }
    run_id = f"{RUN}-{arcsec}"
    for leaf in root.glob(f"*/*/run_id={run_id}"):
        (leaf / "_SUCCESS").unlink(missing_ok=True)
    report, used = job("build_overlay", config, run_id)
    stages = report["seconds"]
    print(f"  {arcsec} arc-seconds: " + ", ".join(f"{stage} {s:.1f}" for stage, s in stages.items()) + " s", flush=True)
    seconds = sum(s for stage, s in stages.items() if stage != "session")
    return root, seconds, sum(used.worker_rss.values()) / 2**30


def read(root: Path, arcsec: int) -> tuple[Overlay, AtomGrid]:
    """Read an overlay and its grid of atoms from the tables, and print their sizes."""

    def table(name: str) -> Any:
        return pq.read_table(root / f"{name}/overlay=arcsec_{arcsec}/run_id={RUN}-{arcsec}", partitioning=None)

    atoms = table("overlay_atoms").sort_by("atom")
    labels = np.column_stack([atoms[name].to_numpy() for name in PARTITIONS])
    partitions = tuple(OverlayPartition(name, name, int(labels[:, k].max()) + 1) for k, name in enumerate(PARTITIONS))
    facts = (atoms[name].to_numpy() for name in ("area_km2", "lat", "lon", "land_share"))
    runs = table("overlay_runs")
    columns = (runs[name].to_numpy() for name in ("row", "column", "atom", "share"))
    grid = AtomGrid.of_runs(EqualAngleGrid.from_arcsec(arcsec), *columns)
    print(
        f"  {arcsec} arc-seconds: {len(labels):,} atoms, {grid.starts.size:,} runs, of which "
        f"{(grid.share < 1).sum():,} are parts of mixed pixels, {partitions[0].n_regions:,} cells"
    )
    return Overlay(partitions, labels, *facts), grid


def cells_lost(root: Path, arcsec: int) -> tuple[int, float]:
    """The number of cells without an atom, and the greatest relative error (ppm) of a cell's area.

    The error compares the total area of the cell's atoms with the cell's own area.
    """
    run = f"{RUN}-{arcsec}"
    atoms = pq.read_table(root / f"overlay_atoms/overlay=arcsec_{arcsec}/run_id={run}", partitioning=None)
    regions = pq.read_table(
        root / f"regions_of_partition/job=build_overlay_arcsec_{arcsec}/run_id={run}",
        partitioning=None,
        columns=["partition", "region", "area_km2"],
        filters=[("partition", "=", "cells")],
    ).sort_by("region")
    cell, own = atoms["cells"].to_numpy(), regions["area_km2"].to_numpy()
    inside = cell >= 0
    held = np.bincount(cell[inside], atoms["area_km2"].to_numpy()[inside], own.size)
    pixel = EqualAngleGrid.from_arcsec(arcsec).row_areas_km2().max()
    print(f"  {arcsec} arc-seconds: {(own < pixel).sum():,} of {own.size:,} cells are smaller than a pixel")
    return int((held == 0).sum()), float(np.abs(held / own - 1).max() * 1e6)


def whole_pixels(overlay: Overlay, grid: AtomGrid) -> tuple[Overlay, I8, I8]:
    """Convert an overlay to one that the pixel algorithm can represent: each pixel belongs to the atom with most of it.

    Returns the new overlay, the atom of every pixel, shape (rows, cols), and the regions of every pixel, shape
    (partitions, rows, cols).
    """
    row, column = np.arange(grid.grid.rows)[:, None], np.arange(grid.grid.cols)
    atoms = grid.drawn(*grid.grid.centres(row, column))
    regions = np.stack([overlay.labels[:, k].astype(np.int32)[atoms] for k in range(len(PARTITIONS))])
    labels, facts = sum_up(grid.grid, find_spans(0, 0, regions, np.zeros(atoms.shape, dtype=bool)))
    told = describe(grid.grid, facts)
    whole = Overlay(overlay.partitions, labels, *(told[name] for name in ("area_km2", "lat", "lon", "land_share")))
    return whole, row_numbers(labels, overlay.labels)[atoms], regions


def pixel_algorithm(maps: list[I8], area: F8, sizes: list[F8], p: list[F8], row: int, column: int) -> tuple[float, F8]:
    """Algorithms 1 to 3 of Bianco, Eigen and Gormish for one image, in plain numpy.

    `maps`: for each partition 1 + region of each pixel, or 0 outside; shape (rows, cols). `area`: areas of pixels in
    km², same shape. `sizes`, `p`: areas (km²) and probabilities of the regions of each partition. `row`, `column`: the
    pixel of the true position. Returns the area (km²) of the pixels whose product of densities is at least that of the
    true pixel, and the products, shape (rows, cols).
    """
    product = np.ones(maps[0].shape)
    for layer, size, probability in zip(maps, sizes, p, strict=True):
        density = np.divide(probability, size, where=size > 0, out=np.zeros_like(probability))
        product *= np.concatenate([[0.0], density])[layer]
    return float(area[product >= product[row, column] * (1 - 1e-12)].sum()), product


def simulated(overlay: Overlay, truth: I8, lat: F8, lon: F8) -> dict[str, Probabilities]:
    """Simulated probabilities per partition. `truth`: atom of each image; `lat`, `lon`: true positions in degrees."""
    rng = np.random.default_rng(1)
    values = {"cells": cell_predictor(rng, overlay, "cells", lat, lon)}
    for k, name in enumerate(PARTITIONS[1:], start=1):
        values[name] = attribute_predictor(rng, overlay.labels[truth, k], overlay.partitions[k].n_regions)
    return {name: Probabilities(name, p) for name, p in values.items()}


def leading_atoms(
    ensembles: dict[int, Ensemble], predictions: dict[int, dict[str, Probabilities]], reached: dict[int, float]
) -> bool:
    """Regions that hold half of the probability, against sorting all atoms, and against `reached` (seconds)."""

    def lead(arcsec: int) -> None:
        for some in scored(ensembles[arcsec], predictions[arcsec]):
            for image in range(len(some.s)):
                some.leading(image, mass=0.5)

    few = {name: Probabilities(name, of.values[:SORTED]) for name, of in predictions[120].items()}
    times, _ = interleaved(
        {
            "120": partial(lead, 120),
            "30": partial(lead, 30),
            "sort": lambda: [ranking.within_mass(0.5) for ranking in rank(ensembles[120], few)],
        }
    )
    ours, sort = times["120"] / IMAGES, times["sort"] / SORTED
    print(f"  half of the probability, one image: {1e3 * ours:.2f} ms; all atoms sorted: {1e3 * sort:.2f} ms")
    done = bar("full sort over leading atoms", sort / ours, 8.0, at_least=True)
    done &= bar("leading atoms over the area to the truth", times["120"] / reached[120], 2.0)
    return done & bar("leading atoms at 30 over 120 arc-seconds", times["30"] / times["120"], 1.5)


def main() -> int:
    """Return exit code 1 if a bar is missed or the orders of atoms differ."""
    built = {arcsec: build(arcsec) for arcsec in (120, 30)}
    root, seconds, memory = built[30]
    done = bar("30 arc-second atoms, 2 cores", seconds / 60, 10.0, unit="min")
    done &= bar("memory of its workers", memory, 4.0, unit="GiB")
    for arcsec in built:
        lost, difference = cells_lost(built[arcsec][0], arcsec)
        done &= bar(f"cells without an atom at {arcsec} arc-seconds", lost, 0, unit="cells")
        done &= bar(f"greatest difference to a cell's own area at {arcsec}", difference, 1.0, unit="ppm")
    one_core()
    lat, lon = clustered_points(IMAGES, seed=3)
    ensembles, predictions, truths = {}, {}, {}
    for arcsec in (120, 30):
        overlay, grid = read(root, arcsec)
        ensembles[arcsec] = Ensemble(overlay, tuple(EnsembleMember(name, name) for name in PARTITIONS))
        truths[arcsec] = grid.drawn(lat, lon)
        predictions[arcsec] = simulated(overlay, truths[arcsec], lat, lon)
        _ = ensembles[arcsec].structure
        if arcsec == 120:
            coarse, coarse_grid = overlay, grid
    times, _ = interleaved(
        {a: partial(ensembles[a].area_to_truth_km2, predictions[a], truths[a]) for a in ensembles}  # type: ignore[misc]
    )
    ours = times[120] / IMAGES
    done &= leading_atoms(ensembles, predictions, times)

    whole, atoms, regions = whole_pixels(coarse, coarse_grid)
    maps = [np.maximum(layer, -1) + 1 for layer in regions]
    area = np.repeat(coarse_grid.grid.row_areas_km2()[:, None], coarse_grid.grid.cols, axis=1)
    row, column = coarse_grid.grid.pixels(lat, lon)
    ensemble = Ensemble(whole, ensembles[120].members)
    areas = ensemble.area_to_truth_km2(predictions[120], atoms[row, column])
    _, first = np.unique(atoms, return_index=True)
    worst, same_order, start = 0.0, True, process_time()
    elapsed = 0.0
    for i in range(PIXEL_IMAGES):
        p = [predictions[120][name].values[i] for name in PARTITIONS]
        start = process_time()
        expected, product = pixel_algorithm(maps, area, whole.region_areas_km2, p, row[i], column[i])
        elapsed += process_time() - start
        worst = max(worst, abs(areas[i] / expected - 1))
        if i < ORDERED:
            one = {name: Probabilities(name, given.values[i : i + 1]) for name, given in predictions[120].items()}
            by_score = np.argsort(-ensemble.scores(one)[0], kind="stable")
            densities = product.ravel()[first][by_score]
            same_order &= bool((densities[1:] <= densities[:-1] * (1 + 1e-12)).all())
    theirs = elapsed / PIXEL_IMAGES
    print(f"  one image, one core: ours {1e3 * ours:.2f} ms, pixel algorithm {theirs:.2f} s; order {same_order}")
    done &= same_order
    done &= bar("greatest relative difference of areas", worst * 1e6, 1.0, unit="ppm")
    done &= bar("pixel algorithm over ours", theirs / ours, 1000.0, at_least=True)
    done &= bar("an image at 30 over one at 120 arc-seconds", times[30] / times[120], 1.5)
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
