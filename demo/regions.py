"""The demo of ranked regions: real positions and maps, simulated predictors, Recall vs Area.

Every file in demo/evidence describes a map. The map is catalogued, becomes a partition of the overlay, and gets a
simulated predictor.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession

from demo import prepare
from demo.run import INGEST, TABLES, inputs_run, job
from demo.simulate import attribute_predictor, cell_predictor
from geosieve.ensemble.calibration import fit, log_score
from geosieve.ensemble.conformal import ConformalSets
from geosieve.ensemble.members import Ensemble, EnsembleMember, Predictions, Probabilities, mask_prior
from geosieve.ensemble.patches import patches
from geosieve.ensemble.ranking import rank
from geosieve.evaluation.protocols import THRESHOLDS_KM, cap_area_km2
from geosieve.images.ingest import IngestConfig, ingest_images
from geosieve.labels.label import LabelConfig, label_attributes
from geosieve.overlay.atoms import AtomGrid, Overlay
from geosieve.overlay.build import OverlayConfig, build_overlay
from geosieve.overlay.read import OverlayInput, read_published
from geosieve.partitions.building.job import BuildConfig, build_partitions
from geosieve.rasters.catalog import CatalogConfig, catalog_rasters
from geosieve.reporting.regions import draw_curves, draw_regions
from geosieve.runtime.config import load, read_yaml, validate
from geosieve.runtime.logs import logger
from geosieve.runtime.session import spark_session
from geosieve.tables.read import read_committed
from geosieve.tables.schemas import labels_table

EVIDENCE = Path("demo/evidence")
CURVES, MAP = Path("build/recall_vs_area.png"), Path("build/regions.png")
IMAGES = 2000
CELLS = "cells"


def run() -> int:
    """Run the demo, print its results, and draw the curves and the map. Return exit code 0."""
    logger().setLevel(logging.WARNING)
    prepare.positions()
    prepare.population_proxy()
    run_id = datetime.now(UTC).strftime("demo-%Y%m%dT%H%M%SZ")
    evidence = {path.stem: read_yaml(path) for path in sorted(EVIDENCE.glob("*.yaml"))}
    print("starting Spark ...", flush=True)
    with spark_session("geosieve demo", local=True) as spark:
        overlay, grid, images = _tables(spark, run_id, evidence)
    rng = np.random.default_rng(0)
    images = images.iloc[rng.choice(len(images), IMAGES, replace=False)]
    lat, lon = images["lat"].to_numpy(), images["lon"].to_numpy()
    truth, unseen = overlay.atoms_of(images[[p.name for p in overlay.partitions]])
    print(f"{unseen} of {IMAGES} positions have regions that no atom combines; they count in an atom of their cell")
    predictions = _simulated(rng, overlay, truth, lat, lon)
    ensembles = systems(overlay, sorted(evidence))
    areas = {
        name: ensemble.area_to_truth_km2(of_members(ensemble, predictions), truth)
        for name, ensemble in ensembles.items()
    }
    print_recall(areas, overlay, f"{IMAGES:,} real positions, SIMULATED predictors")
    _print_calibration(ensembles["base + all"], predictions, truth)
    draw_curves(areas, CURVES, f"Recall vs Area, {IMAGES:,} real positions, simulated predictors")
    middle = int(np.argsort(areas["base + all"])[IMAGES // 2])
    _print_regions(ensembles["base + all"], predictions, grid, truth, (lat, lon), middle)
    print(f"\ncurves    {CURVES}\nmap       {MAP}")
    return 0


def _tables(spark: SparkSession, run_id: str, evidence: dict[str, Any]) -> tuple[Overlay, AtomGrid, pd.DataFrame]:
    """Run the jobs up to the overlay. Return the overlay, its grid, and one row per image with its regions."""
    label_with_evidence("demo", INGEST, run_id, evidence, {})
    published = read_published(spark, OverlayInput(root=str(TABLES), name="demo", run=run_id))
    images = read_committed(spark, str(TABLES), labels_table(published.names), run_id=run_id).toPandas()
    return published.overlay(), published.atom_grid(), images.sort_values("image_id")


def label_with_evidence(name: str, ingest: str, run_id: str, evidence: dict[str, Any], images: dict[str, Any]) -> str:
    """Run the jobs from images and maps to cells, overlay and labels. Return the run of the images.

    `name`: of the configurations of cells and overlay; `ingest`: path of that of the images; `evidence`: contents of
    demo/evidence; `images`: further keys of what is labelled.
    """
    of_images = inputs_run([load(IngestConfig, ingest)])
    catalogs = {key: {"rasters": content["rasters"], "output": str(TABLES)} for key, content in evidence.items()}
    of_maps = inputs_run(validate(CatalogConfig, catalog, key) for key, catalog in catalogs.items())
    job("ingest_images", IngestConfig, ingest_images, ingest, of_images)
    with tempfile.TemporaryDirectory() as folder:

        def written(key: str, config: dict[str, Any]) -> str:
            path = Path(folder, f"{key}.yaml")
            path.write_text(json.dumps(config))
            return str(path)

        for key, catalog in catalogs.items():
            job("catalog_rasters", CatalogConfig, catalog_rasters, written(key, catalog), of_maps)
        chosen = [f"images.run={of_images}"]
        job("build_partitions", BuildConfig, build_partitions, f"conf/build_partitions/{name}.yaml", run_id, chosen)
        whole = read_yaml(f"conf/build_overlay/{name}.yaml")
        whole["rasters"]["run"] = of_maps
        whole["partitions"] += [content["partition"] for content in evidence.values()]
        job("build_overlay", OverlayConfig, build_overlay, written("overlay", whole), run_id)
        labels = {
            "images": {"root": str(TABLES), "run": of_images, **images},
            **{key: whole[key] for key in ("rasters", "partitions", "output")},
        }
        job("label_attributes", LabelConfig, label_attributes, written("labels", labels), run_id)
    return of_images


def _simulated(
    rng: np.random.Generator, overlay: Overlay, truth: np.ndarray, lat: np.ndarray, lon: np.ndarray
) -> dict[str, Probabilities]:
    """Simulated probabilities for each partition. `truth`: the atom of each image; `lat`, `lon` in degrees."""
    found = {}
    for partition in overlay.partitions:
        label = overlay.labels[truth, overlay.column(partition.name)]
        if partition.name == CELLS:
            values = cell_predictor(rng, overlay, partition.name, lat, lon)
        else:
            values = attribute_predictor(rng, label, partition.n_regions)
        found[partition.name] = Probabilities(partition.digest, values)
    return found


def systems(overlay: Overlay, evidence: list[str]) -> dict[str, Ensemble]:
    """The ensembles to compare: S2 cells alone, with each map, with all maps, and with an urban prior.

    The urban prior excludes all but the two densest buckets of population density.
    """
    base = EnsembleMember(CELLS, CELLS)
    names = [p.name for p in overlay.partitions if p.name != CELLS]
    found = {"base": Ensemble(overlay, (base,))}
    for name in names:
        found[f"base + {name}"] = Ensemble(overlay, (base, EnsembleMember(name, name)))
    found["base + all"] = Ensemble(overlay, (base, *(EnsembleMember(name, name) for name in names)))
    if "density" in names:
        found["base + urban prior"] = Ensemble(overlay, (base, mask_prior(overlay, "urban", "density", [2, 3])))
    return found


def of_members(ensemble: Ensemble, predictions: Predictions) -> dict[str, Probabilities]:
    """The predictions that an ensemble uses."""
    return {p.name: predictions[p.name] for p in ensemble.members if p.fixed is None}


def print_recall(areas: dict[str, np.ndarray], overlay: Overlay, what: str) -> None:
    """Print how many of the images, in percent, have their truth within an area. `areas`: to the truth, in km²."""
    caps = cap_area_km2(THRESHOLDS_KM)
    width = max(map(len, areas))
    print(f"\n{what}, {overlay.n_atoms:,} atoms: recall (%) within an area of")
    print(" " * width, *(f"{cap:>12,.0f}" for cap in caps), "km2")
    for name, reached in areas.items():
        print(f"{name:{width}}", *(f"{100 * (reached <= cap).mean():12.1f}" for cap in caps))


def _print_calibration(ensemble: Ensemble, predictions: Predictions, truth: np.ndarray) -> None:
    """Calibrate the ensemble and print the results.

    Weights and temperatures are fitted on the first third of the images, and conformal sets are calibrated on the
    second. Both are tested on the last third.
    """
    thirds = [slice(k * IMAGES // 3, (k + 1) * IMAGES // 3) for k in range(3)]
    parts = [_rows(predictions, images) for images in thirds]
    at = [truth[images] for images in thirds]
    fitted = fit(ensemble, parts[0], at[0]).ensemble
    scores = [log_score(one, parts[2], at[2])[0] for one in (ensemble, fitted)]
    print(f"\nmean log density at the truth, held out: {scores[0]:.2f} as they are, {scores[1]:.2f} with")
    print("; ".join(f"{p.name} weight {p.weight:.2f} temperature {p.temperature:.2f}" for p in fitted.members))
    sets = ConformalSets.marginal(fitted.credible_level(parts[1], at[1]), 0.9)
    held = sets.covers(fitted.credible_level(parts[2], at[2]), at[2])
    print(f"conformal sets of 90 % hold the truth of {held.mean():.1%} of {held.size} held-out images")


def _rows(predictions: Predictions, images: slice) -> dict[str, Probabilities]:
    return {name: Probabilities(p.partition_hash, p.values[images]) for name, p in predictions.items()}


def _print_regions(
    ensemble: Ensemble,
    predictions: Predictions,
    grid: AtomGrid,
    truth: np.ndarray,
    position: tuple[np.ndarray, np.ndarray],
    image: int,
) -> None:
    """Print and draw the regions of one image."""
    one = _rows(predictions, slice(image, image + 1))
    (ranking,) = rank(ensemble, one)
    half, most = (int(ranking.within_mass(share)[0]) for share in (0.5, 0.9))
    area = ranking.area_km2[0]
    reached = float(ensemble.area_to_truth_km2(one, truth[image : image + 1])[0])
    print(f"\nan image of the middle: 50 % of the probability in {area[:half].sum():,.0f} km2 ({half} atoms),")
    print(f"90 % in {area[:most].sum():,.0f} km2 ({most}); its truth is reached with {reached:,.0f} km2.")
    found = patches(ranking, grid, 0, half)
    print(f"Joined where they touch, the {half} are {len(found)} regions, the one with the densest atom first:")
    for k in range(min(5, len(found))):
        where = f"{found.lat[k]:8.2f} {found.lon[k]:9.2f}"
        print(f"  {k + 1}. {where}  {found.area_km2[k]:>10,.0f} km2  probability {found.probability[k]:.3f}")
    at = (float(position[0][image]), float(position[1][image]))
    draw_regions(ranking, grid, MAP, at, "regions of one image (simulated predictors)")


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(run())
