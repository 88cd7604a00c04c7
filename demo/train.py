"""The demo of training: predictors learned from SYNTHETIC scenes of real positions, and evaluated as an ensemble.

Scenes are drawn at positions of MP-16 photographs from the real maps there (demo/scenes), ingested from zips like
OSV-5M's, labelled, split by S2 cells, and made into training shards. Three predictors learn S2 cells, population
density and land cover. On scenes that none has seen, Recall vs Area says how much area each ensemble saves.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import simplejpeg

from demo import prepare
from demo.regions import CELLS, EVIDENCE, label_with_evidence, of_members, print_recall, systems
from demo.run import TABLES, job
from demo.scenes import maps
from demo.scenes.draw import draw
from demo.scenes.sheet import sheet
from geosieve.ensemble.calibration import log_score
from geosieve.ensemble.members import Probabilities
from geosieve.images.decode import decode
from geosieve.inference.artefact import FittedEnsemble, load_ensemble
from geosieve.inference.config import FitEnsembleConfig
from geosieve.inference.fit_ensemble import fit_ensemble
from geosieve.models.predictor import TrainedPredictor
from geosieve.overlay.atoms import Overlay
from geosieve.overlay.read import OverlayInput, read_published
from geosieve.reporting.regions import draw_curves
from geosieve.runtime.config import read_yaml
from geosieve.runtime.logs import logger
from geosieve.runtime.session import spark_session
from geosieve.splits.build import build_splits
from geosieve.splits.config import SplitConfig
from geosieve.training.config import TrainingSetConfig
from geosieve.training.prepare import prepare_training_set
from geosieve.training.train import train_predictor
from geosieve.training.train_config import TrainConfig

SCENES, SIDE, SEED, ARCHIVES = 20_000, 96, 0, 4
FOLDER = Path("build/scenes")
CURVES, SHEET = Path("build/trained_recall_vs_area.png"), Path("build/scenes_with_answers.png")
CONF = "conf/{}/scenes.yaml"
NAMES = (CELLS, "density", "land_cover")
"""The partitions that are learned; each has a file conf/train_predictor/scenes_NAME.yaml."""
_SHOWN = 24


def run() -> int:
    """Run the demo, print its results, and draw curves and scenes. Return exit code 0."""
    logger().setLevel(logging.WARNING)
    prepare.positions()
    prepare.population_proxy()
    start = perf_counter()
    _write_scenes()
    run_id = datetime.now(UTC).strftime("demo-%Y%m%dT%H%M%SZ")
    print("starting Spark ...", flush=True)
    with spark_session("geosieve demo", local=True) as spark:
        reports = _jobs(run_id)
        published = read_published(spark, OverlayInput(root=str(TABLES), name="scenes", run=run_id))
        overlay = published.overlay()
    shards = Path(next(uri for uri in reports["shards"]["outputs"] if "training_shards" in uri))
    predictors = {name: TrainedPredictor.load(reports[name]["details"]["predictor"]) for name in NAMES}
    test = _split(shards, "test")
    _print_predictors(predictors, _split(shards, "train", list(NAMES)), test)
    ensemble = load_ensemble(reports["ensemble"]["details"]["ensemble"], overlay)
    areas = _evaluated(overlay, predictors, ensemble, test)
    print_recall(areas, overlay, f"{len(test):,} SYNTHETIC scenes that were not trained on")
    draw_curves(areas, CURVES, f"Recall vs Area, {len(test):,} synthetic scenes, trained predictors")
    _draw_sheet(predictors, test, overlay)
    print(f"\ncurves    {CURVES}\nscenes    {SHEET}\ntables    {TABLES}   ({perf_counter() - start:.0f} s)")
    return 0


def _write_scenes() -> None:
    """Draw the scenes, unless they are there: a list with positions, and zips of JPEG files."""
    done = FOLDER / "scenes.csv"
    if done.exists():
        return
    print(f"drawing {SCENES:,} synthetic scenes ...", flush=True)
    positions = pd.read_csv(prepare.POSITIONS)
    chosen = np.sort(np.random.default_rng(SEED).choice(len(positions), SCENES, replace=False))
    lat, lon = (positions[axis].to_numpy()[chosen] for axis in ("lat", "lon"))
    facts = maps.read(lat, lon)
    (FOLDER / "images").mkdir(parents=True, exist_ok=True)
    for archive in range(ARCHIVES):
        rows = np.arange(archive, SCENES, ARCHIVES)
        with zipfile.ZipFile(FOLDER / "images" / f"{archive:02d}.zip", "w") as target:
            for some in np.array_split(rows, -(-len(rows) // 512)):
                for number, picture in zip(some, draw(facts[some], SEED, some.astype(np.int64), SIDE), strict=True):
                    target.writestr(f"{number:06d}.jpg", simplejpeg.encode_jpeg(picture, 92, "RGB", "420"))
    with done.with_suffix(".part").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "latitude", "longitude"])
        writer.writerows(
            (f"{n:06d}", repr(float(a)), repr(float(b))) for n, (a, b) in enumerate(zip(lat, lon, strict=True))
        )
    done.with_suffix(".part").rename(done)


def _jobs(run_id: str) -> dict[str, dict[str, Any]]:
    """Run all jobs. Reports by name: `shards`, each predictor's partition, and `ensemble`."""
    evidence = {path.stem: read_yaml(path) for path in sorted(EVIDENCE.glob("*.yaml"))}
    chosen = {"sources": ["scenes"]}
    images = label_with_evidence("scenes", CONF.format("ingest_images"), run_id, evidence, chosen)
    job("build_splits", SplitConfig, build_splits, CONF.format("build_splits"), run_id, [f"images.run={images}"])
    of_run = [f"images.run={images}", f"labels.run={run_id}", f"splits.run={run_id}"]
    prepare_config = CONF.format("prepare_training_set")
    reports = {
        "shards": job("prepare_training_set", TrainingSetConfig, prepare_training_set, prepare_config, run_id, of_run)
    }
    for name in NAMES:
        config = f"conf/train_predictor/scenes_{name}.yaml"
        reports[name] = job("train_predictor", TrainConfig, train_predictor, config, run_id, [f"shards.run={run_id}"])
    members = [f"members.{name}.uri={reports[name]['details']['predictor']}" for name in NAMES]
    of_ensemble = [f"overlay.run={run_id}", f"shards.run={run_id}", *members]
    config = CONF.format("fit_ensemble")
    reports["ensemble"] = job("fit_ensemble", FitEnsembleConfig, fit_ensemble, config, run_id, of_ensemble)
    return reports


