"""The job `atom_cells`: S2 cells that cover the atoms of an overlay, for engines without geometry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pydantic import Field
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from geosieve.geo import s2
from geosieve.geo.arrays import F8, I8
from geosieve.geo.cover import Boxes, covered, rests_of, summed
from geosieve.geo.grid import EqualAngleGrid
from geosieve.geo.ranges import ranges
from geosieve.job.main import Context
from geosieve.job.publishing import JobConfig, publishes
from geosieve.overlay.read import BUILD_JOB, OverlayInput
from geosieve.runtime.errors import IntegrityError
from geosieve.runtime.frames import on_disk
from geosieve.tables.arrow import chunks
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import committed_runs, named_run, read_runs
from geosieve.tables.schemas import ATOM_CELLS, OVERLAY_ATOMS, OVERLAY_RUNS

JOB = "atom_cells"
_RESTS_AT_ONCE = 2_000_000
"""Of boxes, each of some 100 bytes."""
_FILE_ROWS = 2_000_000


class CellsConfig(JobConfig):
    """Configuration of `atom_cells`."""

    overlay: OverlayInput
    level: int = Field(
        8,
        ge=1,
        le=12,
        description="of the cells. Those of level 8 are about 36 km wide, so they tell cities apart, and there are "
        "393,216 of them; each level more has four times as many",
    )


def _leaves(config: CellsConfig) -> list[Leaf]:
    return [Leaf(ATOM_CELLS, {"overlay": config.overlay.name})]


@publishes(_leaves)
def atom_cells(context: Context[CellsConfig], publication: Publication) -> int:
    """Publish `atom_cells` of an overlay. Returns the number of rows, or 0 for a dry run.

    InputError if there is no such overlay; IntegrityError if an atom has no pixels.
    """
    config, report, spark = context.config, context.report, context.spark
    source, level = config.overlay, config.level
    with report.stage("inputs"):
        run = named_run(spark, source.root, OVERLAY_ATOMS, source.name, source.run, ("overlay", "overlays"), BUILD_JOB)
        facts = read_runs(spark, source.root, OVERLAY_ATOMS, [run]).select("grid_rows", "overlay_hash").first()
        assert facts is not None  # an overlay has an atom at least
        grid, digest = EqualAngleGrid(facts["grid_rows"], 2 * facts["grid_rows"]), facts["overlay_hash"]
        beside = committed_runs(spark, source.root, OVERLAY_RUNS, overlay=source.name, run_id=run.run_id)
        runs = read_runs(spark, source.root, OVERLAY_RUNS, beside).where(F.col("overlay_hash") == digest)
    if context.dry_run:
        context.show_plan({"overlay": digest, "atoms": run.rows}, {"overlay_runs": runs})
        return 0
    with on_disk(_areas(runs, grid, level)) as areas:
        with report.stage("cells"):
            total = areas.groupBy("atom").agg(F.sum("km2").alias("atom_km2"))
            atoms, pairs = total.count(), areas.count()
        if atoms != run.rows:
            raise IntegrityError(
                f"{run.rows} atoms, but the grid has pixels of {atoms}", where=run.uri, hint="build the overlay again"
            )
        with report.stage("write"):
            rows = _ranges(areas.join(total, "atom"), level).withColumn("overlay_hash", F.lit(digest))
            report.rows_in = pairs
            ordered = rows.repartitionByRange(-(-pairs // _FILE_ROWS), "first_leaf")
            report.rows_out = publication.write(ATOM_CELLS, ordered.sortWithinPartitions("first_leaf", "atom"))
    report.details |= {"atoms": atoms, "overlay_hash": digest}
    return pairs


def _areas(runs: DataFrame, grid: EqualAngleGrid, level: int) -> DataFrame:
    """Rows (atom, s2_id, km2): the cells that pixels of each atom touch, and the area of these pixels in them."""

    def cells(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            columns = {name: chunk[name].to_numpy() for name in ("row", "column", "length", "share", "atom")}
            atom, cell, area = cells_of_runs(grid, level, **columns)
            yield pa.RecordBatch.from_pydict({"atom": atom, "s2_id": cell, "km2": area})

    wanted = runs.select("row", "column", "length", "share", "atom")
    found = wanted.mapInArrow(cells, "atom bigint, s2_id bigint, km2 double")
    return found.groupBy("atom", "s2_id").agg(F.sum("km2").alias("km2"))


def cells_of_runs(
    grid: EqualAngleGrid, level: int, row: I8, column: I8, length: I8, share: F8, atom: I8
) -> tuple[I8, I8, F8]:
    """Atom, cell and km² in it, each (n,), from columns of `overlay_runs`; each pair of atom and cell occurs once.

    A part of a mixed pixel may lie anywhere in it, so it gets all cells of the pixel, by their shares of the pixel.
    """
    edges, width = grid.row_edges(), 360 / grid.cols
    rests = rests_of(180 / grid.rows, level)
    longest = max(1, int(_RESTS_AT_ONCE / rests))
    pieces = -(-length.astype(np.int64) // longest)
    done = longest * ranges(0, pieces)
    run = np.repeat(np.arange(row.size), pieces)
    row, share, atom = row[run].astype(np.int64), share[run], atom[run].astype(np.int64)
    column, length = column[run].astype(np.int64) + done, np.minimum(length[run] - done, longest)
    parts = np.flatnonzero(np.diff(np.cumsum(length * rests) // _RESTS_AT_ONCE, prepend=0.0))
    found: list[tuple[I8, I8, F8]] = []
    for of in np.split(np.arange(row.size), parts):
        west = column[of] * width - 180
        east = np.minimum((column[of] + length[of]) * width - 180, 180.0)
        at, cell, area = covered(Boxes(edges[row[of] + 1], west, edges[row[of]], east, of), level)
        found.append(summed(atom[at], cell, area * share[at]))
    return summed(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _ranges(areas: DataFrame, level: int) -> DataFrame:
    """The rows of `atom_cells`, without the hash, from atoms, cells, their areas and the atoms' areas."""
    # As in s2.leaves: the lowest set bit of an id, less 1, on either side.
    rest = (1 << 2 * (s2.MAX_LEVEL - level)) - 1
    return areas.select(
        "atom",
        F.lit(level).alias("level"),
        "s2_id",
        (F.col("s2_id") - rest).alias("first_leaf"),
        (F.col("s2_id") + rest).alias("last_leaf"),
        (F.col("km2") / F.col("atom_km2")).alias("share"),
    )
