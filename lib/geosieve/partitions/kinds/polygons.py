"""Partition into polygons read from a vector file (countries, geocells)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from numpy.typing import NDArray
from pydantic import Field
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from geosieve.geo.antimeridian import has_long_edges, shortest_edges
from geosieve.partitions.base import OUTSIDE, PartitionDefinition, Tables, region_table
from geosieve.partitions.nearby import Nearby
from geosieve.rasters.sampling import gdal_options, gdal_path
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.failures import of_store
from geosieve.runtime.identity import nanodegrees

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

_FORMATS = (
    "GeoJSON", "GeoJSONSeq", "TopoJSON", "GPKG", "ESRI Shapefile", "FlatGeobuf", "GML", "KML", "LIBKML", "OpenFileGDB",
)  # fmt: skip
_ROUNDING = 1e-6  # degrees


class Definition(PartitionDefinition):
    """Regions in the order of the file. A point on a border belongs to the first region that touches it."""

    kind: Literal["polygons"]
    uri: str = Field(
        description="GeoParquet, GeoJSON, TopoJSON, GeoPackage, Shapefile, FlatGeobuf, GML, KML or a file geodatabase"
    )
    layer: str | None = Field(None, description="layer of the file; the first if not given")
    name_column: str
    edges: Literal["planar", "shortest"] = Field(
        "planar",
        description="planar: shapes are cut at ±180, as GeoJSON demands; shortest: edges take the shorter way around",
    )

    def build(self, tables: Tables) -> PolygonPartition:
        wkb, columns, crs = _read_geoparquet(self.uri) if self.uri.endswith("parquet") else self._read()
        if self.name_column not in columns:
            raise ConfigError(
                f"name_column: there is no column {self.name_column!r}; columns: {', '.join(columns)}",
                where=self.uri,
            )
        names = tuple(str(name) for name in columns[self.name_column])
        try:
            shapes = _lon_lat(shapely.from_wkb(wkb), crs)
        except (shapely.errors.GEOSException, TypeError, ProjError) as error:
            raise InputError(f"its geometries cannot be read: {error}", where=self.uri) from error
        missing = [name for name, shape in zip(names, shapes, strict=True) if shape is None or shape.is_empty]
        if missing:
            raise InputError(f"{len(missing)} shapes are missing or empty: {', '.join(missing[:5])}", where=self.uri)
        shapes = self._in_the_plane(shapes, names)
        _refuse_beyond_the_earth(shapes, names, self.uri)
        outlines = tuple(shapely.to_wkb(shapes).tolist())
        return PolygonPartition(self.name, names, outlines, self.content_digest(outline_facts(outlines)))

    def _read(self) -> tuple[Any, dict[str, Any], str | None]:
        """WKB, the other columns and the CRS of a file that GDAL reads."""
        pyogrio.set_gdal_config_options(gdal_options())  # it brings a GDAL of its own, which would not retry
        try:
            path = gdal_path(self.uri)
            layer = self.layer or pyogrio.list_layers(path)[0][0]
            driver = pyogrio.read_info(path, layer=layer)["driver"]
            if driver not in _FORMATS:
                # GDAL looks into a file, whatever it is called. Some formats name other files, which would be read.
                raise InputError(f"its format is {driver}; taken are {', '.join(_FORMATS)}", where=self.uri)
            meta, _, wkb, fields = pyogrio.raw.read(path, layer=layer)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            cannot = InputError(f"the polygons cannot be read: {error}", where=self.uri)
            raise of_store(str(error), self.uri) or cannot from error
        return wkb, dict(zip(meta["fields"], fields, strict=True)), meta["crs"]

    def _in_the_plane(self, shapes: NDArray[np.object_], names: tuple[str, ...]) -> NDArray[np.object_]:
        if self.edges == "shortest":
            return np.array([shortest_edges(shape) for shape in shapes], dtype=object)
        crossing = [name for name, shape in zip(names, shapes, strict=True) if has_long_edges(shape)]
        if crossing:
            raise InputError(
                f"{len(crossing)} shapes have edges of more than 180 degrees: {', '.join(crossing[:5])}",
                where=self.uri,
                hint="set edges: shortest if they cross the antimeridian, or cut them there",
            )
        return np.asarray(shapely.make_valid(shapes))


def outline_facts(outlines: Sequence[bytes]) -> dict[str, Any]:
    """What identifies regions by their outlines (WKB, lon-lat) in their order: each rounded to 1e-9 degree.

    In one form whatever library wrote them: rings begin and turn as GEOS normalises them.
    """

    def rounded(xy: F8) -> F8:
        return nanodegrees(xy).astype(np.float64)

    shapes = shapely.normalize(shapely.transform(shapely.from_wkb(outlines), rounded))
    return {"outlines": list(shapely.to_wkb(shapes, output_dimension=2, byte_order=1))}


def _refuse_beyond_the_earth(shapes: NDArray[np.object_], names: tuple[str, ...], where: str) -> None:
    west, south, east, north = shapely.bounds(shapes).T
    # A little more than the Earth is rounding, also of a transformed CRS.
    beyond = ~((west >= -180 - _ROUNDING) & (east <= 180 + _ROUNDING))
    beyond |= ~((south >= -90 - _ROUNDING) & (north <= 90 + _ROUNDING))
    if beyond.any():
        found = ", ".join(np.array(names)[beyond][:5])
        raise InputError(
            f"{beyond.sum()} shapes reach beyond 180 degrees of longitude or 90 of latitude: {found}",
            where=where,
            hint="cut them at the antimeridian; the order of coordinates is longitude, latitude",
        )


def _read_geoparquet(uri: str) -> tuple[Any, dict[str, Any], str | None]:
    """WKB, the other columns and the CRS of a GeoParquet file; GDAL of pyogrio's wheels does not read it."""
    try:
        table = pq.read_table(uri.replace("s3a://", "s3://", 1))
        geo = json.loads((table.schema.metadata or {})[b"geo"])
        main = geo["primary_column"]
        facts = geo["columns"][main]
        encoding, crs = facts["encoding"], facts.get("crs")  # absent is OGC:CRS84
    except (OSError, pa.ArrowException, KeyError, TypeError, AttributeError, ValueError) as error:
        cannot = InputError(f"this is no GeoParquet file that can be read: {error!r}", where=uri)
        raise of_store(str(error), uri) or cannot from error
    if encoding != "WKB":
        raise InputError(f"geometries are encoded as {encoding}, not as WKB", where=uri)
    columns = {name: table[name].to_pylist() for name in table.column_names if name != main}
    return table[main].to_pylist(), columns, json.dumps(crs) if crs else None


