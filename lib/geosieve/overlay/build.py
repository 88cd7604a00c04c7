"""`build_overlay`: partitions → atoms.

The grid's rows are shared out in bands; a task finds the runs of its bands. The runs are kept while atoms are summed up
from them, and written with the atoms' numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, model_validator
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo.grid import EqualAngleGrid
from geosieve.overlay import runs as arrays
from geosieve.overlay.blocks import Bands, Layer
from geosieve.overlay.published import OverlayInput, PublishedOverlay, parts_of, read_published
from geosieve.partitions.base import Partition, PartitionDefinition, doubts
from geosieve.partitions.choice import PartitionsConfig, look_up
from geosieve.partitions.nearby import NOTHING, every_cell, join_outlines
from geosieve.partitions.published import CommittedTables, partitions_frame, regions_frame, used_partitions
from geosieve.runtime.errors import ConfigError, IntegrityError
from geosieve.runtime.job import Context
from geosieve.runtime.names import advice
from geosieve.tables.arrow import chunks
from geosieve.tables.publish import Leaf
from geosieve.tables.schemas import OVERLAY_RUNS, PARTITIONS, REGIONS, overlay_atoms_table

I8 = NDArray[np.int64]

_PLACE = "row int, column int, length int, land boolean"


class OverlayConfig(PartitionsConfig):
    """Configuration of `build_overlay`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="name of the overlay")
    resolution_arcsec: float = Field(120, gt=0, description="height and width of a pixel; divides 180 degrees")
    reduce: dict[str, int] = Field(
        {}, description="by partition: how many times finer than the grid its map is; a pixel takes the majority"
    )
    land: SerializeAsAny[PartitionDefinition] | None = Field(
        None, description="a partition that has regions on land only, for the atoms' share of land"
    )
    refines: OverlayInput | None = Field(None, description="an overlay whose atoms the partitions refine")
    output: str

    @model_validator(mode="before")
    @classmethod
    def _look_up_land(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("land"), str | dict):
            return {**content, "land": look_up(content["land"], content.get("definitions", "conf/partitions"))}
        return content

    @model_validator(mode="after")
    def _fitting(self) -> OverlayConfig:
        EqualAngleGrid.from_arcsec(self.resolution_arcsec)
        names = [definition.name for definition in self.partitions]
        overlay_atoms_table(names)
        unknown = sorted(self.reduce.keys() - set(names))
        if self.land is not None and self.land.name in names:
            raise ValueError(f"land: a partition is named {self.land.name!r} too; give it a name of its own")
        if unknown:
            raise ValueError(f"reduce: names {unknown} are no partitions; {advice(unknown[0], names, 'partitions')}")
        if any(k < 1 for k in self.reduce.values()):
            raise ValueError("reduce: at least 1")
        return self


