"""Inputs for the jobs: a global climate map, two overlapping population files, countries, and scattered images."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import from_origin

PARTITIONS: list[Any] = [
    {
        "kind": "classes",
        "name": "climate",
        "collection": "climate",
        "classes": [{"name": f"zone {value}", "values": [value]} for value in range(1, 6)],
    },
    {"kind": "density", "name": "population", "collection": "population", "names": ["low", "medium", "high"]},
    {"kind": "s2", "name": "cells", "level": 8},
]
COLLECTIONS: dict[str, dict[str, Any]] = {"climate": {"nodata": 0}, "population": {"statistics": True}}


def make_files(folder: Path, images: int, seed: int = 0) -> None:
    """Write `climate/*.tif`, `population/*.tif`, `countries.geojson` and `images.csv`."""
    rng = np.random.default_rng(seed)
    for name in COLLECTIONS:
        (folder / name).mkdir(parents=True)
    climate = rng.integers(0, 6, (180, 360), np.uint8)
    _write(folder / "climate/global.tif", climate, "EPSG:4326", from_origin(-180, 90, 1, 1), 64)
    people = np.exp(rng.normal(3, 2, (2, 256, 256))).astype(np.float32)
    people[:, :20] = -9999
    # Neighbouring zones: their files overlap at 12° E, where the first in order of URI wins.
    for zone, values in zip((32, 33), people, strict=True):
        where = from_origin(200_000, 5_800_000, 3_000, 3_000)
        _write(folder / f"population/utm{zone}.tif", values, f"EPSG:326{zone}", where, 128, -9999)
    square = [[5, 40], [15, 40], [15, 55], [5, 55], [5, 40]]
    feature = {
        "type": "Feature",
        "properties": {"name": "Squareland"},
        "geometry": {"type": "Polygon", "coordinates": [square]},
    }
    (folder / "countries.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    half = images // 2  # the others around the population files
    lat = np.r_[np.degrees(np.arcsin(rng.uniform(-1, 1, half))), rng.uniform(44, 54, images - half)]
    lon = np.r_[rng.uniform(-180, 180, half), rng.uniform(4, 18, images - half)]
    rows = [f"i{n},{a!r},{b!r}" for n, (a, b) in enumerate(zip(lat.tolist(), lon.tolist(), strict=True))]
    (folder / "images.csv").write_text("\n".join(["id,lat,lon", *rows]) + "\n")


def _write(path: Path, values: Any, crs: str, transform: Any, block: int, nodata: float | None = None) -> None:
    layout = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate", "nodata": nodata}
    shape = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **shape, **layout) as file:
        file.write(values, 1)


def ingest_config(files: str, tables: str) -> dict[str, Any]:
    """Configuration of `ingest_images` for `images.csv` in a folder or bucket."""
    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    return {
        "source": {"name": "list", "format": "csv", "uri": f"{files}/images.csv", "columns": columns},
        "output": tables,
    }


def catalog_config(files: str, tables: str, collection: str) -> dict[str, Any]:
    """Configuration of `catalog_rasters` for one of the maps."""
    return {
        "rasters": {"collection": collection, "uri": f"{files}/{collection}", **COLLECTIONS[collection]},
        "output": tables,
    }


def label_config(tables: str, output: str, partitions: list[Any] = PARTITIONS) -> dict[str, Any]:
    """Configuration of `label_attributes`."""
    return {"images": {"root": tables}, "rasters": {"root": tables}, "partitions": partitions, "output": output}


def run_fingerprint(output: Path, run_id: str) -> str:
    """SHA-256 of the sorted rows of a committed run of `labels`, and of nothing that its manifest does not list."""
    leaf = output / f"labels/run_id={run_id}"
    manifest = json.loads((leaf / "_SUCCESS").read_text())
    listed = {entry["name"] for entry in manifest["files"]}
    assert listed == {path.name for path in leaf.iterdir() if not path.name.startswith((".", "_"))}
    tables = [pq.ParquetFile(leaf / name).read() for name in sorted(listed)]
    assert sum(table.num_rows for table in tables) == manifest["rows"]
    return rows_fingerprint([row for table in tables for row in table.to_pylist()])


def rows_fingerprint(rows: list[dict[str, Any]]) -> str:
    """SHA-256 of sorted rows."""
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()
