"""Partition into the polygons of a vector file, such as countries or geocells."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import shapely
from numpy.typing import NDArray
from pydantic import Field, field_validator
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from geosieve.geo import plane
from geosieve.geo.antimeridian import areas_of, crosses, shortest_edges
from geosieve.geo.arrays import F8, I8
from geosieve.geo.codes import OUTSIDE
from geosieve.geo.sphere import EARTH_RADIUS_KM
from geosieve.partitions.base import PartitionDefinition, Published, Tables, region_table
from geosieve.partitions.pieces import Pieces
from geosieve.rasters.candidates import Candidates
from geosieve.rasters.paths import gdal_path
from geosieve.rasters.sampling import gdal_options
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.failures import of_store
from geosieve.runtime.identity import nanodegrees
from geosieve.runtime.names import did_you_mean

_FORMATS = (
    "GeoJSON", "GeoJSONSeq", "TopoJSON", "GPKG", "ESRI Shapefile", "FlatGeobuf", "GML", "KML", "LIBKML", "OpenFileGDB",
)  # fmt: skip
_SPHERE_KM2 = 4 * np.pi * EARTH_RADIUS_KM**2
_ROUNDING = 1e-6  # degrees
_POLAR = 60.0  # degrees: a shape that contains a pole is suspicious if all its vertices are at lower latitudes
# Widths in degrees of longitude above which a polygon is suspicious: away from ±180, and with one end at ±180.
_HALF, _MOST = 180.0, 270.0


class Definition(PartitionDefinition):
    """One region per feature, in the order of the file. Features of one name are one region if names are merged.

    A point in several regions, or on a border, belongs to the first of them. `build` raises ConfigError if the file has
    no column `name_column`, and InputError if the file, its names or its shapes cannot be used.
    """

    kind: Literal["polygons"]
    uri: str = Field(
        description="GeoParquet, GeoJSON, TopoJSON, GeoPackage, Shapefile, FlatGeobuf, GML, KML or a file geodatabase"
    )
    layer: str | None = Field(None, description="layer to read from the file; by default the first one")
    name_column: str
    encoding: str | None = Field(
        None,
        description="character set of the names if the file declares none (Shapefile without .cpg), e.g. windows-1252",
    )
    repeated_names: Literal["refuse", "merge"] = Field(
        "refuse", description="merge: features with the same name form one region, at the place of the first of them"
    )
    edges: Literal["planar", "shortest"] = Field(
        "planar",
        description="planar: shapes are cut at ±180, as GeoJSON demands; shortest: edges take the shorter way around",
    )

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            return encoding and codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"there is no encoding {encoding!r}; for instance utf-8, windows-1252, cp932") from None

    def restored(self, published: Published, tables: Tables) -> PolygonPartition:
        names, shapes = (tuple(published.regions[column].to_pylist()) for column in ("name", "wkb"))
        return PolygonPartition(self.name, names, shapes, self.content_digest(outline_facts(shapes)))

    def build(self, tables: Tables) -> PolygonPartition:
        wkb, columns, crs = self._read_geoparquet(tables) if self.uri.endswith("parquet") else self._read()
        if self.name_column not in columns:
            raise ConfigError(
                f"name_column: there is no column {self.name_column!r}; columns: {', '.join(columns)}",
                where=self.uri,
                hint=did_you_mean(self.name_column, columns),
            )
        features = Features(self._names(columns[self.name_column]), self.uri)
        try:
            shapes = _lon_lat(shapely.force_2d(features.from_wkb(wkb)), crs)
        except ProjError as error:
            raise InputError(f"its geometries cannot be read: {error}", where=self.uri) from error
        features.refuse(shapely.is_missing(shapes) | shapely.is_empty(shapes), "shapes are missing or empty")
        coordinates, feature = shapely.get_coordinates(shapes, return_index=True)
        features.refuse(
            np.bincount(feature[~np.isfinite(coordinates).all(axis=1)], minlength=len(shapes)) > 0,
            "shapes have coordinates that are not numbers",
        )
        features.refuse_beyond_the_earth(shapes, 180.0 if self.edges == "planar" else 540.0)
        shapes, told = self._in_the_plane(shapes, features)
        features.refuse(shapely.area(shapes) == 0, "shapes have no area")
        names, shapes = self._one_region_each(features, shapes)
        outlines = tuple(shapely.to_wkb(shapes).tolist())
        return PolygonPartition(self.name, names, outlines, self.content_digest(outline_facts(outlines)), told)

    def _read(self) -> tuple[Any, dict[str, Any], str | None]:
        """Return the WKB of the geometries, the other columns and the CRS of a file in one of `_FORMATS`."""
        pyogrio.set_gdal_config_options(gdal_options())  # pyogrio has its own GDAL, which by default does not retry
        try:
            path = gdal_path(self.uri)
            layer = self.layer or pyogrio.list_layers(path)[0][0]
            driver = pyogrio.read_info(path, layer=layer)["driver"]
            if driver not in _FORMATS:
                # GDAL detects the format from the content. Some formats refer to other files, which GDAL would read.
                raise InputError(f"its format is {driver}; taken are {', '.join(_FORMATS)}", where=self.uri)
            # GDAL converts the text of all other formats to UTF-8, but pyogrio would decode some with the locale.
            encoding = self.encoding or (None if driver == "ESRI Shapefile" else "utf-8")
            meta, _, wkb, fields = pyogrio.raw.read(path, layer=layer, encoding=encoding)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            cannot = InputError(f"the polygons cannot be read: {error}", where=self.uri)
            raise of_store(str(error), self.uri) or cannot from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"its text is not in {error.encoding}: {error.object!r}",
                where=self.uri,
                hint="set encoding, for instance windows-1252",
            ) from error
        columns = dict(zip(meta["fields"], fields, strict=True))
        if encoding is None and meta["encoding"] != "UTF-8":  # no encoding is declared, so GDAL converted nothing
            names = columns.get(self.name_column, ())
            for number, name in enumerate(names):
                if isinstance(name, str) and not name.isascii():
                    raise InputError(
                        f"nothing says how its names are encoded (there is no .cpg), and feature {number + 1}, "
                        f"{name!r} if read as {meta['encoding']}, is not in ASCII",
                        where=self.uri,
                        hint="set encoding, for instance utf-8 or windows-1252",
                    )
        return wkb, columns, meta["crs"]

    def _read_geoparquet(self, tables: Tables) -> tuple[Any, dict[str, Any], str | None]:
        """Return the WKB of the geometries, the columns and the CRS of a GeoParquet file.

        Only the column of names has values. The GDAL in pyogrio's wheels does not read GeoParquet.
        """
        try:
            with tables.local_copy(self.uri) as path:
                schema = pq.ParquetDataset(path).schema
                geo = json.loads((schema.metadata or {})[b"geo"])
                main = geo["primary_column"]
                facts = geo["columns"][main]
                encoding, crs = facts["encoding"], facts.get("crs")  # without crs, the CRS is OGC:CRS84
                if encoding != "WKB":
                    raise InputError(f"geometries are encoded as {encoding}, not as WKB", where=self.uri)
                # With other edges, the shapes would differ from those read here. `orientation` makes no difference.
                if facts.get("edges", "planar") != "planar":
                    raise InputError(
                        f"its edges are declared {facts['edges']}: they are curves in longitude and latitude, and here "
                        "edges are straight lines there",
                        where=self.uri,
                        hint="write it with more vertices along its edges, as near as they must be right, and without "
                        "`edges`",
                    )
                if "crs" in facts and crs is None:
                    raise InputError(
                        "its crs is null: nobody knows what its coordinates mean",
                        where=self.uri,
                        hint="write the crs; without any, coordinates are longitude and latitude (OGC:CRS84)",
                    )
                columns: dict[str, Any] = dict.fromkeys(name for name in schema.names if name != main)
                table = pq.read_table(path, columns=[main, *(c for c in columns if c == self.name_column)])
        except (OSError, pa.ArrowException, KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"this is no GeoParquet file that can be read: {error!r}", where=self.uri) from error
        if self.name_column in columns:
            columns[self.name_column] = table[self.name_column].to_pylist()
        return table[main].to_pylist(), columns, json.dumps(crs) if crs else None

    def _names(self, values: Any) -> tuple[str, ...]:
        """Return the names as text. InputError if a name is missing or was decoded with a wrong encoding."""
        names = tuple("" if value is None or value != value else str(value) for value in values)
        nameless = [number for number, name in enumerate(names, 1) if not name.strip()]
        if nameless:
            raise InputError(
                f"{len(nameless)} features have no {self.name_column!r}: features {_first(nameless)} of {len(names)}",
                where=self.uri,
                hint="name them, or leave them out of the file",
            )
        broken = [f"{name!r} (feature {number})" for number, name in enumerate(names, 1) if _misread(name)]
        if broken or any(isinstance(value, bytes) for value in values):
            raise InputError(
                f"{len(broken) or 'all'} names were read, or written, in a wrong encoding: {_first(broken)}",
                where=self.uri,
                hint="set encoding, or write the file anew if its names are broken there",
            )
        return names

    def _in_the_plane(
        self, shapes: NDArray[np.object_], features: Features
    ) -> tuple[NDArray[np.object_], tuple[str, ...]]:
        """Return valid shapes, cut at ±180, and warnings about suspicious ones.

        InputError if a shape contains points or lines or is ambiguous, or if it crosses ±180 and `edges` is `planar`.
        """
        plane = np.empty(len(shapes), dtype=object)
        crossing = np.zeros(len(shapes), dtype=bool)
        for number, shape in enumerate(shapes):
            try:
                crossing[number] = crosses(shape)
                plane[number] = areas_of(shortest_edges(shape) if self.edges == "shortest" else shape)
            except ValueError as error:
                raise InputError(f"{features.called(number)}: {error}", where=self.uri) from error
        if self.edges == "planar":
            features.refuse(
                crossing,
                "shapes have edges of more than 180 degrees",
                "set edges: shortest if they cross the antimeridian, or cut them there; an edge that is meant to be "
                "so long needs vertices between its ends",
            )
        told = (
            features.doubt(
                ~crossing & ~shapely.is_valid(shapes),
                "shapes cross or overlap themselves; taken is what their rings go around an odd number of times",
            ),
            features.doubt(
                (np.abs(shapely.bounds(plane)[:, [1, 3]]) == 90.0).any(axis=1)
                & (np.abs(shapely.bounds(shapes)[:, [1, 3]]).max(axis=1) < _POLAR),
                f"shapes hold a pole, though no vertex of theirs is beyond {_POLAR:.0f} degrees of latitude: a ring "
                "goes once around the Earth; if it is to cross ±180 only, some of its edges run the long way around",
            ),
        )
        return plane, tuple(doubt for doubt in told if doubt)

    def _one_region_each(
        self, features: Features, shapes: NDArray[np.object_]
    ) -> tuple[tuple[str, ...], NDArray[np.object_]]:
        """Return names and shapes of the regions; each name occurs once. Features of one name are merged or refused."""
        of: dict[str, list[int]] = {}
        for number, name in enumerate(features.names):
            of.setdefault(name, []).append(number)
        repeated = {name: numbers for name, numbers in of.items() if len(numbers) > 1}
        if not repeated:
            return features.names, shapes
        if self.repeated_names == "refuse":
            name, numbers = next(iter(repeated.items()))
            raise InputError(
                f"{len(repeated)} names stand more than once: {name} (features {_first(n + 1 for n in numbers)})",
                where=self.uri,
                hint="set repeated_names: merge if features of one name are one region, or take a column of ids",
            )
        return tuple(of), np.array([areas_of(shapely.union_all(shapes[n])) for n in of.values()], dtype=object)


def outline_facts(outlines: Sequence[bytes]) -> dict[str, Any]:
    """Return the facts that identify regions: their outlines (WKB, lon-lat) in order, rounded to 1e-9 degree.

    Outlines are normalised by GEOS, so that the first vertex and the direction of rings make no difference.
    """

    def rounded(xy: F8) -> F8:
        return nanodegrees(xy).astype(np.float64)

    shapes = shapely.normalize(shapely.transform(shapely.from_wkb(outlines), rounded))
    return {"outlines": list(shapely.to_wkb(shapes, output_dimension=2, byte_order=1))}


@dataclass(frozen=True)
class Features:
    """Names of the features of a file, and checks whose messages name the features that fail.

    names: one per feature, in the order of the file. Arrays in the methods have the same order and length.
    uri: the file, for messages.
    """

    names: tuple[str, ...]
    uri: str

    def called(self, number: int) -> str:
        """Return the name of the feature with this index and its number in the file, which starts at 1."""
        return f"{self.names[number]} (feature {number + 1})"

    def refuse(self, wrong: NDArray[np.bool_], what: str, hint: str = "") -> None:
        """Raise InputError, with the first wrong features, if any feature is `wrong`. `what` follows their count."""
        if wrong.any():
            found = _first(self.called(int(number)) for number in np.flatnonzero(wrong))
            raise InputError(f"{wrong.sum()} {what}: {found}", where=self.uri, hint=hint)

    def doubt(self, doubtful: NDArray[np.bool_], what: str) -> str:
        """Return a warning with the first doubtful features; empty if no feature is `doubtful`."""
        found = _first(self.called(int(number)) for number in np.flatnonzero(doubtful))
        return f"{doubtful.sum()} {what}: {found}" if found else ""

    def from_wkb(self, wkb: Any) -> NDArray[np.object_]:
        """Return the geometries. InputError, with the first feature that fails, if one cannot be read."""
        try:
            return np.asarray(shapely.from_wkb(wkb))
        except (shapely.errors.GEOSException, TypeError):
            for number, one in enumerate(wkb):
                try:
                    shapely.from_wkb(one)
                except (shapely.errors.GEOSException, TypeError) as error:
                    what = f"its geometries cannot be read: {self.called(number)}: {error}"
                    raise InputError(what, where=self.uri) from error
            raise

    def refuse_beyond_the_earth(self, shapes: NDArray[np.object_], furthest: float) -> None:
        """InputError if a shape extends beyond ±90 degrees of latitude or ±`furthest` degrees of longitude."""
        west, south, east, north = shapely.bounds(shapes).T
        # Tolerate rounding errors, for example of the transformation from another CRS.
        beyond = (west < -furthest - _ROUNDING) | (east > furthest + _ROUNDING)
        beyond |= (south < -90 - _ROUNDING) | (north > 90 + _ROUNDING)
        self.refuse(
            beyond,
            f"shapes reach beyond {furthest:.0f} degrees of longitude or 90 of latitude",
            "cut them at the antimeridian, or set edges: shortest, which takes longitudes to 360 too; the order of "
            "coordinates is longitude, latitude",
        )


def _first(items: Iterable[object]) -> str:
    listed = [str(item) for item in items]
    return ", ".join(listed[:5]) + (", …" if len(listed) > 5 else "")


def _misread(name: str) -> bool:
    """Whether a text contains U+FFFD or C1 control characters, or is UTF-8 that was decoded one byte per letter."""
    if any(letter == "\ufffd" or "\x80" <= letter <= "\x9f" for letter in name):
        return True
    # A correct text in windows-1252 can be valid UTF-8 by chance: É’ would be U+0252. So accept only common letters.
    for encoding, last in (("latin-1", "\U0010ffff"), ("windows-1252", "\u017f")):
        try:
            meant = name.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if meant != name and max(meant) <= last:
            return True
    return False


def _lon_lat(shapes: NDArray[np.object_], crs: str | None) -> NDArray[np.object_]:
    """Transform shapes to WGS-84 (lon, lat) degrees. Formats without a CRS (GeoJSON, TopoJSON) are in it already."""
    if crs is None or CRS.from_user_input(crs).equals(CRS.from_epsg(4326), ignore_axis_order=True):
        return shapes
    to_wgs84 = Transformer.from_crs(CRS.from_user_input(crs), CRS.from_epsg(4326), always_xy=True)
    return np.asarray(shapely.transform(shapes, lambda xy: np.column_stack(to_wgs84.transform(*xy.T))))


@dataclass(frozen=True)
class PolygonPartition:
    """A `Partition` into polygons, which is also `Doubtful`. Where polygons overlap, the first one counts.

    names, shapes: name and outline (WKB, lon-lat degrees) of each region.
    told: warnings from reading the file.
    """

    name: str
    names: tuple[str, ...]
    shapes: tuple[bytes, ...]
    digest: str
    told: tuple[str, ...] = ()

    @property
    def n_regions(self) -> int:
        return len(self.names)

    def doubts(self) -> list[str]:
        shapes = shapely.from_wkb(np.array(self.shapes, dtype=object))
        parts, number = shapely.get_parts(shapes, return_index=True)
        west, _, east, _ = shapely.bounds(parts).T
        ends = (west <= -180 + _ROUNDING).astype(int) + (east >= 180 - _ROUNDING)
        # A polygon that spans the world ends at both -180 and 180. One that crosses ±180 was cut, into narrow parts.
        wide = (east - west > np.where(ends == 0, _HALF, _MOST)) & (ends < 2)
        large = plane.areas_km2(shapes) > _SPHERE_KM2 / 2
        told = [
            *self.told,
            self._named(np.unique(number[wide]), "run by way of longitude 0 almost around the Earth; if they are to "
                        "cross ±180, their edges have vertices the long way around: cut them at ±180 instead"),
            self._named(np.flatnonzero(large), "cover more than half of the Earth; if that is not meant, a ring runs "
                        "the long way around, or what is outside was written as inside"),
        ]  # fmt: skip
        return [f"partition {self.name}: {doubt}" for doubt in told if doubt]

    def _named(self, numbers: I8, what: str) -> str:
        found = _first(self.names[number] for number in numbers.tolist())
        return f"{numbers.size} regions {what}: {found}" if found else ""

    def regions(self, observed: I8) -> pa.Table:
        return region_table(self.names, wkb=self.shapes)

    @cached_property
    def _own(self) -> NDArray[np.object_]:
        """Each shape without its overlaps with earlier shapes, (regions,)."""
        shapes = shapely.from_wkb(np.array(self.shapes, dtype=object))
        own: NDArray[np.object_] = shapes.copy()
        earlier, later = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        earlier, later = earlier[earlier < later], later[earlier < later]
        overlap = shapely.relate_pattern(shapes[earlier], shapes[later], "2********")
        earlier, later = earlier[overlap], later[overlap]
        for number in np.unique(later):  # few, because most polygons only touch
            own[number] = shapely.difference(own[number], shapely.union_all(shapes[earlier[later == number]]))
        return own

    def areas_km2(self) -> F8:
        return plane.areas_km2(self._own)

    def pieces(self, width_km: float) -> Pieces:
        parts, region = shapely.get_parts(self._own, return_index=True)
        parts, number = shapely.get_parts(parts, return_index=True)
        return Pieces(region[number], plane.areas_km2(parts), parts).narrow(width_km)

    def outlines(self) -> dict[int, bytes]:
        return dict(enumerate(self.shapes))

    def assigner(self) -> PolygonAssigner:
        return PolygonAssigner(self.shapes)


@dataclass(frozen=True)
class PolygonAssigner:
    """`Assigner` to the first of the shapes (WKB, lon-lat) that contains the point, its border included."""

    shapes: tuple[bytes, ...]

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        region = np.full(lat.size, OUTSIDE, dtype=np.int64)
        for number in candidates.items():
            asked = candidates.points_of(number)
            asked = asked[region[asked] == OUTSIDE]
            shape = shapely.from_wkb(self.shapes[number])
            shapely.prepare(shape)
            inside = shapely.intersects_xy(shape, lon[asked], lat[asked])
            # -180 and +180 are the same meridian: test points on it with the other sign, too.
            edge = ~inside & (np.abs(lon[asked]) == 180.0)
            inside[edge] = shapely.intersects_xy(shape, -lon[asked][edge], lat[asked][edge])
            region[asked[inside]] = number
        return region
