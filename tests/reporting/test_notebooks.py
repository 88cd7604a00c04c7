"""The notebooks, executed as a reader would, over a small world; the files hold no outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pyarrow.parquet as pq
import pytest
from nbclient import NotebookClient
from pyspark.sql import SparkSession
from small_answers import World

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*")), ids=lambda path: path.name)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code)


def test_ask_an_archive_says_what_the_tables_say(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, spark)
    rng = np.random.default_rng(0)
    for run, ids in (("one", ["a", "b", "$c_d$</b>"]), ("two", ["b", "e"])):  # b counts by its later run
        world.rank("r", run, "s", ids, [rng.dirichlet(np.ones(n), len(ids)) for n in (10, 6)])
    monkeypatch.setenv("GEOSIEVE_ROOT", str(world.tables))
    monkeypatch.setenv("GEOSIEVE_RANKING", "r")
    notebook = nbformat.read(FOLDER / "ask_an_archive.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    said: dict[str, Any] = {}
    question = "print(counts.to_json(orient='records'), len(points), here.to_json(orient='records'), sep='\\n')"
    notebook.cells.append(nbformat.v4.new_code_cell(question))
    client.execute()
    said["counts"], said["points"], said["here"] = notebook.cells[-1].outputs[0]["text"].splitlines()
    leaves = {run: world.tables / f"image_summary/ranking=r/run_id={run}" for run in ("one", "two")}
    summaries = {run: pq.read_table(leaf, partitioning=None).to_pandas() for run, leaf in leaves.items()}
    kept = summaries["one"][summaries["one"]["image_id"] != "b"]["area_50_km2"].tolist()
    kept += summaries["two"]["area_50_km2"].tolist()
    assert (
        f'"images":4,"without_evidence":0,"contradictions":0,"median_area_50_km2":{np.median(kept):.0f}'
        in (said["counts"])
    )
    assert said["points"] == "4" and said["here"].count('"image_id":"b"') == 1
    pictures = [one for cell in notebook.cells for one in cell.get("outputs", ()) if "image/png" in one.get("data", {})]
    assert len(pictures) == 3