def _split(shards: Path, split: str, columns: list[str] | None = None) -> pd.DataFrame:
    """The rows of a split, with all columns or some."""
    files = [
        file["name"] for file in json.loads((shards / "_shards.json").read_text())["files"] if file["split"] == split
    ]
    tables = [pq.ParquetFile(shards / name).read(columns=columns).to_pandas() for name in files]
    return pd.concat(tables, ignore_index=True)


def _probabilities(predictors: dict[str, TrainedPredictor], rows: pd.DataFrame) -> dict[str, Probabilities]:
    """Probabilities of all predictors by partition."""
    images = [np.asarray(decode(content)) for content in rows["image"]]
    return {
        name: Probabilities(predictor.facts.partitions[0].hash, np.exp(predictor.log_probabilities(images)[name]))
        for name, predictor in predictors.items()
    }


def _evaluated(
    overlay: Overlay, predictors: dict[str, TrainedPredictor], ensemble: FittedEnsemble, test: pd.DataFrame
) -> dict[str, np.ndarray]:
    """The area to the truth of the test scenes, by system, in km²."""
    found = systems(overlay, ["density", "land_cover"])
    predictions = _probabilities(predictors, test)
    truth = overlay.atoms_of(test[[p.name for p in overlay.partitions]])[0]
    fitted = ensemble.ensemble
    scores = [log_score(one, predictions, truth)[0] for one in (found["base + all"], fitted)]
    print(f"\nmean log density at the truth: {scores[0]:.2f} as they are, {scores[1]:.2f} fitted, with")
    print("; ".join(f"{p.name} weight {p.weight:.2f} temperature {p.temperature:.2f}" for p in fitted.members))
    for coverage, sets in ensemble.marginal.items():
        held = sets.covers(fitted.credible_level(predictions, truth), truth).mean()
        print(f"conformal sets of {coverage:.0%} hold the truth of {held:.1%} of the scenes")
    found["base + all, fitted"] = fitted
    return {name: one.area_to_truth_km2(of_members(one, predictions), truth) for name, one in found.items()}


def _print_predictors(predictors: dict[str, TrainedPredictor], train: pd.DataFrame, test: pd.DataFrame) -> None:
    """How often each predictor is right, beside always telling the region of most training images."""
    print(f"\n{len(test):,} SYNTHETIC scenes that were not trained on: right (%), and the most frequent region (%)")
    for name, found in _probabilities(predictors, test).items():
        labels = test[name].to_numpy()
        known = labels >= 0
        right = (found.values.argmax(axis=1) == labels)[known].mean()
        most = (labels[known] == train[name][train[name] >= 0].mode()[0]).mean()
        print(f"{name:12} {100 * right:8.1f} {100 * most:8.1f}   of {found.values.shape[1]} regions")


def _draw_sheet(predictors: dict[str, TrainedPredictor], test: pd.DataFrame, overlay: Overlay) -> None:
    """Some scenes with what the predictors say of density and land cover."""
    rows = test.iloc[np.linspace(0, len(test) - 1, _SHOWN).astype(int)]
    found = _probabilities(predictors, rows)
    captions = []
    for k in range(len(rows)):
        words = []
        for name in ("density", "land_cover"):
            # Without the bounds of buckets, which are long.
            names = [text.partition(" [")[0] for text in predictors[name].regions[name].column("name").to_pylist()]
            best, truth = int(found[name].values[k].argmax()), int(rows[name].iloc[k])
            words.append(
                f"{names[best]}{'' if best == truth else ' (no: ' + (names[truth] if truth >= 0 else '?') + ')'}"
            )
        captions.append(", ".join(words))
    sheet(np.stack([np.asarray(decode(content)) for content in rows["image"]]), captions, SHEET, columns=4, zoom=3)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(run())
