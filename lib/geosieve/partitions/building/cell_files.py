"""Read partitions that other projects published as CSV files: the cells of GeoEstimation and of OSV-5M."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geosieve.geo import s2
from geosieve.geo.arrays import F8
from geosieve.partitions.base import region_table
from geosieve.partitions.building import adaptive_s2, quadtree
from geosieve.partitions.building.cells import QUADTREE, S2_CELLS, Built
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import did_you_mean

_GEOESTIMATION = ["class_label", "hex_id", "imgs_per_cell", "latitude_mean", "longitude_mean"]
_KEPT_AS_TEXT = "tokens must be kept as text: what takes them for numbers makes 779 of 0779, and 100000 of 1e5"
_ROUNDING_DEG = 1e-4  # rounding of the mean positions in published files
_WIDER = 0.05  # fraction of a cell's extent by which its bounds are widened: curved edges bulge by less
_EXTRA_ROWS = 2  # rows before the header; their content differs from file to file and is not needed


def geoestimation_cells(text: str, name: str, where: str) -> Built:
    """Return the partition `name` into the S2 cells of a GeoEstimation file.

    text: the file, with the columns class_label, hex_id (S2 token), imgs_per_cell, latitude_mean and longitude_mean.
        There may be up to two extra rows before the header.
    where: the source of the text, for error messages.

    Region indices are the class labels. InputError if a column is missing, the labels are not 0 to n - 1, each once, a
    token, number or count is invalid, a cell has level 0, cells overlap, or a mean position is not in its cell.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    headers = [n for n, line in enumerate(lines[: _EXTRA_ROWS + 1]) if line.startswith(_GEOESTIMATION[0])]
    if not headers:
        raise InputError(
            f"none of the first {_EXTRA_ROWS + 1} rows is the header {','.join(_GEOESTIMATION)}", where=where
        )
    rows = _read("\n".join(lines[headers[0] :]), _GEOESTIMATION, {"hex_id": str}, where)
    rows = _in_order(rows, "class_label", where)
    tokens = rows["hex_id"].to_numpy(dtype=str)
    try:
        ids = s2.from_tokens(tokens)
    except ValueError as error:
        raise InputError(f"hex_id: {error}", where=where, hint=_KEPT_AS_TEXT) from None
    if (s2.levels(ids) == 0).any():
        whole = tokens[s2.levels(ids) == 0][0]
        raise InputError(f"hex_id: {whole!r} is a sixth of the Earth (level 0)", where=where, hint=_KEPT_AS_TEXT)
    shapes, areas = adaptive_s2.outlines(ids)
    means = _Means(rows["latitude_mean"].to_numpy(float), rows["longitude_mean"].to_numpy(float), where)
    means.refuse_outside(_Bounds.of(shapes), "class_label", np.char.add("cell ", tokens), lambda n: _padded(tokens[n]))
    try:
        adaptive_s2.cells_of(ids)
    except InputError as error:
        raise InputError(error.what, where=where) from None
    images = rows["imgs_per_cell"]
    if not (images.between(0, 2**53) & (images % 1 == 0)).all():
        raise InputError("imgs_per_cell: not a count of images", where=where)
    regions = _regions(s2.tokens(ids), shapes, areas, means)
    regions = regions.set_column(regions.schema.get_field_index("n_images"), "n_images", [images.to_numpy(np.int64)])
    return Built.of(name, S2_CELLS, {"method": "geoestimation_csv"}, regions)


def quadtree_boxes(text: str, name: str, where: str) -> Built:
    """Return the partition `name` into the boxes of a file in the format of OSV-5M.

    text: the file, with the columns cluster_id, min_lat, min_lon, max_lat, max_lon, mean_lat and mean_lon, in degrees.
    where: the source of the text, for error messages.

    Region indices are the cluster ids. InputError if a column is missing, the ids are not 0 to n - 1, each once, a
    number is invalid, a mean position is not in its box, or the boxes are not disjoint cells of one quadtree that is
    split at midpoints.
    """
    edges = ["min_lat", "min_lon", "max_lat", "max_lon"]
    rows = _in_order(_read(text, ["cluster_id", *edges, "mean_lat", "mean_lon"], {}, where), "cluster_id", where)
    south, west, north, east = (rows[column].to_numpy(np.float64) for column in edges)
    if not ((south < north) & (west < east)).all():
        worst = int(np.flatnonzero(~((south < north) & (west < east)))[0])
        raise InputError(f"box {worst} has no extent", where=where)
    if south.min() < -90 or north.max() > 90 or west.min() < -180 or east.max() > 180:
        raise InputError("a box reaches beyond the Earth; are latitude and longitude swapped?", where=where)
    shapes = shapely.box(west, south, east, north)  # the published edges, not the computed ones
    means = _Means(rows["mean_lat"].to_numpy(float), rows["mean_lon"].to_numpy(float), where)
    means.refuse_outside(_Bounds.of(shapes), "cluster_id", np.full(len(rows), "box"), lambda n: [])
    try:
        root, cells = quadtree.cells_of_boxes(south, west, north, east)
    except InputError as error:
        raise InputError(error.what, where=where) from None
    _, areas = quadtree.outlines(root, cells)
    regions = _regions(quadtree.names_of(cells), shapes, areas, means)
    return Built.of(name, QUADTREE, {"method": "quadtree_csv", "bounds": vars(root)}, regions)