def _lon_lat(shapes: NDArray[np.object_], crs: str | None) -> NDArray[np.object_]:
    """Shapes in WGS-84 lon-lat; formats without a CRS (GeoJSON, TopoJSON) are so by definition."""
    if crs is None or CRS.from_user_input(crs).equals(CRS.from_epsg(4326), ignore_axis_order=True):
        return shapes
    to_wgs84 = Transformer.from_crs(CRS.from_user_input(crs), CRS.from_epsg(4326), always_xy=True)
    return np.asarray(shapely.transform(shapes, lambda xy: np.column_stack(to_wgs84.transform(*xy.T))))


@dataclass(frozen=True)
class PolygonPartition:
    name: str
    names: tuple[str, ...]
    shapes: tuple[bytes, ...]
    digest: str

    @property
    def n_regions(self) -> int:
        return len(self.names)

    def regions(self, observed: I8) -> pa.Table:
        return region_table(self.names, wkb=self.shapes)

    def outlines(self) -> dict[int, bytes]:
        return dict(enumerate(self.shapes))

    def assign(self, lat: F8, lon: F8, nearby: Nearby) -> I8:
        region = np.full(lat.size, OUTSIDE, dtype=np.int64)
        for number in nearby.items():
            asked = nearby.points_near(number)
            asked = asked[region[asked] == OUTSIDE]
            shape = shapely.from_wkb(self.shapes[number])
            shapely.prepare(shape)
            inside = shapely.intersects_xy(shape, lon[asked], lat[asked])
            # A polygon that ends at +180 holds the meridian that others write as -180.
            edge = ~inside & (np.abs(lon[asked]) == 180.0)
            inside[edge] = shapely.intersects_xy(shape, -lon[asked][edge], lat[asked][edge])
            region[asked[inside]] = number
        return region
