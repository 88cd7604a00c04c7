"""The job `build_overlay`: compute the atoms of several partitions on an equal-angle grid and publish them.

One Spark task per band of grid rows finds the band's runs. The runs are persisted on disk, summed up to atoms, and
written with the number of their atom. The areas of atoms are scaled so that every region whose borders are known has
its exact area.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.geo.arrays import F8, I8
from geosieve.geo.grid import EqualAngleGrid
from geosieve.job.main import Context
from geosieve.job.publishing import JobConfig, publishes
from geosieve.overlay import spans
from geosieve.overlay.atoms import row_numbers
from geosieve.overlay.blocks import Bands, Layer, Narrow
from geosieve.overlay.raking import TOLERANCE, rake
from geosieve.overlay.read import parts_of
from geosieve.partitions.base import Partition, PartitionDefinition, doubts
from geosieve.partitions.config import PartitionsConfig, look_up
from geosieve.partitions.mapped import MapAssigner, area_of_pixels, parts_of_files
from geosieve.partitions.read import CommittedTables, partitions_frame, regions_frame, used_partitions
from geosieve.rasters.candidates import NOTHING, CandidateIndex, every_cell, join_outlines
from geosieve.runtime.errors import ConfigError, IntegrityError
from geosieve.runtime.frames import on_disk
from geosieve.runtime.identity import content_digest
from geosieve.runtime.names import advice
from geosieve.tables.arrow import chunks
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.schema import Table
from geosieve.tables.schemas import OVERLAY_RUNS, PARTITIONS, REGIONS, overlay_atoms_table

_PLACE = "row int, column int, length int, share double, lat double, lon double, land boolean"
_LEAST_REST = 1e-12  # smallest share of the sphere outside of all regions: the remainder may be only rounding
_TOLERATED = 1e-6  # relative error of a region's area without a warning
_SHOWN = 5  # regions named in a message
_MOST_REGIONS = 2**28  # of a partition: the driver holds the area of each, in 2 GiB
_MOST_TASKS = 1000  # tasks that read a map again, at most


class OverlayConfig(PartitionsConfig, JobConfig):
    """Configuration of `build_overlay`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="name of the overlay")
    resolution_arcsec: float = Field(120, gt=0, description="height and width of a pixel; divides 180 degrees")
    reduce: dict[str, int] = Field(
        {},
        description="by partition: how many times finer than the grid to sample its map; a pixel takes the majority",
    )
    land: SerializeAsAny[PartitionDefinition] | None = Field(
        None, description="a partition whose regions cover land only; it gives each atom's share of land"
    )

    @model_validator(mode="before")
    @classmethod
    def _look_up_land(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("land"), str | dict):
            return {**content, "land": look_up(content["land"], content.get("definitions"))}
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


def _table(config: OverlayConfig) -> Table:
    """`overlay_atoms` with a column per partition."""
    return overlay_atoms_table([definition.name for definition in config.partitions])


def _leaves(config: OverlayConfig) -> list[Leaf]:
    values, job = {"overlay": config.name}, {"job": parts_of(config.name)}
    return [Leaf(PARTITIONS, job), Leaf(REGIONS, job), Leaf(OVERLAY_RUNS, values), Leaf(_table(config), values)]


