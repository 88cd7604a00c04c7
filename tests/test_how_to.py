"""The Python examples of docs/how-to.md, run one after the other as a reader would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated_rasters import world
from pyspark.sql import SparkSession
from small_predictor import write_example
from workspace import Workspace

from geosieve.ensemble.members import Probabilities

PAGE = Path(__file__).parents[1] / "docs" / "how-to.md"
IMAGES, CELLS, DENSITIES = 40, 6 * 4**5, 5


@pytest.fixture
def given(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page says is the reader's own: an overlay in `tables`, predictions (random here), and labels."""
    monkeypatch.chdir(tmp_path)
    workspace = Workspace(tmp_path)
    workspace.catalog("map", world(tmp_path / "map.tif", 2.0, high=60))
    rng = np.random.default_rng(0)
    workspace.ingest(rng.uniform(-60, 60, IMAGES), rng.uniform(-180, 180, IMAGES))
    cells = {"name": "cells", "kind": "s2", "level": 5}
    names = ["below 10", "10 to 20", "20 to 30", "30 to 40", "above"]
    buckets = {"names": names, "edges": [10.0, 20.0, 30.0, 40.0]}
    density = {"name": "density", "kind": "density", "collection": "map", **buckets}
    config = {"name": "world", "rasters": {"root": str(workspace.tables)}, "resolution_arcsec": 7200}
    code, report = workspace.run("build_overlay", {**config, "partitions": [cells, density]})
    assert code == 0, report["error"]
    code, report = workspace.label([cells, density])
    assert code == 0, report["error"]
    hashes = {name: facts["hash"] for name, facts in report["details"]["partitions"].items()}
    regions = {"cells": CELLS, "density": DENSITIES}
    drawn = {name: rng.dirichlet(np.ones(n), IMAGES) for name, n in regions.items()}
    predictor = write_example(str(workspace.tables / "_predictors" / "s2_base" / "a"))
    return {
        "spark": spark,
        "hashes": predictor,
        "images": list(rng.integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)),
        "p_cells": drawn["cells"],
        "p_density": drawn["density"],
        "labels": workspace.labels(),
        "calibration": {
            name: Probabilities(hashes[name], rng.dirichlet(np.ones(n), 99)) for name, n in regions.items()
        },
        "calibration_truth": rng.integers(0, CELLS, 99),
        "claimed": rng.integers(0, CELLS, IMAGES),
    }


def test_the_examples_run_as_they_stand(given: dict[str, Any], tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(examples) == 6
    for example in examples:
        # Spark's working directory is where its session began.
        here = example.replace('root="tables"', f'root="{tmp_path}/tables"').replace('"cuda"', '"cpu"')
        exec(compile(here, str(PAGE), "exec"), given)
    assert given["log_p"].shape == given["f_star"].shape == (3, 7)
    assert np.exp(given["f_star"]).sum(axis=1) == pytest.approx(np.ones(3))
    ranking, n = given["ranking"], given["n"]
    assert ((n > 0) & (n < ranking.overlay.n_atoms)).all() or n.min() == 0
    sums = np.cumsum(ranking.area_km2, axis=1)
    for image, leading in enumerate(n):
        assert leading == 0 or sums[image, leading - 1] <= 50_000 < sums[image, leading]
    assert given["found"].probability.sum() == pytest.approx(ranking.probability[0, : n[0]].sum())
    smallest = np.bincount(given["region"], ranking.overlay.area_km2)
    assert smallest.min() >= 10_000
    assert given["inside"].shape == ranking.atom.shape
    assert ((given["claim"].p_value > 0) & (given["claim"].p_value <= 1)).all()
    written = pd.read_csv(tmp_path / "predictions.csv")
    assert written["id"].tolist() == [f"points{k:06d}" for k in range(IMAGES)]
    # The area before and with the true atom, in the ranking's order.
    position = (ranking.atom == given["truth"][:, None]).argmax(axis=1)
    assert written["area"].to_numpy() == pytest.approx(sums[np.arange(IMAGES), position])
