"""Partitions of others, read from their files: array code on the text of a file."""

from __future__ import annotations

from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geosieve.geo import s2
from geosieve.partitions.base import region_table
from geosieve.partitions.building import adaptive_s2, quadtree
from geosieve.partitions.building.cells import QUADTREE, S2_CELLS, Built
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean

I8 = NDArray[np.int64]

_GEOESTIMATION = ["class_label", "hex_id", "imgs_per_cell", "latitude_mean", "longitude_mean"]
_EXTRA_ROWS = 2  # in front of the header; their content differs from file to file and is not needed


def geoestimation_cells(text: str, name: str, where: str) -> Built:
    """S2 cells of a GeoEstimation file: `class_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean`.

    Two more rows stand in front of the header. Region indices are the class labels. InputError if columns, labels
    (0 to n - 1, each once), tokens or positions are not as they must be.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    headers = [n for n, line in enumerate(lines[: _EXTRA_ROWS + 1]) if line.startswith(_GEOESTIMATION[0])]
    if not headers:
        raise InputError(
            f"none of the first {_EXTRA_ROWS + 1} rows is the header {','.join(_GEOESTIMATION)}", where=where
        )
    rows = _read("\n".join(lines[headers[0] :]), _GEOESTIMATION, {"hex_id": str}, where)
    rows = _in_order(rows, "class_label", where)
    try:
        ids = s2.from_tokens(rows["hex_id"].to_numpy(dtype=str))
        adaptive_s2.cells_of(ids)
    except ValueError as error:
        raise InputError(f"hex_id: {error}", where=where) from None
    except InputError as error:
        raise InputError(error.what, where=where) from None
    images = rows["imgs_per_cell"]
    if not (images.between(0, 2**53) & (images % 1 == 0)).all():
        raise InputError("imgs_per_cell: not a count of images", where=where)
    shapes, areas = adaptive_s2.outlines(ids)
    regions = _regions(s2.tokens(ids), shapes, areas, rows["latitude_mean"], rows["longitude_mean"], where)
    regions = regions.set_column(regions.schema.get_field_index("n_images"), "n_images", [images.to_numpy(np.int64)])
    return Built.of(name, S2_CELLS, {"method": "geoestimation_csv"}, regions)


def quadtree_boxes(text: str, name: str, where: str) -> Built:
    """Boxes of a file as OSV-5M's: `cluster_id,min_lat,min_lon,max_lat,max_lon,mean_lat,mean_lon`.

    Region indices are the cluster ids. InputError if ids or positions are not as they must be, or the boxes are not of
    one quadtree with halves at midpoints.
    """
    edges = ["min_lat", "min_lon", "max_lat", "max_lon"]
    rows = _in_order(_read(text, ["cluster_id", *edges, "mean_lat", "mean_lon"], {}, where), "cluster_id", where)
    south, west, north, east = (rows[column].to_numpy(np.float64) for column in edges)
    if not ((south < north) & (west < east)).all():
        worst = int(np.flatnonzero(~((south < north) & (west < east)))[0])
        raise InputError(f"box {worst} has no extent", where=where)
    if south.min() < -90 or north.max() > 90 or west.min() < -180 or east.max() > 180:
        raise InputError("a box reaches beyond the Earth; are latitude and longitude swapped?", where=where)
    try:
        root, cells = quadtree.cells_of_boxes(south, west, north, east)
    except InputError as error:
        raise InputError(error.what, where=where) from None
    _, areas = quadtree.outlines(root, cells)
    shapes = shapely.box(west, south, east, north)  # as published, to the last digit
    regions = _regions(quadtree.names_of(cells), shapes, areas, rows["mean_lat"], rows["mean_lon"], where)
    return Built.of(name, QUADTREE, {"method": "quadtree_csv", "bounds": vars(root)}, regions)


def _read(text: str, columns: list[str], types: dict[str, type], where: str) -> pd.DataFrame:
    """The columns of a CSV: numbers, but for `types`. InputError names missing ones and the first bad row."""
    try:
        rows: pd.DataFrame = pd.read_csv(StringIO(text.removeprefix("\ufeff")), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"this is no CSV: {error}", where=where) from None
    missing = [column for column in columns if column not in rows.columns]
    if missing:
        raise InputError(
            f"missing columns: {', '.join(missing)}; there are {', '.join(rows.columns)}",
            where=where,
            hint=did_you_mean(missing[0], rows.columns),
        )
    if rows.empty:
        raise InputError("there are no cells", where=where)
    for column in columns:
        if column not in types:
            numbers = pd.to_numeric(rows[column], errors="coerce")
            if numbers.isna().any():
                row = int(numbers.isna().to_numpy().argmax())
                raise InputError(f"{column}: {rows[column].iloc[row]!r} is not a number", where=f"{where} row {row}")
            rows[column] = numbers
    return rows[columns]


def _in_order(rows: pd.DataFrame, label: str, where: str) -> pd.DataFrame:
    ordered = rows.sort_values(label, kind="stable").reset_index(drop=True)
    wrong = np.flatnonzero(ordered[label].to_numpy() != np.arange(len(ordered)))
    if wrong.size:
        raise InputError(f"{label} is not 0 to {len(ordered) - 1}, each once: {ordered[label][wrong[0]]}", where=where)
    return ordered


def _regions(names: Any, shapes: Any, areas: Any, lat: pd.Series, lon: pd.Series, where: str) -> pa.Table:
    if not (lat.abs().le(90).all() and lon.abs().le(180).all()):
        raise InputError("a mean position is not on the Earth; the order is latitude, longitude", where=where)
    return region_table(
        names, wkb=shapely.to_wkb(shapes), area_km2=areas, lat=lat.to_numpy(float), lon=lon.to_numpy(float)
    )