@publishes(_leaves)
def build_overlay(context: Context[OverlayConfig], publication: Publication) -> int:
    """Publish `overlay_atoms` and `overlay_runs`, with the partitions that they are made of.

    Returns the number of atoms, or 0 for a dry run, which only shows the plan. ConfigError if a partition has 2^28
    regions or more, or if one that is no map shall be reduced; IntegrityError if the areas do not add up (see
    `exact_areas`).
    """
    config, report, spark = context.config, context.report, context.spark
    grid = EqualAngleGrid.from_arcsec(config.resolution_arcsec)
    names = [definition.name for definition in config.partitions]
    with report.stage("inputs"):
        tables = CommittedTables(spark, config.rasters.root, config.rasters.run)
        partitions = [definition.build(tables) for definition in config.partitions]
        for doubt in doubts(partitions):
            report.warn(doubt)
        land = config.land.build(tables) if config.land else None
        for p in partitions:
            if p.n_regions >= _MOST_REGIONS:  # the driver holds the area of each
                raise ConfigError(f"partition {p.name} has {p.n_regions} regions; an overlay takes fewer than 2^28")
            if config.reduce.get(p.name, 1) > 1 and p.areas_km2() is not None:
                raise ConfigError(f"reduce: {p.name} is no map: its borders are known exactly", hint="leave it out")
    digest = overlay_digest(grid, partitions, land, config.reduce)
    if context.dry_run:
        found = {f"partition {p.name}": f"{p.n_regions} regions, hash {p.digest}" for p in partitions}
        found["overlay"] = f"hash {digest}"
        context.show_plan({"grid": f"{grid.rows} x {grid.cols} pixels", **found}, {})
        return 0
    with report.stage("join"):
        bands = _bands(spark, grid, partitions, land, config.reduce)
    with on_disk(_runs(spark, bands)) as runs:
        with report.stage("runs"):
            labels, atoms = _atoms(runs, grid)
        _check_whole(grid, atoms)
        with report.stage("areas"):
            indices = {p.name: layer.index for p, layer in zip(partitions, bands.layers, strict=True)}
            own = partial(_areas_by_pixels, spark, indices)
            area, warnings = exact_areas(grid, partitions, labels, np.asarray(atoms["area"], dtype=np.float64), own)
            for warning in warnings:
                report.warn(warning)
        with report.stage("write"):
            publication.write(OVERLAY_RUNS, _with_atoms(runs, labels, digest, land is not None))
    with report.stage("atoms"):
        columns = {"atom": np.arange(len(labels)), **spans.describe(grid, atoms), "area_km2": area}
        if land is None:
            columns["land_share"] = np.full(len(labels), np.nan)
        columns |= {name: labels[:, k] for k, name in enumerate(names)}
        frame = spark.createDataFrame(pd.DataFrame(columns))
        frame = frame.withColumn("land_share", F.nanvl("land_share", F.lit(None).cast("double")))
        frame = frame.withColumn("overlay_hash", F.lit(digest)).withColumn("grid_rows", F.lit(grid.rows))
        report.rows_in, report.rows_out = len(labels), publication.write(_table(config), frame.coalesce(1))
        publication.write(PARTITIONS, partitions_frame(spark, used_partitions(config.partitions, partitions)))
        listed = [(p.name, p.digest, p.regions(_observed(labels, names, p))) for p in partitions]
        publication.write(REGIONS, regions_frame(spark, listed))
    report.details |= {
        "atoms": len(labels),
        "overlay_hash": digest,
        "partitions": {p.name: p.digest for p in partitions},
    }
    return report.rows_in


def overlay_digest(
    grid: EqualAngleGrid, partitions: list[Partition], land: Partition | None, reduce: dict[str, int]
) -> str:
    """Content hash of everything that decides an overlay's atoms and their order. Names of partitions do not."""
    facts = {
        "grid": [grid.rows, grid.cols],
        "partitions": [[p.digest, reduce.get(p.name, 1)] for p in partitions],
        "land": land.digest if land else None,
    }
    return content_digest("overlay", 1, facts)


def exact_areas(
    grid: EqualAngleGrid,
    partitions: list[Partition],
    labels: I8,
    area: F8,
    by_pixels: Callable[[Partition, NDArray[np.bool_]], F8 | None] = lambda partition, regions: None,
) -> tuple[F8, list[str]]:
    """Scale the areas of atoms so that they sum to the exact areas of all regions and of the sphere.

    `labels`, shape (atoms, partitions): region of each atom; `area`, shape (atoms,): areas on the grid, km².
    `by_pixels` returns the areas of those regions of a map that have no atom, measured on the map's own pixels; it is
    used in warnings only.

    Returns the scaled areas, km², and warnings: about regions without an atom or an area, and about exact areas that
    cannot be reached. IntegrityError if a region with an exact area has no atom.
    """
    sphere = _sphere_km2(grid)
    groups, targets, warnings, of = [], [], [], []
    for partition, label in zip(partitions, labels.T, strict=True):
        exact = partition.areas_km2()
        seen = np.bincount(label[label >= 0], minlength=partition.n_regions) > 0
        if exact is None:
            if not seen.all():
                warnings += _lost(partition, ~seen, by_pixels(partition, ~seen))
            continue
        if not seen[exact > 0].all():
            raise IntegrityError(
                f"partition {partition.name}: no atom has {_named(partition, ~seen & (exact > 0))}",
                hint="nothing was committed; please report this",
            )
        if not (exact > 0).all():
            warnings.append(
                f"partition {partition.name}: {_named(partition, exact <= 0)} has no area of its own: others that "
                "stand before it cover it"
            )
        rest = sphere - float(exact[seen].sum())
        sums = np.append(exact, max(rest, _LEAST_REST * sphere))
        regions, group = np.unique(np.where(label < 0, partition.n_regions, label), return_inverse=True)
        target = sums[regions]
        groups.append(group)
        targets.append(target * (sphere / target.sum()))
        of.append((partition, regions))
    scaled, errors = rake(area, groups, targets)
    for (partition, regions), error in zip(of, errors, strict=True):
        wrong = regions[error > _TOLERATED]
        if wrong.size:
            mask = np.zeros(partition.n_regions + 1, dtype=bool)
            mask[wrong] = True
            warnings.append(
                f"partition {partition.name}: atoms do not sum to the area of {_named(partition, mask[:-1])}, by up to "
                f"{100 * error.max():.2g} %: its borders contradict another partition's; take smaller pixels"
            )
    return scaled, warnings


