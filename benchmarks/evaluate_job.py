"""Evaluation of a million predicted points, all protocols and strata, 1,000 bootstrap samples; two cores."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import FOLDER
from benchmarks.fabricate import clustered_points
from benchmarks.label_job import job
from benchmarks.timing import bar
from geosieve.evaluation.estimates import Plan, estimate
from geosieve.evaluation.protocols import PROTOCOLS
from geosieve.evaluation.scored import Answers, Scored, Stratum

IMAGES, SAMPLES, PEER_SAMPLES = 1_000_000, 1_000, 5
STRATA = {"density": 4, "land_cover": 7, "climate": 30, "scene": 3, "source": 3}  # numbers of values
RUN = "benchmark"


def prepare() -> tuple[Path, Path]:
    """Paths of synthetic truth with strata, and of predictions with errors from 1 m to half the Earth; 1 % are missing.

    Later runs use the files again.
    """
    truth, answers = FOLDER / "evaluate_truth.parquet", FOLDER / "evaluate_answers.parquet"
    if not answers.exists():
        rng = np.random.default_rng(11)
        lat, lon = clustered_points(IMAGES, seed=7)
        ids = np.array([f"synthetic/{i:08d}.jpg" for i in range(IMAGES)])
        strata = {name: rng.integers(0, values, IMAGES).astype(str) for name, values in STRATA.items()}
        pq.write_table(pa.table({"id": ids, "lat": lat, "lon": lon, **strata}), truth)
        off = 10 ** rng.uniform(-5, 2, IMAGES)
        there = rng.permutation(IMAGES)[: IMAGES * 99 // 100]
        far = {"id": ids, "lat": np.clip(lat + off, -90, 90), "lon": (lon + off + 180) % 360 - 180}
        far["area"] = off**2 * 12_000
        pq.write_table(pa.table({name: column[there] for name, column in far.items()}), answers)
    return truth, answers


def config(truth: Path, answers: Path, output: Path) -> dict[str, Any]:
    """Configuration of `evaluate`: one system, all protocols and strata."""
    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    listed = {"format": "parquet", "uri": str(truth.resolve()), "columns": columns, "strata": {s: s for s in STRATA}}
    system = {"format": "parquet", "uri": str(answers.resolve()), "columns": {**columns, "area_km2": "area"}}
    return {"truth": listed, "systems": [{"name": "synthetic", **system}], "samples": SAMPLES, "output": str(output)}


def plain_seconds(scored: Scored) -> float:
    """Seconds that a plain bootstrap would take: draw rows with replacement, then compute recalls and medians again.

    Measured with PEER_SAMPLES samples and extrapolated to SAMPLES.
    """
    rng = np.random.default_rng(0)
    answers = scored.systems["synthetic"]
    start = perf_counter()
    for _ in range(PEER_SAMPLES):
        rows = rng.integers(0, len(scored), len(scored))
        angle, geodesic = answers.angle[rows], answers.geodesic_km[rows]
        for stratum in scored.strata:
            codes = stratum.codes[rows]
            members = [np.flatnonzero(codes == code) for code in range(len(stratum.values))]
            for protocol in PROTOCOLS.values():
                km = protocol.distance_km(angle, geodesic)
                for threshold in (1.0, 25.0, 200.0, 750.0, 2500.0):
                    np.bincount(codes, weights=protocol.hit(km, threshold), minlength=len(stratum.values))
                for member in members:
                    np.median(km[member])
    return (perf_counter() - start) / PEER_SAMPLES * SAMPLES


def synthetic_scores(n: int) -> Scored:
    """Random scores of n images for one system, with errors of 1 m to 10,000 km, and the strata."""
    rng = np.random.default_rng(3)
    km = 10 ** rng.uniform(-3, 4, n)
    strata = tuple(
        Stratum(name, tuple(map(str, range(values))), rng.integers(0, values, n).astype(np.int32))
        for name, values in STRATA.items()
    )
    keys = np.sort(rng.integers(0, 2**63, n).astype(np.uint64))
    return Scored(keys, {"synthetic": Answers(km / 6371, km, None, None)}, strata, None)


def main() -> int:
    """Return exit code 1 if the bar is missed."""
    truth, answers = prepare()
    output = FOLDER.resolve() / "evaluated"
    shutil.rmtree(output, ignore_errors=True)
    try:
        start = perf_counter()
        report, used = job("evaluate", config(truth, answers, output), RUN)
        seconds = perf_counter() - start
    finally:
        shutil.rmtree(output, ignore_errors=True)
    assert report["details"]["images"] == IMAGES
    print("  run: " + ", ".join(f"{stage} {s:.1f}" for stage, s in report["seconds"].items()) + " s", flush=True)
    print(f"  spark-submit from start to end: {seconds:.1f} s; processor seconds {sum(used.cpu.values()):.1f}")
    job_seconds = sum(s for stage, s in report["seconds"].items() if stage != "session")
    met = bar("job after the session's start", job_seconds, 60.0, unit="s")
    scored = synthetic_scores(IMAGES)
    start = perf_counter()
    estimate(scored, Plan(tuple(PROTOCOLS), SAMPLES, 0, 0.95))
    ours, plain = perf_counter() - start, plain_seconds(scored)
    print(
        f"  bootstrap alone: {ours:.1f} s; drawing rows anew, recalls and medians: {plain:,.0f} s, {plain / ours:.0f} x"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
