"""Read an overlay that `build_overlay` committed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo.arrays import I8
from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay.atoms import AtomGrid, Overlay, OverlayPartition
from geosieve.runtime.config import Config, RunId
from geosieve.runtime.errors import InputError
from geosieve.tables.read import committed_runs, read_committed, read_runs, select_run
from geosieve.tables.schema import Table
from geosieve.tables.schemas import OVERLAY_ATOMS, OVERLAY_RUNS, PARTITIONS, REGIONS, overlay_atoms_table

BUILD_JOB = "build_overlay"


def parts_of(name: str) -> str:
    """Value of partition column `job` under which the partitions of overlay `name` are published.

    It contains the name, because runs for several overlays may share a run id.
    """
    return f"{BUILD_JOB}_{name}"


class OverlayInput(Config):
    """Configuration that names a committed run of `build_overlay`: table root, overlay name and run."""

    root: str
    name: str
    run: RunId = Field("latest", description="a run id or `latest`")


@dataclass(frozen=True)
class PublishedOverlay:
    """The tables of a published overlay: atoms in memory on the driver, the others as Spark frames.

    `names` are the overlay's partitions in the order of its columns. `runs` has one row per run of pixels
    (`overlay_runs`), `partitions` one per partition, `regions` one per region (`regions_of_partition`).
    """

    names: list[str]
    atoms: pd.DataFrame
    runs: DataFrame
    partitions: DataFrame
    regions: DataFrame

    @property
    def digest(self) -> str:
        """Content hash of the overlay."""
        return str(self.atoms["overlay_hash"].iloc[0])

    @property
    def grid(self) -> EqualAngleGrid:
        """The overlay's equal-angle grid; it has twice as many columns as rows."""
        rows = int(self.atoms["grid_rows"].iloc[0])
        return EqualAngleGrid(rows, 2 * rows)

    @property
    def labels(self) -> I8:
        """Region index of each atom in each partition, shape (atoms, partitions)."""
        return self.atoms[self.names].to_numpy(np.int64)

    def overlay(self) -> Overlay:
        """The overlay in memory, as scoring needs it."""
        facts = {row["partition"]: row for row in self.partitions.collect()}
        partitions = tuple(
            OverlayPartition(name, facts[name]["partition_hash"], facts[name]["n_regions"]) for name in self.names
        )
        columns = {name: self.atoms[name].to_numpy() for name in ("area_km2", "lat", "lon", "land_share")}
        return Overlay(partitions, self.labels, **columns, digest=self.digest)

    def atom_grid(self) -> AtomGrid:
        """The atoms of the grid's pixels. InputError if the pixels belong to another overlay."""
        runs = self.runs.select("row", "column", "atom", "share", "overlay_hash")
        others = [row[0] for row in runs.select("overlay_hash").distinct().collect() if row[0] != self.digest]
        if others:
            raise InputError(f"the pixels are of overlay {others[0][:12]}…, the atoms of {self.digest[:12]}…")
        columns = runs.drop("overlay_hash").toPandas()
        row, column, atom, share = (columns[name].to_numpy() for name in ("row", "column", "atom", "share"))
        return AtomGrid.of_runs(self.grid, row, column, atom, share, self.digest)


def read_published(spark: SparkSession, source: OverlayInput) -> PublishedOverlay:
    """Read a committed overlay.

    InputError if no overlay has this name (its message lists those that exist) or the run does not exist.
    """
    every = committed_runs(spark, source.root, OVERLAY_ATOMS)
    mine = [run for run in every if run.values["overlay"] == source.name]
    where = f"{source.root}/{OVERLAY_ATOMS.name}"
    if not mine:
        known = ", ".join(sorted({run.values["overlay"] for run in every})) or "none"
        raise InputError(
            f"there is no overlay {source.name!r}; overlays: {known}", where=where, hint=f"run {BUILD_JOB} first"
        )
    run = select_run(mine, source.run, where)
    own = [column.name for column in OVERLAY_ATOMS.columns]
    stored = spark.read.parquet(*(f"{run.uri}/{name}" for name in run.files)).columns
    names = [name for name in stored if name not in own]
    atoms = read_runs(spark, source.root, overlay_atoms_table(names), [run]).toPandas().sort_values("atom")

    def beside(table: Table, **values: str) -> DataFrame:
        """Rows of another table that the same run wrote, without the partition columns."""
        keys = [column.name for column in table.partition_columns]
        return read_committed(spark, source.root, table, run_id=run.run_id, **values).drop(*keys)

    parts = parts_of(source.name)
    regions = beside(REGIONS, job=parts).drop("bbox").withColumn("geometry", F.expr("ST_GeomFromWKB(geometry)"))
    return PublishedOverlay(
        names,
        atoms.reset_index(drop=True),
        beside(OVERLAY_RUNS, overlay=source.name),
        beside(PARTITIONS, job=parts),
        regions,
    )