def _lost(partition: Partition, unseen: NDArray[np.bool_], area: F8 | None) -> list[str]:
    """Warnings about regions of a map that no grid pixel has. `area`: their km² on the map's own pixels, if known."""
    nowhere = np.zeros_like(unseen) if area is None else unseen & (area == 0)
    lost, warnings = unseen & ~nowhere, []
    if lost.any():
        size = "" if area is None else f" of {area[lost].sum():.6g} km² in all"
        warnings.append(
            f"partition {partition.name}: no pixel of the grid has {_named(partition, lost)}: {lost.sum()} regions"
            f"{size} are lost, with what a predictor says of them; take smaller pixels, or reduce its map"
        )
    if nowhere.any():
        warnings.append(
            f"partition {partition.name}: no pixel of its map has {_named(partition, nowhere)}: {nowhere.sum()} "
            "regions are nowhere, and what a predictor says of them is lost"
        )
    return warnings


def _areas_by_pixels(
    spark: SparkSession, indices: dict[str, CandidateIndex], partition: Partition, regions: NDArray[np.bool_]
) -> F8 | None:
    """Areas, km², (n_regions,), of the chosen regions, measured on the pixels of the partition's map.

    None if the partition is no map. Reads the whole map.
    """
    assigner = partition.assigner()
    if not isinstance(assigner, MapAssigner):
        return None
    parts = parts_of_files(assigner.reader.files)
    shared = spark.sparkContext.broadcast((assigner, indices[partition.name], regions))
    tasks = spark.sparkContext.parallelize(parts, min(len(parts), _MOST_TASKS))
    return np.asarray(tasks.map(lambda part: area_of_pixels(*shared.value, *part)).treeReduce(np.add))


def _named(partition: Partition, chosen: NDArray[np.bool_]) -> str:
    """Text with the first chosen regions, by index and name, and how many more there are."""
    index = np.flatnonzero(chosen)
    table = partition.regions(index[:_SHOWN])
    names = dict(zip(table["region"].to_pylist(), table["name"].to_pylist(), strict=True))
    shown = ", ".join(f"region {k} ({names.get(k)})" for k in index[:_SHOWN].tolist())
    return shown + (f" and {index.size - _SHOWN} more" if index.size > _SHOWN else "")


def _observed(labels: I8, names: list[str], partition: Partition) -> I8:
    """Regions of a partition that occur in the atoms."""
    seen = np.unique(labels[:, names.index(partition.name)])
    return np.asarray(seen[seen >= 0])


def _bands(
    spark: SparkSession,
    grid: EqualAngleGrid,
    partitions: list[Partition],
    land: Partition | None,
    reduce: dict[str, int],
) -> Bands:
    """The bands with everything that workers need to label them."""
    # The spatial join is needed only if a partition has outlines.
    outlines = {p.name: p.outlines() for p in [*partitions, *([land] if land else [])]}
    some = any(outlines.values())
    near = join_outlines(spark, every_cell(), outlines) if some else dict.fromkeys(outlines, NOTHING)
    layers = tuple(Layer(p.assigner(), near[p.name], reduce.get(p.name, 1), Narrow.of(p, grid)) for p in partitions)
    return Bands(grid, layers, Layer(land.assigner(), near[land.name]) if land else None)