def build_overlay(context: Context[OverlayConfig]) -> None:
    """Publish `overlay_atoms` and `overlay_runs`, with the partitions that they are made of."""
    config, report, spark = context.config, context.report, context.spark
    grid = EqualAngleGrid.from_arcsec(config.resolution_arcsec)
    base = read_published(spark, config.refines) if config.refines else None
    names = [*(base.names if base else []), *(definition.name for definition in config.partitions)]
    table = overlay_atoms_table(names)
    values = {"overlay": config.name}
    job = {"job": parts_of(config.name)}
    leaves = [Leaf(PARTITIONS, job), Leaf(REGIONS, job), Leaf(OVERLAY_RUNS, values), Leaf(table, values)]
    publication = context.publication(config.output, leaves)
    if not context.dry_run and not publication.begin():
        report.status = "nothing_to_do"
        return
    with report.stage("inputs"):
        tables = CommittedTables(spark, config.rasters.root, config.rasters.run)
        partitions = [definition.build(tables) for definition in config.partitions]
        for doubt in doubts(partitions):
            report.warn(doubt)
        land = config.land.build(tables) if config.land else None
        for p in partitions:
            if p.n_regions >= 2**31:
                raise ConfigError(f"partition {p.name} has {p.n_regions} regions; an overlay takes fewer than 2^31")
        if base is not None:
            base.check_refinable(grid, partitions)
    if context.dry_run:
        found = {f"partition {p.name}": f"{p.n_regions} regions, hash {p.digest}" for p in partitions}
        context.show_plan({"grid": f"{grid.rows} x {grid.cols} pixels", **found}, {})
        return
    with report.stage("join"):
        bands = _bands(spark, grid, partitions, land, config.reduce)
    runs = _runs(spark, bands, base).persist(StorageLevel.DISK_ONLY)
    try:
        with report.stage("runs"):
            labels, atoms = _atoms(runs, grid)
        has_land = land is not None or (base is not None and base.has_land)
        labels, own, order = _numbered(labels, base)
        atoms = {name: column[order] for name, column in atoms.items()}
        _check_whole(grid, atoms)
        with report.stage("write"):
            publication.write(OVERLAY_RUNS, _with_atoms(runs, own[order], has_land))
    finally:
        runs.unpersist()
    with report.stage("atoms"):
        columns = {"atom": np.arange(len(labels)), **arrays.describe(grid, atoms)}
        if not has_land:
            columns["land_share"] = np.full(len(labels), np.nan)
        columns |= {name: labels[:, k] for k, name in enumerate(names)}
        frame = spark.createDataFrame(pd.DataFrame(columns))
        frame = frame.withColumn("land_share", F.nanvl("land_share", F.lit(None).cast("double")))
        report.rows_in, report.rows_out = len(labels), publication.write(table, frame.coalesce(1))
        listed = partitions_frame(spark, used_partitions(config.partitions, partitions))
        regions = regions_frame(spark, [(p.name, p.digest, p.regions(_observed(labels, names, p))) for p in partitions])
        if base is not None:
            listed, regions = base.partitions.unionByName(listed), base.regions.unionByName(regions)
        publication.write(PARTITIONS, listed)
        publication.write(REGIONS, regions)
    report.details |= {"atoms": len(labels), "partitions": {p.name: p.digest for p in partitions}}
    publication.commit(report.rows_in, report.to_json(status="done"))


def _observed(labels: I8, names: list[str], partition: Partition) -> I8:
    seen = np.unique(labels[:, names.index(partition.name)])
    return np.asarray(seen[seen >= 0])


def _bands(
    spark: SparkSession,
    grid: EqualAngleGrid,
    partitions: list[Partition],
    land: Partition | None,
    reduce: dict[str, int],
) -> Bands:
    outlines = {p.name: p.outlines() for p in [*partitions, *([land] if land else [])]}
    some = any(outlines.values())
    near = join_outlines(spark, every_cell(), outlines) if some else dict.fromkeys(outlines, NOTHING)
    layers = tuple(Layer(p, near[p.name], reduce.get(p.name, 1)) for p in partitions)
    return Bands(grid, layers, Layer(land, near[land.name]) if land else None)


def _runs(spark: SparkSession, bands: Bands, base: PublishedOverlay | None) -> DataFrame:
    """Runs of the whole grid: place, land, and a column `label_k` for every partition, first for the base's atom."""
    shared = spark.sparkContext.broadcast(bands)
    width = len(bands.layers) + (base is not None)
    schema = f"{_PLACE}, " + ", ".join(f"label_{k} int" for k in range(width))
    if base is None:

        def from_numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for band in batch[0].to_pylist():
                    yield from map(_to_arrow, shared.value.runs(band))

        # One task a band: bands across land take longer than those across the sea.
        return spark.range(0, len(bands), 1, len(bands)).mapInArrow(from_numbers, schema)

    def refine(key: tuple[int], held: pd.DataFrame) -> pd.DataFrame:
        held = held.sort_values(["row", "column"])
        shape = (-1, shared.value.grid.cols)
        atoms, land = (
            np.repeat(held[name].to_numpy(), held["length"].to_numpy()).reshape(shape) for name in ("atom", "land")
        )
        found: pd.DataFrame = pa.Table.from_batches(
            map(_to_arrow, shared.value.runs(key[0], (atoms, land)))
        ).to_pandas()
        return found

    held = base.runs.withColumn("land", F.coalesce("land", F.lit(False)))
    return held.groupBy(F.floor(F.col("row") / bands.rows_per_band).alias("band")).applyInPandas(refine, schema)


