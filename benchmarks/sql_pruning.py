"""Bytes that ready queries read of 10 million regions in 20 runs, with and without pruning; no bar on time.

The rows are those of made-up answers, written by the publication that jobs use, sorted as `rank_regions` sorts them: 4
rankings with 5 runs each, 25,000 images a run with 20 regions each, in 4 files. DuckDB counts the bytes that it reads;
without pruning it is told not to bring filters down to the files.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks import FOLDER
from benchmarks.timing import bar
from geosieve.geo import s2
from geosieve.geo.cover import Boxes, covered
from geosieve.runtime.session import spark_session
from geosieve.sql import duckdb as views
from geosieve.sql import place
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schemas import ATOM_CELLS, IMAGE_SUMMARY, RANKED_REGIONS

QUERIES = Path("deploy/sql")
RANKINGS, RUNS, IMAGES, REGIONS, FILES = 4, 5, 25_000, 20, 4
ATOMS, LEVEL = 30_000, 8
RUN_ID = "20260103T000000Z"
PLACE = (43.0, -1.0, 44.0, 1.0)
"""South, west, north, east: about 110 by 160 km."""
UNPRUNED = "filter_pushdown,join_filter_pushdown,statistics_propagation"


def atoms() -> dict[str, Any]:
    """Boxes of one degree around random points of the Earth, as columns of `ranked_regions`."""
    rng = np.random.default_rng(0)
    lat, lon = np.degrees(np.arcsin(rng.uniform(-0.98, 0.98, ATOMS))), rng.uniform(-179, 179, ATOMS)
    bounds = {"south": lat - 0.5, "west": lon - 0.5, "north": lat + 0.5, "east": lon + 0.5}
    return {
        "lat": lat,
        "lon": lon,
        "s2_id": s2.cell_ids(lat, lon),
        **bounds,
        "area_km2": rng.uniform(9e3, 1.2e4, ATOMS),
    }


def write(spark: SparkSession, root: Path) -> None:
    """The tables; later runs use them again."""
    known = spark.sparkContext.broadcast(atoms())

    def answers(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        told = known.value
        for batch in batches:
            image = batch["id"].to_numpy()
            rng = np.random.default_rng(image[:1])
            atom = rng.integers(0, ATOMS, (image.size, REGIONS))
            p = np.sort(rng.dirichlet(np.full(REGIONS, 0.3), image.size), axis=1)[:, ::-1]
            rows = {
                "source": pa.repeat("made-up", atom.size),
                "image_id": np.repeat(np.char.mod("image%09d", image), REGIONS),
                "rank": pa.array(np.tile(np.arange(1, REGIONS + 1), image.size), pa.int32()),
                "atom": atom.ravel(),
                "overlay_hash": pa.repeat("f" * 64, atom.size),
                "probability": p.ravel(),
                "cumulative_probability": np.cumsum(p, axis=1).ravel(),
                "cumulative_area_km2": np.cumsum(told["area_km2"][atom], axis=1).ravel(),
                **{name: told[name][atom.ravel()] for name in told},
            }
            names = [column.name for column in RANKED_REGIONS.columns]
            yield pa.RecordBatch.from_pydict({name: rows[name] for name in names})

    def publication(leaf: Leaf, run_id: str) -> Publication | None:
        made = Publication(spark, str(root), run_id, "{}", "benchmark", [leaf])
        return made if made.begin() else None

    for k in range(RANKINGS * RUNS):
        values, run_id = {"ranking": f"ranking{k // RUNS}"}, f"202601{k % RUNS + 1:02d}T000000Z"
        images = spark.range(k * IMAGES, (k + 1) * IMAGES, 1, FILES)
        if one := publication(Leaf(RANKED_REGIONS, values), run_id):
            found = images.mapInArrow(answers, RANKED_REGIONS.spark_schema())
            one.commit(one.write(RANKED_REGIONS, found.sortWithinPartitions("s2_id")), "{}")
        if one := publication(Leaf(IMAGE_SUMMARY, values), run_id):
            named = F.format_string("image%09d", "id")
            facts = {"source": F.lit("made-up"), "image_id": named, "answer_source": F.lit("made-up")}
            facts |= {"answer_image_id": named, "answer_run_id": F.lit(run_id), "overlay_hash": F.lit("f" * 64)}
            unknown = {c.name: F.lit(None).cast(c.spark_type) for c in IMAGE_SUMMARY.columns if c.name not in facts}
            one.commit(one.write(IMAGE_SUMMARY, images.withColumns({**unknown, **facts}).drop("id")), "{}")
    if one := publication(Leaf(ATOM_CELLS, {"overlay": "made-up"}), "1"):
        sides = (known.value[name] for name in ("south", "west", "north", "east"))
        atom, cell, _ = covered(Boxes(*sides, np.arange(ATOMS)), LEVEL)
        first, last = s2.leaves(cell)
        columns = {"atom": atom, "s2_id": cell, "first_leaf": first, "last_leaf": last}
        table = pa.table(columns).to_pandas().sort_values("first_leaf")
        frame = spark.createDataFrame(table).withColumn("overlay_hash", F.lit("f" * 64))
        frame = frame.withColumn("level", F.lit(LEVEL)).withColumn("share", F.lit(0.0))
        one.commit(one.write(ATOM_CELLS, frame.coalesce(1)), "{}")


def bytes_read(root: Path, query: str, pruned: bool) -> tuple[int, list[Any]]:
    """Bytes that DuckDB reads of files for a query, and its rows."""
    connection = duckdb.connect()
    views.register(connection, str(root))
    report = root / "profile.json"
    if not pruned:
        connection.execute(f"SET disabled_optimizers = '{UNPRUNED}'")
    connection.execute("PRAGMA enable_profiling = 'json'")
    connection.execute(f"PRAGMA profiling_output = '{report}'")
    rows = [
        tuple(round(value, 9) if isinstance(value, float) else value for value in row)  # sums differ by their order
        for row in connection.execute(query).fetchall()
    ]
    connection.close()
    return int(json.loads(report.read_text())["io"]["total_bytes_read"]), rows


def ready(name: str, parameters: str) -> str:
    """A ready query with its parameters, for PLACE."""
    text = (QUERIES / f"{name}.sql").read_text(encoding="utf-8")
    text = re.sub(r"(WITH parameters \([^)]*\) AS \(VALUES )\(.*?\)\)", rf"\1({parameters}))", text)
    parts = place.values(place.box(*PLACE), PLACE)
    ranges = parts[parts.index("ranges (") :]
    text = re.sub(r"place \(south.*\n", parts[: parts.index("ranges (")], text)
    text = text.replace("'example' AND r.run_id = '20260101T000000Z'", f"'ranking1' AND r.run_id = '{RUN_ID}'")
    return re.sub(r"ranges \(first_leaf.*\n", ranges + "\n", text)


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    root = FOLDER.resolve() / "sql_pruning"
    root.mkdir(parents=True, exist_ok=True)
    with spark_session("sql_pruning", local=True) as spark:
        write(spark, root)
    box = ", ".join(f"{of}" for of in PLACE)
    asked = {
        "centred_in_place": ("", 10.0),
        "touches_box": (f"'ranking1', 0.9, {box}", None),
        "touches_place": ("'ranking1', 0.9", None),
        "most_photos": ("'ranking1'", None),
    }
    met = []
    for name, (parameters, limit) in asked.items():
        query = ready(name, parameters)
        (few, rows), (all_, same) = bytes_read(root, query, True), bytes_read(root, query, False)
        if rows != same or not rows:
            raise SystemExit(f"{name}: {len(rows)} rows with pruning, {len(same)} without")
        print(f"  {name}: {len(rows):,} rows, {few / 1e6:,.1f} of {all_ / 1e6:,.1f} MB")
        if limit is None:
            print(f"  {name}: {100 * few / all_:.1f} % of the bytes")
        else:
            met.append(bar(f"{name}: bytes read with pruning", 100 * few / all_, limit, unit="%"))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