def _runs(spark: SparkSession, bands: Bands) -> DataFrame:
    """The runs and mixed parts of the whole grid, one row each: `_PLACE`, and a column `label_k` per partition."""
    shared = spark.sparkContext.broadcast(bands)
    schema = f"{_PLACE}, " + ", ".join(f"label_{k} int" for k in range(len(bands.layers)))

    def from_numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for band in batch[0].to_pylist():
                yield from map(_to_arrow, shared.value.runs(band))

    # One task per band, because bands with much land take longer than others.
    return spark.range(0, len(bands), 1, len(bands)).mapInArrow(from_numbers, schema)


def _to_arrow(found: spans.PixelSpans) -> pa.RecordBatch:
    """Rows of `_runs` as a batch."""
    place = {name: pa.array(getattr(found, name), pa.int32()) for name in ("row", "column", "length")}
    part = {name: pa.array(getattr(found, name)) for name in ("share", "lat", "lon", "land")}
    labels = {f"label_{k}": pa.array(column, pa.int32()) for k, column in enumerate(found.labels.T)}
    return pa.RecordBatch.from_pydict({**place, **part, **labels})


def _from_arrow(table: pa.Table) -> spans.PixelSpans:
    """The inverse of `_to_arrow`."""
    row, column, length = (table[name].to_numpy().astype(np.int64) for name in ("row", "column", "length"))
    labels = [table[name].to_numpy().astype(np.int64) for name in table.column_names if name.startswith("label_")]
    part = (table[name].to_numpy() for name in ("share", "lat", "lon"))
    return spans.PixelSpans(row, column, length, table["land"].to_numpy(), np.column_stack(labels), *part)


def _atoms(runs: DataFrame, grid: EqualAngleGrid) -> tuple[I8, spans.Facts]:
    """Labels of all atoms in lexicographic order, (atoms, partitions), and their facts.

    Each task sums up its band. The driver merges the bands in their order, so that sums are reproducible.
    """
    labels = [name for name in runs.columns if name.startswith("label_")]
    facts = [*spans.SUMS, *spans.LEAST, *spans.GREATEST]
    types = {name: "double" for name in ("area", "x", "y", "z", "land_area")}

    def sum_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held = list(batches)
        if held:
            found, summed = spans.sum_up(grid, _from_arrow(pa.Table.from_batches(held)))
            columns = dict(zip(labels, found.T, strict=True))
            yield pa.RecordBatch.from_pydict({**columns, **{name: summed[name] for name in facts}})

    schema = ", ".join(f"{name} {types.get(name, 'bigint')}" for name in [*labels, *facts])
    partial = runs.mapInArrow(sum_up, schema).toPandas()
    return spans.merge(partial[labels].to_numpy(np.int64), {name: partial[name].to_numpy() for name in facts})


def _sphere_km2(grid: EqualAngleGrid) -> float:
    """Area of the whole grid, km²."""
    return float(grid.row_areas_km2().sum() * grid.cols)


def _check_whole(grid: EqualAngleGrid, atoms: spans.Facts) -> None:
    """IntegrityError if the atoms do not cover the whole grid."""
    area, sphere = float(atoms["area"].sum()), _sphere_km2(grid)
    if abs(area - sphere) > TOLERANCE * sphere:
        raise IntegrityError(
            f"the atoms hold {area} km2, the grid {sphere} km2", hint="nothing was committed; please report this"
        )


def _with_atoms(runs: DataFrame, labels: I8, digest: str, has_land: bool) -> DataFrame:
    """Rows of `overlay_runs`: the runs with the number of their atom."""
    shared = runs.sparkSession.sparkContext.broadcast(labels)
    names = [column.name for column in OVERLAY_RUNS.columns]

    def number(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks(batches):
            atom = row_numbers(shared.value, _from_arrow(chunk).labels)
            columns = {name: chunk[name] for name in ("row", "column", "length", "share")}
            columns["land"] = chunk["land"] if has_land else pa.nulls(chunk.num_rows, pa.bool_())
            columns |= {"atom": pa.array(atom), "overlay_hash": pa.repeat(digest, chunk.num_rows)}
            yield from pa.table([columns[name] for name in names], names=names).to_batches()

    return runs.mapInArrow(number, OVERLAY_RUNS.spark_schema())