def _to_arrow(found: arrays.Runs) -> pa.RecordBatch:
    place = {name: pa.array(getattr(found, name), pa.int32()) for name in ("row", "column", "length")}
    labels = {f"label_{k}": pa.array(column, pa.int32()) for k, column in enumerate(found.labels.T)}
    return pa.RecordBatch.from_pydict({**place, "land": pa.array(found.land), **labels})


def _from_arrow(table: pa.Table) -> arrays.Runs:
    row, column, length = (table[name].to_numpy().astype(np.int64) for name in ("row", "column", "length"))
    labels = [table[name].to_numpy().astype(np.int64) for name in table.column_names if name.startswith("label_")]
    return arrays.Runs(row, column, length, table["land"].to_numpy(), np.column_stack(labels))


def _atoms(runs: DataFrame, grid: EqualAngleGrid) -> tuple[I8, dict[str, I8]]:
    """Labels of all atoms in lexicographic order, (atoms, partitions), and what they sum up to."""
    labels = [name for name in runs.columns if name.startswith("label_")]
    facts = [*arrays.SUMS, *arrays.LEAST, *arrays.GREATEST]

    def sum_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            found, summed = arrays.sum_up(grid, _from_arrow(chunk))
            columns = dict(zip(labels, found.T, strict=True))
            yield pa.RecordBatch.from_pydict({**columns, **{name: summed[name] for name in facts}})

    partial = runs.mapInArrow(sum_up, ", ".join(f"{name} bigint" for name in [*labels, *facts]))
    merged = partial.groupBy(*labels).agg(
        *(F.sum(name).alias(name) for name in arrays.SUMS),
        *(F.min(name).alias(name) for name in arrays.LEAST),
        *(F.max(name).alias(name) for name in arrays.GREATEST),
    )
    found = merged.toPandas().sort_values(labels)
    return found[labels].to_numpy(np.int64), {name: found[name].to_numpy(np.int64) for name in facts}


def _numbered(labels: I8, base: PublishedOverlay | None) -> tuple[I8, I8, I8]:
    """Labels of the atoms by partition, in their order; the labels that the runs have, as found; and the order."""
    full = labels if base is None else np.column_stack([base.labels[labels[:, 0]], labels[:, 1:]])
    order = np.lexsort(full.T[::-1])
    return full[order], labels, order


def _check_whole(grid: EqualAngleGrid, atoms: dict[str, I8]) -> None:
    pixels, area = int(atoms["pixels"].sum()), float(atoms["area"].sum()) * arrays.KM2_PER_UNIT
    sphere = float(grid.row_areas_km2().sum() * grid.cols)
    if pixels != grid.rows * grid.cols or abs(area - sphere) > 1e-9 * sphere:
        raise IntegrityError(
            f"the atoms hold {pixels} pixels and {area} km2, the grid {grid.rows * grid.cols} and {sphere} km2",
            hint="nothing was committed; please report this",
        )


def _with_atoms(runs: DataFrame, labels: I8, has_land: bool) -> DataFrame:
    """`overlay_runs`: the runs with the number of the atom whose labels (as the runs have them) they have."""
    by_labels = np.lexsort(labels.T[::-1])
    shared = runs.sparkSession.sparkContext.broadcast((labels[by_labels], by_labels))

    def number(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known, atom = shared.value
        for chunk in chunks(batches):
            # The runs' labels and all atoms' in one sorted list: equal rows get equal numbers.
            found = _from_arrow(chunk).labels
            _, code = arrays.unique_rows(np.concatenate([known, found]))
            at = np.full(code.max() + 1, -1)
            at[code[: len(known)]] = atom
            place = [chunk[name] for name in ("row", "column", "length")]
            land = chunk["land"] if has_land else pa.nulls(chunk.num_rows, pa.bool_())
            table = pa.table([*place, land, pa.array(at[code[len(known) :]])], names=OVERLAY_NAMES)
            yield from table.to_batches()

    return runs.mapInArrow(number, OVERLAY_RUNS.spark_schema())


OVERLAY_NAMES = [column.name for column in OVERLAY_RUNS.columns]
