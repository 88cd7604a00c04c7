"""The hash of a partition: of what decides labels, and of nothing else.

The expected hashes are SHA-256 of the facts written out by hand, so that they hold for ever.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from fabricated_rasters import cataloged, write_raster
from given_tables import GivenTables
from rasterio.transform import from_origin

from geosieve.partitions.base import parse_definition, region_table
from geosieve.partitions.building.cells import QUADTREE, S2_CELLS, VORONOI, Built
from geosieve.runtime.errors import InputError


def sha(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def digest(**definition: Any) -> str:
    return parse_definition({"name": "p", **definition}, "test").build(GivenTables([])).digest


def polygons(path: Path, *shapes: shapely.Polygon, names: str = "abc") -> dict[str, Any]:
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": shapely.geometry.mapping(shape)}
        for name, shape in zip(names, shapes, strict=False)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return {"kind": "polygons", "uri": str(path), "name_column": "name"}


def test_an_s2_level() -> None:
    assert digest(kind="s2", level=10) == sha('["s2",1,{"level":10}]')
    assert digest(kind="s2", level=10, name="q", title="cells") == digest(kind="s2", level=10)
    assert digest(kind="s2", level=11) != digest(kind="s2", level=10)


def test_polygons(tmp_path: Path) -> None:
    # WKB by hand: little endian, polygon, one ring, which GEOS begins at its least corner and turns clockwise;
    # coordinates in 1e-9 degree.
    corners = [(0, 0), (0, 2), (2, 2), (2, 0), (0, 0)]
    wkb = struct.pack("<bIII", 1, 3, 1, 5) + b"".join(struct.pack("<dd", x * 1e9, y * 1e9) for x, y in corners)
    square = shapely.Polygon([(2, 2), (0, 2), (0, 0), (2, 0)])
    one = digest(**polygons(tmp_path / "a.geojson", square))
    assert one == sha(f'["polygons",1,{{"outlines":["{sha(wkb)}"]}}]')

    moved = polygons(tmp_path / "elsewhere.geojson", shapely.Polygon([(0, 0), (2, 0), (2, 2), (0, 2)]), names="x")
    assert digest(**moved, title="t", name="q") == one  # another file, name, first corner and direction
    nearly = shapely.Polygon([(0, 0), (math.nextafter(2, 3), 0), (2, 2), (0, math.nextafter(2, 1))])
    assert digest(**polygons(tmp_path / "b.geojson", nearly)) == one
    other = shapely.Polygon([(0, 0), (2, 0), (2, 2.000001), (0, 2)])
    assert digest(**polygons(tmp_path / "c.geojson", other)) != one
    apart = shapely.box(5, 5, 6, 6)
    both = [digest(**polygons(tmp_path / "d.geojson", *pair)) for pair in ((square, apart), (apart, square))]
    assert len({one, *both}) == 3  # the order of the regions is their index


def test_cells_of_s2_and_of_a_quadtree() -> None:
    cells = region_table(["09", "0b", "11"], n_images=[1, 2, 3])
    built = Built.of("x", S2_CELLS, {"method": "adaptive_s2", "img_max": 5}, cells)
    assert built.published.digest == sha('["s2_cells",1,{"bounds":null,"cells":["09","0b","11"]}]')
    bounds = {"south": -90.0, "west": -180.0, "north": 90.0, "east": 179.5}
    boxes = Built.of("x", QUADTREE, {"bounds": bounds}, region_table(["q0", "q1"]))
    facts = '{"bounds":{"east":179.5,"north":90,"south":-90,"west":-180},"cells":["q0","q1"]}'
    assert boxes.published.digest == sha(f'["quadtree",1,{facts}]')


def test_geocells() -> None:
    centroids = region_table(["a", "b"], lat=[10.0, -20.5], lon=[1.25, 3.0])
    flat = Built.of("x", VORONOI, {}, centroids).published.digest
    facts = '{"centroids":[[10000000000,-20500000000],[1250000000,3000000000]],"parents":null,"within":null}'
    assert flat == sha(f'["voronoi",1,{facts}]')
    last_bit = region_table(["c", "d"], lat=[math.nextafter(10, 11), -20.5], lon=[1.25, 3.0], n_images=[7, 7])
    assert Built.of("y", VORONOI, {}, last_bit).published.digest == flat
    inside = centroids.set_column(3, "parent", [np.array([0, 0])])
    nested = Built.of("x", VORONOI, {"within": {"lat": [0.0], "lon": [0.0]}}, inside)
    assert nested.published.digest != flat


def test_what_was_published_is_checked_when_it_is_used() -> None:
    regions = region_table(["09", "0b"], n_images=[1, 2])
    published = Built.of("x", S2_CELLS, {}, regions).published
    definition = parse_definition({"kind": "built", "name": "p", "root": "tables", "partition": "x"}, "test")
    assert definition.build(GivenTables(built={"x": published})).digest == published.digest
    other = replace(published, regions=region_table(["09", "0d"], n_images=[1, 2]))
    with pytest.raises(InputError, match="the cells of partition 'x' are no longer those"):
        definition.build(GivenTables(built={"x": other}))


class TestRasters:
    values = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.uint8)
    merge = ({"name": "wood", "values": [3, 1]}, {"name": "field", "values": [2]})
    # WGS-84 in numbers: EPSG 7030 (ellipsoid), 8901 (prime meridian); a degree is pi / 180.
    crs = (
        '{"datum":"worldgeodeticsystem1984","inverse_flattening":298.257223563,"method":null,"parameters":{},'
        '"prime_meridian":0,"semi_major_m":6378137,"to_wgs84":[],"units":[0.0174532925199,0.0174532925199]}'
    )

    def of(self, path: Path, **definition: Any) -> str:
        classes = {"kind": "classes", "collection": "c", "classes": self.merge}
        given = GivenTables([cataloged(path)])
        return parse_definition({"name": "p", **(definition or classes)}, "test").build(given).digest

    def raster(self, path: Path, values: Any = values, x: float = 10.0, **options: Any) -> Path:
        return write_raster(path, values, from_origin(x, 50, 0.1, 0.1), **options)

    def facts(self, path: Path) -> str:
        pixels = cataloged(path).file.content_sha256
        size = '"size":[2,4],"transform":[0.1,0,10,0,-0.1,50]'
        return f'[{{"crs":{self.crs},"pixels":"{pixels}",{size}}}]'

    def test_classes_and_buckets(self, tmp_path: Path) -> None:
        path = self.raster(tmp_path / "a.tif")
        assert self.of(path) == sha(f'["classes",1,{{"map":{self.facts(path)},"values":[[1,3],[2]]}}]')
        buckets = {"kind": "density", "collection": "c", "names": ["a", "b"], "edges": [3.5]}
        assert self.of(path, **buckets) == sha(f'["density",1,{{"edges":[3.5],"map":{self.facts(path)}}}]')
        nearly = {**buckets, "edges": [math.nextafter(3.5, 4)], "names": ["x", "y"], "title": "t"}
        assert self.of(path, **nearly) == self.of(path, **buckets)

    def test_how_and_where_the_pixels_are_stored_does_not_count(self, tmp_path: Path) -> None:
        one = self.of(self.raster(tmp_path / "a.tif"))
        (tmp_path / "elsewhere").mkdir()
        assert self.of(self.raster(tmp_path / "elsewhere" / "b.tif", compress="lzw")) == one
        assert self.of(self.raster(tmp_path / "tiles.tif", tiled=True, blockxsize=16, blockysize=16)) == one
        assert self.of(self.raster(tmp_path / "x.tif", x=math.nextafter(10, 11))) == one
        assert self.of(self.raster(tmp_path / "crs84.tif", crs="OGC:CRS84")) == one

    def test_every_pixel_and_its_place_count(self, tmp_path: Path) -> None:
        changed = self.values.copy()
        changed[1, 2] = 9
        every = [self.of(self.raster(tmp_path / "a.tif")), self.of(self.raster(tmp_path / "b.tif", changed))]
        every += [self.of(self.raster(tmp_path / "c.tif", x=10.1)), self.of(self.raster(tmp_path / "d.tif", nodata=8))]
        every += [self.of(self.raster(tmp_path / "e.tif", crs="EPSG:4258"))]
        assert len(set(every)) == len(every)

    def test_scale_and_offset_count_where_they_are_applied(self, tmp_path: Path) -> None:
        plain, scaled = self.raster(tmp_path / "a.tif"), self.raster(tmp_path / "b.tif")
        with rasterio.open(scaled, "r+") as raster:
            raster.scales, raster.offsets = (0.5,), (1.0,)
        buckets = {"kind": "density", "collection": "c", "names": ["a", "b"], "edges": [3.0]}
        assert self.of(scaled, **buckets) != self.of(plain, **buckets)
        assert self.of(scaled, **buckets, units="stored") == self.of(plain, **buckets)
        assert self.of(scaled) == self.of(plain)  # classes are stored values