def _read(text: str, columns: list[str], types: dict[str, type], where: str) -> pd.DataFrame:
    """Return these columns of a CSV, as text if they are in `types` and as numbers otherwise.

    InputError if the text is not a CSV, a column is missing, there are no rows, or a value is not a number.
    """
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
    """Return the rows sorted by label. InputError if the labels are not 0 to n - 1, each once."""
    ordered = rows.sort_values(label, kind="stable").reset_index(drop=True)
    wrong = np.flatnonzero(ordered[label].to_numpy() != np.arange(len(ordered)))
    if wrong.size:
        raise InputError(f"{label} is not 0 to {len(ordered) - 1}, each once: {ordered[label][wrong[0]]}", where=where)
    return ordered


def _regions(names: Any, shapes: NDArray[np.object_], areas: F8, means: _Means) -> pa.Table:
    return region_table(names, wkb=shapely.to_wkb(shapes), area_km2=areas, lat=means.lat, lon=means.lon)


@dataclass(frozen=True)
class _Bounds:
    """Bounds, in degrees, of the mean position of points in each cell, shape (n,).

    The mean position is the mean of the latitudes and the mean of the longitudes.
    """

    south: F8
    west: F8
    north: F8
    east: F8

    @classmethod
    def of(cls, shapes: NDArray[np.object_]) -> _Bounds:
        """Return the bounds of outlines, a little widened because edges are curved and mean positions are rounded.

        The longitude of a cell at ±180 or at a pole is not limited: points on that meridian may have either sign, and
        their mean longitude is then meaningless.
        """
        west, south, east, north = shapely.bounds(shapes).T
        anywhere = (west <= -180) | (east >= 180) | (south <= -90) | (north >= 90)
        high, wide = (_ROUNDING_DEG + _WIDER * extent for extent in (north - south, east - west))
        return cls(
            south - high,
            np.where(anywhere, -180.0, west - wide),
            north + high,
            np.where(anywhere, 180.0, east + wide),
        )

    def hold(self, lat: F8 | float, lon: F8 | float) -> NDArray[np.bool_]:
        """Whether a mean position is possible in each cell, shape (n,).

        lat, lon: one position for all cells, or one per cell.
        """
        return np.asarray((lat >= self.south) & (lat <= self.north) & (lon >= self.west) & (lon <= self.east))


@dataclass(frozen=True)
class _Means:
    """Mean positions, degrees, shape (n,). InputError if a latitude or longitude is out of range."""

    lat: F8
    lon: F8
    where: str

    def __post_init__(self) -> None:
        if not ((np.abs(self.lat) <= 90).all() and (np.abs(self.lon) <= 180).all()):
            raise InputError("a mean position is not on the Earth; the order is latitude, longitude", where=self.where)

    def refuse_outside(
        self, bounds: _Bounds, label: str, names: NDArray[np.str_], padded: Callable[[int], list[str]]
    ) -> None:
        """InputError, with the first such cell and the likely cause, if a mean position is outside of its cell.

        label: name of the column with the region index, for the message.
        names: names of the cells, for the message.
        padded: function that returns the tokens that a cell may have had before leading zeros were lost.
        """
        outside = np.flatnonzero(~bounds.hold(self.lat, self.lon))
        if outside.size == 0:
            return
        first = int(outside[0])
        lat, lon = self.lat[first], self.lon[first]
        holders = np.flatnonzero(bounds.hold(lat, lon))
        longer = [token for token in padded(first) if _held_by(token, lat, lon)]
        if longer:
            hint = f"{longer[0]} holds it, so the token has lost leading zeros; {_KEPT_AS_TEXT}"
        elif bounds.hold(lon, lat)[first]:
            hint = "the cell holds it if latitude and longitude are swapped"
        elif holders.size:
            hint = f"{label} {holders[0]} holds it; are rows, labels or columns shifted against each other?"
        else:
            hint = "the cells and the mean positions are not of one partition"
        raise InputError(
            f"{outside.size} of {self.lat.size} mean positions lie outside of their cells, the first that of {label} "
            f"{first}: {names[first]} spans latitudes {bounds.south[first]:.4f} to {bounds.north[first]:.4f} and "
            f"longitudes {bounds.west[first]:.4f} to {bounds.east[first]:.4f}, the position is {lat}, {lon}",
            where=self.where,
            hint=hint,
        )


def _padded(token: str) -> list[str]:
    """Return the token with 1, 2, … leading zeros added, up to the 16 digits of a token."""
    return [token.rjust(length, "0") for length in range(len(token) + 1, 17)]


def _held_by(token: str, lat: float, lon: float) -> bool:
    """Whether the mean position (lat, lon) is possible in the S2 cell with this token."""
    ids = s2.from_tokens(np.array([token]))
    return bool(_Bounds.of(adaptive_s2.outlines(ids)[0]).hold(lat, lon)[0])
