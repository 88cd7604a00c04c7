"""What each kind of partition says of a point."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
from fabricated_rasters import cataloged, world, write_raster
from given_tables import GivenTables
from pyproj import CRS, Transformer
from rasterio.transform import from_origin
from s2_oracle import leaf

from geosieve.geo.codes import NODATA, OUTSIDE, UNMAPPED
from geosieve.partitions.base import Partition, doubts, kinds, parse_definition
from geosieve.partitions.config import READY_MADE
from geosieve.rasters.candidates import NOTHING, CandidateIndex, cell_keys
from geosieve.rasters.files import CatalogedFile
from geosieve.runtime.config import read_yaml
from geosieve.runtime.errors import ConfigError, InputError

CONF = READY_MADE
CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"


def build(files: list[CatalogedFile], **definition: Any) -> Partition:
    return parse_definition({"name": "p", **definition}, "test").build(GivenTables(files))


def everything_near(partition: Partition, lat: np.ndarray, lon: np.ndarray) -> CandidateIndex:
    """An index in which every outline is near every point: the exact decision alone is tested."""
    cells = np.unique(cell_keys(lat, lon))
    items = np.array(list(partition.outlines()), dtype=np.int64)
    return CandidateIndex.from_pairs(np.repeat(cells, items.size), np.tile(items, cells.size))


def assign(partition: Partition, lat: Any, lon: Any) -> list[int]:
    lat, lon = np.array(lat, float), np.array(lon, float)
    return partition.assigner().assign(lat, lon, everything_near(partition, lat, lon).candidates(lat, lon)).tolist()


class TestClasses:
    merge = ({"name": "wood", "values": [1, 3]}, {"name": "field", "values": [2]})

    def test_values_are_merged_and_what_is_not_named_is_counted_apart(self, tmp_path: Path) -> None:
        path = write_raster(
            tmp_path / "a.tif", np.array([[1, 2, 3, 4, 0]], np.uint8), from_origin(0, 10, 1, 1), nodata=0
        )
        partition = build([cataloged(path)], kind="classes", collection="c", classes=self.merge)
        assert assign(partition, [9.5] * 6, [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]) == [0, 1, 0, UNMAPPED, NODATA, OUTSIDE]

    def test_a_value_in_two_classes_is_refused(self) -> None:
        classes = [{"name": "a", "values": [1]}, {"name": "b", "values": [1]}]
        with pytest.raises(ConfigError, match="more than one class"):
            build([], kind="classes", collection="c", classes=classes)

    def test_the_hash_follows_data_and_merges_but_not_the_title_or_the_path(self, tmp_path: Path) -> None:
        a, b = world(tmp_path / "a.tif", 10), world(tmp_path / "b.tif", 10)
        other = world(tmp_path / "other.tif", 5)
        definition = {"kind": "classes", "collection": "c", "classes": self.merge}
        digest = build([cataloged(a)], **definition).digest
        assert build([cataloged(b)], **definition, title="x").digest == digest
        assert build([cataloged(other)], **definition).digest != digest
        assert build([cataloged(a)], **{**definition, "classes": self.merge[::-1]}).digest != digest

    @pytest.mark.skipif(not CASES.exists(), reason="../shared/data is not there")
    def test_a_class_of_the_value_that_means_no_data_is_told(self) -> None:
        classes = [{"name": "water", "values": [0]}, {"name": "land", "values": [5]}]
        partition = build([cataloged(CASES / "ndclass.tif")], kind="classes", collection="c", classes=classes)
        (doubt,) = doubts([partition])
        assert "'water' can never have the value 0" in doubt


class TestOverlaps:
    def files(self, tmp_path: Path, priorities: tuple[int, int]) -> list[CatalogedFile]:
        """Two tiles that overlap between longitudes 2 and 4: the first has no data in [2, 3)."""
        a = write_raster(tmp_path / "a.tif", np.array([[1, 1, 0, 1]], np.uint8), from_origin(0, 10, 1, 1), nodata=0)
        b = write_raster(tmp_path / "b.tif", np.array([[2, 2, 2, 2]], np.uint8), from_origin(2, 10, 1, 1), nodata=0)
        ordered = zip((a, b), priorities, strict=True)
        return [cataloged(path, priorities=[{"pattern": "*", "priority": p}]) for path, p in ordered]

    @pytest.mark.parametrize(
        ("priorities", "expected"), [((0, 1), [0, 1, 0, 1, OUTSIDE]), ((1, 0), [0, 1, 1, 1, OUTSIDE])]
    )
    def test_the_first_file_with_a_valid_value_wins(
        self, tmp_path: Path, priorities: tuple[int, int], expected: list[int]
    ) -> None:
        classes = [{"name": "a", "values": [1]}, {"name": "b", "values": [2]}]
        partition = build(self.files(tmp_path, priorities), kind="classes", collection="c", classes=classes)
        assert assign(partition, [9.5] * 5, [0.5, 2.5, 3.5, 5.5, 6.5]) == expected

    def test_without_priorities_the_uri_decides_and_not_the_order_of_the_catalogue(self, tmp_path: Path) -> None:
        classes = [{"name": "a", "values": [1]}, {"name": "b", "values": [2]}]
        files = self.files(tmp_path, (0, 0))
        labels = {
            tuple(assign(build(order, kind="classes", collection="c", classes=classes), [9.5], [3.5]))
            for order in (files, files[::-1])
        }
        assert labels == {(0,)}

    def test_a_point_on_the_border_of_two_tiles_belongs_to_one(self, tmp_path: Path) -> None:
        tiles = []
        for value, (west, north) in enumerate([(0, 8), (4, 8), (0, 4), (4, 4)], start=1):
            quarter = np.full((4, 4), value, np.uint8)
            tiles.append(write_raster(tmp_path / f"{value}.tif", quarter, from_origin(west, north, 1, 1)))
        classes = [{"name": str(v), "values": [v]} for v in (1, 2, 3, 4)]
        partition = build([cataloged(tile) for tile in tiles], kind="classes", collection="c", classes=classes)
        # the corner of all four, the edges between two, the outer upper-left corner and the outer lower-right one
        assert assign(partition, [4, 6, 4, 8, 0], [4, 4, 2, 0, 8]) == [3, 1, 2, 0, OUTSIDE]


class TestDensity:
    def test_buckets_have_equal_widths_in_log10_of_the_datas_range(self, tmp_path: Path) -> None:
        values = np.array([[0, 1, 9, 10, 99, 100, 1000, 10000]], np.int32)
        path = write_raster(tmp_path / "a.tif", values, from_origin(0, 10, 1, 1))
        partition = build([cataloged(path, statistics=True)], kind="density", collection="c")
        # 1 to 10,000 in four: 1-10, 10-100, 100-1000, 1000-10,000
        assert assign(partition, [9.5] * 8, np.arange(8) + 0.5) == [0, 0, 0, 1, 1, 2, 3, 3]

    def test_given_edges(self, tmp_path: Path) -> None:
        path = write_raster(tmp_path / "a.tif", np.array([[-1, 4, 5, 6]], np.float32), from_origin(0, 10, 1, 1))
        partition = build([cataloged(path)], kind="density", collection="c", names=["low", "high"], edges=[5])
        assert assign(partition, [9.5] * 4, np.arange(4) + 0.5) == [0, 0, 1, 1]

    def test_edges_may_be_negative_or_zero(self, tmp_path: Path) -> None:
        path = write_raster(tmp_path / "t.tif", np.array([[-40, -10, -1, 0, 25]], np.int16), from_origin(0, 10, 1, 1))
        partition = build([cataloged(path)], kind="density", collection="c", edges=[-10.0, 0.0, 20.0])
        assert assign(partition, [9.5] * 5, np.arange(5) + 0.5) == [0, 1, 1, 2, 3]

    @pytest.mark.skipif(not CASES.exists(), reason="../shared/data is not there")
    def test_edges_are_in_the_rasters_units_unless_they_are_said_to_be_stored_values(self) -> None:
        # stored 200, 400, 1000, 3000; scale 0.1, offset -10: 10, 30, 90, 290
        described = cataloged(CASES / "scaled.tif", statistics=True)
        assert (described.file.scale, described.file.offset) == (0.1, -10.0)
        assert (described.positive_min, described.value_max) == (pytest.approx(10), pytest.approx(290))
        with rasterio.open(CASES / "scaled.tif") as dataset:
            row, column = (index.ravel() for index in np.indices(dataset.shape))
            lon, lat = (np.array(v) for v in dataset.xy(row, column))
            stored = dataset.read(1).ravel()
        physical = build([described], kind="density", collection="c", edges=[20.0, 50.0, 200.0])
        np.testing.assert_array_equal(assign(physical, lat, lon), np.searchsorted([300, 700, 2000], stored))
        as_stored = build([described], kind="density", collection="c", edges=[300.0, 700.0, 2000.0], units="stored")
        np.testing.assert_array_equal(assign(as_stored, lat, lon), assign(physical, lat, lon))
        with pytest.raises(ConfigError, match="in units"):
            build([described], kind="density", collection="c", units="stored")

    def test_a_catalogue_without_statistics_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"rasters\.statistics=true"):
            build([cataloged(world(tmp_path / "a.tif", 10))], kind="density", collection="c")

    @pytest.mark.parametrize("edges", [[1.0], [3.0, 2.0, 4.0], [0.0, 0.0, 2.0], [1.0, 2.0, math.inf]])
    def test_edges_that_make_no_buckets_are_refused(self, edges: list[float]) -> None:
        with pytest.raises(ConfigError):
            build([], kind="density", collection="c", edges=edges)


@pytest.mark.parametrize("level", [0, 6, 10, 30])
def test_s2_regions_are_the_cells_in_id_order(level: int) -> None:
    rng = np.random.default_rng(0)
    lat, lon = np.degrees(np.arcsin(rng.uniform(-1, 1, 500))), rng.uniform(-180, 180, 500)
    partition = build([], kind="s2", level=level)
    region = partition.assigner().assign(lat, lon, NOTHING.candidates(lat, lon))
    cells = [leaf(*point).parent(level) for point in zip(lat, lon, strict=True)]
    named = {r["region"]: r["name"] for r in partition.regions(np.unique(region)).to_pylist()}
    assert [named[index] for index in region.tolist()] == [cell.ToToken() for cell in cells]
    ids = np.array([cell.id() for cell in cells], dtype=np.uint64)
    assert (np.argsort(ids, kind="stable") == np.argsort(region, kind="stable")).all()
    assert region.min() >= 0 and region.max() < partition.n_regions == 6 * 4**level


class TestPolygons:
    def file(self, tmp_path: Path, shapes: dict[str, shapely.Geometry]) -> str:
        features = [
            {"type": "Feature", "properties": {"name": name}, "geometry": json.loads(shapely.to_geojson(shape))}
            for name, shape in shapes.items()
        ]
        path = tmp_path / "shapes.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        return str(path)

    def test_inside_outside_holes_and_borders(self, tmp_path: Path) -> None:
        ring = shapely.box(0, 0, 10, 10).difference(shapely.box(4, 4, 6, 6))
        uri = self.file(tmp_path, {"ring": ring, "east": shapely.box(10, 0, 20, 10)})
        partition = build([], kind="polygons", uri=uri, name_column="name")
        # inside, in the hole, on the common border (the first of the file), in the east, outside
        assert assign(partition, [1, 5, 5, 5, 50], [1, 5, 10, 15, 5]) == [0, OUTSIDE, 0, 1, OUTSIDE]

    @pytest.mark.parametrize("epsg", [4326, 32632])
    def test_geoparquet_with_its_crs(self, tmp_path: Path, epsg: int) -> None:
        square = shapely.box(8, 50, 10, 52)
        to_file = Transformer.from_crs(4326, epsg, always_xy=True)
        drawn = shapely.transform(square, lambda xy: np.column_stack(to_file.transform(*xy.T)))
        crs = {} if epsg == 4326 else {"crs": json.loads(CRS.from_epsg(epsg).to_json())}
        geo = {"version": "1.1.0", "primary_column": "shape", "columns": {"shape": {"encoding": "WKB", **crs}}}
        table = pa.table({"name": ["square"], "shape": [shapely.to_wkb(drawn)]})
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "a [1] {b}.parquet")
        partition = build([], kind="polygons", uri=str(tmp_path / "a [1] {b}.parquet"), name_column="name")
        assert assign(partition, [51, 51, 49], [9, 11, 9]) == [0, OUTSIDE, OUTSIDE]

    def geoparquet(self, tmp_path: Path, shape: shapely.Geometry, **facts: Any) -> str:
        geo = {"version": "1.1.0", "primary_column": "shape", "columns": {"shape": {"encoding": "WKB", **facts}}}
        table = pa.table({"name": ["a"], "shape": [shapely.to_wkb(shape)]})
        pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "a.parquet")
        return str(tmp_path / "a.parquet")

    @pytest.mark.parametrize(
        ("facts", "says"),
        [
            # Between (50, 0) and (50, 60) a great circle reaches latitude atan(tan 50 / cos 30) = 54.0.
            ({"edges": "spherical"}, "its edges are declared spherical.*more vertices"),
            ({"edges": "andoyer"}, "its edges are declared andoyer"),
            ({"crs": None}, "its crs is null.*OGC:CRS84"),
            ({"crs": {"type": "Nonsense"}}, "cannot be read"),
        ],
    )
    def test_geoparquet_that_declares_other_shapes_than_are_read_is_refused(
        self, tmp_path: Path, facts: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(InputError, match=says):
            build([], kind="polygons", uri=self.geoparquet(tmp_path, shapely.box(0, 40, 60, 50), **facts),
                  name_column="name")  # fmt: skip

    @pytest.mark.parametrize("orientation", [None, "counterclockwise"])
    @pytest.mark.parametrize("crs", [None, "EPSG:4326", "OGC:CRS84"])
    def test_geoparquet_is_longitude_latitude_whatever_the_order_of_its_crss_axes_and_of_its_vertices(
        self, tmp_path: Path, crs: str | None, orientation: str | None
    ) -> None:
        facts: dict[str, Any] = {"edges": "planar"}
        facts |= {"crs": json.loads(CRS.from_user_input(crs).to_json())} if crs else {}
        facts |= {"orientation": orientation} if orientation else {}
        for ccw in (True, False):
            uri = self.geoparquet(tmp_path, shapely.box(0, 40, 60, 50, ccw=ccw), **facts)
            partition = build([], kind="polygons", uri=uri, name_column="name")
            # (50.5, 30) is within great circles between the corners, and outside in longitude and latitude.
            assert assign(partition, [45, 50.5, 30], [30, 30, 45]) == [0, OUTSIDE, OUTSIDE]

    def test_a_geoparquet_of_another_datum_is_transformed(self, tmp_path: Path) -> None:
        # Tokyo's datum: by pyproj 4301 -> 4326, (35.678, 139.770) is (35.681, 139.767)
        lat, lon = Transformer.from_crs(4301, 4326).transform(35.67783, 139.77033)
        assert (lat, lon) == (pytest.approx(35.68107, abs=1e-5), pytest.approx(139.76710, abs=1e-5))
        shape = shapely.box(139.77033, 35.67783, 139.80, 35.70)
        uri = self.geoparquet(tmp_path, shape, crs=json.loads(CRS.from_epsg(4301).to_json()))
        partition = build([], kind="polygons", uri=uri, name_column="name")
        inside, outside = (lat + 1e-4, lon + 1e-4), (lat - 1e-4, lon + 1e-4)
        assert assign(partition, *zip(inside, outside, strict=True)) == [0, OUTSIDE]

    def test_a_parquet_file_without_geometry_is_refused(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"name": ["x"]}), tmp_path / "a.parquet")
        with pytest.raises(InputError, match="no GeoParquet"):
            build([], kind="polygons", uri=str(tmp_path / "a.parquet"), name_column="name")

    def test_the_antimeridian_belongs_to_a_polygon_that_ends_there(self, tmp_path: Path) -> None:
        uri = self.file(tmp_path, {"far east": shapely.box(170, 60, 180, 70)})
        partition = build([], kind="polygons", uri=uri, name_column="name")
        assert assign(partition, [65, 65], [180, -180]) == [0, 0]

    def test_a_shape_across_the_antimeridian_is_cut_or_refused(self, tmp_path: Path) -> None:
        across = shapely.Polygon([(170, 0), (-170, 0), (-170, 10), (170, 10)])
        uri = self.file(tmp_path, {"across": across})
        partition = build([], kind="polygons", uri=uri, name_column="name", edges="shortest")
        assert assign(partition, [5, 5, 5], [175, -175, 0]) == [0, 0, OUTSIDE]
        with pytest.raises(InputError, match="edges: shortest"):
            build([], kind="polygons", uri=uri, name_column="name")

    @pytest.mark.parametrize("edges", ["planar", "shortest"])
    def test_a_ring_with_vertices_the_long_way_around_is_what_they_say_and_told(
        self, tmp_path: Path, edges: str
    ) -> None:
        lon = np.linspace(170, -170, 69)  # every 5 degrees, through longitude 0
        long_way = shapely.Polygon([*((x, 0) for x in lon), *((x, 10) for x in lon[::-1])])
        to_180 = shapely.Polygon([*((x, 0) for x in lon), (-180, 5), *((x, 10) for x in lon[::-1])])
        band, cut = shapely.box(-180, 20, 180, 30), shapely.box(170, 40, 180, 50) | shapely.box(-180, 40, -170, 50)
        wide = shapely.segmentize(shapely.box(-25, 60, 180, 70), 50)
        shapes = {"long": long_way, "end": to_180, "band": band, "cut": cut, "wide": wide}
        uri = self.file(tmp_path, shapes)
        partition = build([], kind="polygons", uri=uri, name_column="name", edges=edges)
        assert assign(partition, [5, 5, 5], [0, 165, 175]) == [0, 0, OUTSIDE]
        (doubt,) = doubts([partition])
        assert "partition p: 2 regions run by way of longitude 0" in doubt and doubt.endswith(": long, end")

    def test_a_ring_with_one_edge_the_long_way_around_is_refused_or_told(self, tmp_path: Path) -> None:
        lon = np.linspace(170, -170, 69)
        uri = self.file(tmp_path, {"half": shapely.Polygon([*((x, -17) for x in lon), (-170, -10), (170, -10)])})
        with pytest.raises(InputError, match="edges of more than 180 degrees: half"):
            build([], kind="polygons", uri=uri, name_column="name")
        partition = build([], kind="polygons", uri=uri, name_column="name", edges="shortest")
        assert assign(partition, [-89, -18, -15, -15], [0, 0, 175, 0]) == [0, 0, 0, OUTSIDE]  # once around the south
        (doubt,) = doubts([partition])
        assert "hold a pole, though no vertex" in doubt and "half (feature 1)" in doubt

    def test_more_than_half_of_the_earth_and_a_ring_that_crosses_itself_are_told(self, tmp_path: Path) -> None:
        bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
        outside = shapely.box(-180, -90, 180, 90) - shapely.box(0, 0, 10, 10)
        uri = self.file(tmp_path, {"bow": bow, "rest": outside})
        partition = build([], kind="polygons", uri=uri, name_column="name")
        assert assign(partition, [5, 5, 9, -5], [2, 8, 5, 5]) == [0, 0, OUTSIDE, 1]
        crossed, half = doubts([partition])
        assert "1 shapes cross or overlap themselves" in crossed and "bow (feature 1)" in crossed
        assert "1 regions cover more than half of the Earth" in half and half.endswith(": rest")

    @pytest.mark.parametrize("lon", [[0, 100, 200, 300, 400], [0, 100, -160, -60, 40]], ids=["beyond", "wrapped"])
    def test_a_ring_that_goes_around_the_earth_and_overlaps_itself_is_refused(
        self, tmp_path: Path, lon: list[float]
    ) -> None:
        uri = self.file(tmp_path, {"spiral": shapely.Polygon([*((x, 0) for x in lon), *((x, 9) for x in lon[::-1])])})
        with pytest.raises(InputError, match=r"spiral \(feature 1\): a ring goes around the Earth and overlaps itself"):
            build([], kind="polygons", uri=uri, name_column="name", edges="shortest")

    def test_a_ring_with_vertices_at_both_180s_is_cut_or_refused(self) -> None:
        uri = Path(__file__).parents[3] / "shared" / "data" / "cases" / "am180.geojson"
        if not uri.exists():
            pytest.skip("../shared/data is not there")
        partition = build([], kind="polygons", uri=str(uri), name_column="name", edges="shortest")
        assert assign(partition, [-15, -15, -15], [175, -175, 0]) == [0, 0, OUTSIDE]
        with pytest.raises(InputError, match="edges: shortest"):
            build([], kind="polygons", uri=str(uri), name_column="name")

    def test_a_collection_of_polygons_is_one_region(self, tmp_path: Path) -> None:
        nested = shapely.GeometryCollection([shapely.MultiPolygon([shapely.box(2, 0, 3, 1)])])
        uri = self.file(tmp_path, {"a": shapely.GeometryCollection([shapely.box(0, 0, 1, 1), nested])})
        for edges in ("planar", "shortest"):
            partition = build([], kind="polygons", uri=uri, name_column="name", edges=edges)
            assert assign(partition, [0.5, 0.5, 0.5], [0.5, 1.5, 2.5]) == [0, OUTSIDE, 0]

    @pytest.mark.parametrize("edges", ["planar", "shortest"])
    @pytest.mark.parametrize(
        ("shape", "says"),
        [
            (shapely.Point(0, 0), r"b \(feature 2\): it holds a Point"),
            (shapely.LineString([(0, 0), (1, 1)]), r"b \(feature 2\): it holds a LineString"),
            (shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.Point(0, 0)]), "b .*holds a Point"),
            (shapely.Polygon([(0, 0), (1, 1), (2, 2)]), r"no area: b \(feature 2\)"),
            (shapely.box(10, 80, 20, 100), r"latitude: b \(feature 2\)"),
        ],
    )
    def test_what_is_no_area_on_the_earth_is_told_by_name(
        self, tmp_path: Path, shape: shapely.Geometry, says: str, edges: str
    ) -> None:
        uri = self.file(tmp_path, {"a": shapely.box(5, 5, 6, 6), "b": shape})
        with pytest.raises(InputError, match=says):
            build([], kind="polygons", uri=uri, name_column="name", edges=edges)

    def named(self, tmp_path: Path, names: list[Any]) -> str:
        square = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]
        features = [
            {
                "type": "Feature",
                "properties": {"name": name},
                "geometry": {"type": "Polygon", "coordinates": [[[x + 2 * n, y] for x, y in square]]},
            }
            for n, name in enumerate(names)
        ]
        path = tmp_path / "named.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False), "utf-8")
        return str(path)

    @pytest.mark.parametrize(
        ("names", "says"),
        [
            (["a", None, "c", None], "2 features have no 'name': features 2, 4 of 4"),
            (["a", " "], "features 2 of 2"),
            ([1, None], "features 2 of 2"),
            (["a", "b", "a"], r"a \(features 1, 3\).*repeated_names"),
            (["a", "C\ufffdte"], "wrong encoding.*feature 2"),
            (["Île", "CÃ´te d'Ivoire"], "wrong encoding.*feature 2"),  # UTF-8 read as Latin-1
            (["CÃ”TE"], "wrong encoding.*feature 1"),  # as Windows-1252
        ],
    )
    def test_names_that_name_no_region_are_told(self, tmp_path: Path, names: list[Any], says: str) -> None:
        with pytest.raises(InputError, match=says):
            build([], kind="polygons", uri=self.named(tmp_path, names), name_column="name")

    def test_names_of_all_languages_and_numbers_are_names(self, tmp_path: Path) -> None:
        names = ["Île", "ÉVREUX’S CITÉ’S", "Ωραιόκαστρο", "日本", "Łódź", "Ðà Nẵng", "Ã"]
        partition = build([], kind="polygons", uri=self.named(tmp_path, names), name_column="name")
        assert partition.regions(np.empty(0, np.int64))["name"].to_pylist() == names
        partition = build([], kind="polygons", uri=self.named(tmp_path, [12, 7]), name_column="name")
        assert partition.regions(np.empty(0, np.int64))["name"].to_pylist() == ["12", "7"]

    def test_features_of_one_name_can_be_one_region(self, tmp_path: Path) -> None:
        uri = self.named(tmp_path, ["b", "a", "b"])
        partition = build([], kind="polygons", uri=uri, name_column="name", repeated_names="merge")
        assert partition.regions(np.empty(0, np.int64))["name"].to_pylist() == ["b", "a"]
        assert assign(partition, [0.5] * 4, [0.5, 2.5, 4.5, 1.5]) == [0, 1, 0, OUTSIDE]

    @pytest.mark.parametrize(
        ("written", "declared", "read", "expected"),
        [
            ("utf-8", True, None, "Côte"),
            ("cp1252", True, None, "Côte"),
            ("utf-8", False, "utf-8", "Côte"),
            ("cp1252", False, "windows-1252", "Côte"),
            ("utf-8", False, None, r"feature 1, 'CÃ´te' if read as ISO-8859-1"),
            ("cp1252", False, None, "feature 1, 'Côte' if read as"),  # right by chance: nothing says so
            ("cp1252", False, "utf-8", "not in utf-8"),
            ("utf-8", False, "latin-1", "wrong encoding"),
            ("ascii", False, None, "Cote"),
        ],
    )
    def test_the_encoding_of_a_shapefile_is_declared_or_given(
        self, tmp_path: Path, written: str, declared: bool, read: str | None, expected: str
    ) -> None:
        uri = str(tmp_path / "a [1] {b}.shp")
        names = np.array(["Cote" if written == "ascii" else "Côte"], dtype=object)
        wkb = np.array([shapely.to_wkb(shapely.box(0, 0, 1, 1))], dtype=object)
        facts = {"geometry_type": "Polygon", "crs": "EPSG:4326", "driver": "ESRI Shapefile", "encoding": written}
        pyogrio.raw.write(uri, wkb, [names], ["name"], **facts)
        if not declared:
            (tmp_path / "a [1] {b}.cpg").unlink()
            table = tmp_path / "a [1] {b}.dbf"
            header = bytearray(table.read_bytes())
            header[29] = 0  # the language driver: none
            table.write_bytes(header)
        definition = {"kind": "polygons", "uri": uri, "name_column": "name", "encoding": read}
        if " " in expected:
            with pytest.raises(InputError, match=expected):
                build([], **definition)
        else:
            assert build([], **definition).regions(np.empty(0, np.int64))["name"].to_pylist() == [expected]

    def test_text_that_is_not_utf_8_is_told(self, tmp_path: Path) -> None:
        path = Path(self.named(tmp_path, ["Å"]))
        path.write_bytes(path.read_text("utf-8").encode("latin-1"))
        with pytest.raises(InputError, match=r"not in utf-8.*set encoding"):
            build([], kind="polygons", uri=str(path), name_column="name")
        partition = build([], kind="polygons", uri=str(path), name_column="name", encoding="latin-1")
        assert partition.regions(np.empty(0, np.int64))["name"].to_pylist() == ["Å"]
        with pytest.raises(ConfigError, match="there is no encoding 'latin-0'"):
            build([], kind="polygons", uri=str(path), name_column="name", encoding="latin-0")

    def test_an_unknown_column_is_told_with_those_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="columns: name"):
            build([], kind="polygons", uri=self.file(tmp_path, {"a": shapely.box(0, 0, 1, 1)}), name_column="nom")

    @pytest.mark.parametrize(
        ("shape", "says"),
        [
            (shapely.box(175, 0, 185, 10), "reach beyond 180"),
            (shapely.box(10, 100, 20, 110), "longitude, latitude"),
            (shapely.Polygon(), "missing or empty: a"),
            (None, "missing or empty: a"),
        ],
    )
    def test_shapes_that_no_point_could_be_in_are_refused(
        self, tmp_path: Path, shape: shapely.Geometry | None, says: str
    ) -> None:
        geometry = None if shape is None else json.loads(shapely.to_geojson(shape))
        feature = {"type": "Feature", "properties": {"name": "a"}, "geometry": geometry}
        path = tmp_path / "shapes.geojson"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
        with pytest.raises(InputError, match=says):
            build([], kind="polygons", uri=str(path), name_column="name")

    @pytest.mark.parametrize("geo", ["{", "[]", '{"primary_column": "shape", "columns": {"shape": {}}}'])
    def test_geoparquet_with_bad_metadata_or_geometry_is_told(self, tmp_path: Path, geo: str) -> None:
        table = pa.table({"name": ["a"], "shape": [b"no WKB"]}).replace_schema_metadata({"geo": geo})
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(InputError, match=r"a\.parquet"):
            build([], kind="polygons", uri=str(tmp_path / "a.parquet"), name_column="name")
        right = '{"primary_column": "shape", "columns": {"shape": {"encoding": "WKB"}}}'
        pq.write_table(table.replace_schema_metadata({"geo": right}), tmp_path / "b.parquet")
        with pytest.raises(InputError, match="geometries cannot be read"):
            build([], kind="polygons", uri=str(tmp_path / "b.parquet"), name_column="name")

    def test_a_file_that_names_other_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret.csv").write_text("name,lon,lat\nsecret,1,2\n")
        (tmp_path / "shapes.geojson").write_text(
            '<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource>'
            f"{tmp_path}/secret.csv</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
        )
        with pytest.raises(InputError, match="its format is OGR_VRT"):
            build([], kind="polygons", uri=str(tmp_path / "shapes.geojson"), name_column="name")

    def test_a_file_that_is_none_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "x.geojson").write_text("{")
        with pytest.raises(InputError, match=r"x\.geojson"):
            build([], kind="polygons", uri=str(tmp_path / "x.geojson"), name_column="name")


class TestDefinitions:
    def test_an_unknown_kind_is_told_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'classes'"):
            parse_definition({"name": "p", "kind": "clases"}, "x.yaml")

    def test_an_unknown_key_is_told_with_the_nearest(self) -> None:
        with pytest.raises(ConfigError, match="did you mean 'level'"):
            parse_definition({"name": "p", "kind": "s2", "levle": 3}, "x.yaml")

    def test_the_kinds_are_the_files_of_the_folder(self) -> None:
        assert kinds() == ["built", "classes", "density", "polygons", "s2"]

    def test_every_definition_in_conf_is_valid(self) -> None:
        for path in CONF.glob("*.yaml"):
            parse_definition({"name": path.stem, **read_yaml(path)}, str(path))

    def test_esa_cci_merge_is_the_papers_with_its_misprint_mended(self) -> None:
        """Bianco et al.: 10-40, 50-60, 70-100, 110-150, 160-180 (printed 190), urban 190, 200-220."""
        definition = parse_definition({"name": "e", **read_yaml(CONF / "esa_cci_merged.yaml")}, "")
        bounds = [(10, 40), (50, 62), (70, 100), (110, 153), (160, 180), (190, 190), (200, 220)]
        merged = [(min(c.values), max(c.values)) for c in definition.classes]  # type: ignore[attr-defined]
        assert merged == bounds
        codes = [value for c in definition.classes for value in c.values]  # type: ignore[attr-defined]
        assert len(codes) == 37  # the legend's 38 codes without "no data"

    def test_esa_cci_groups_are_the_legends_22(self) -> None:
        definition = parse_definition({"name": "e", **read_yaml(CONF / "esa_cci_groups.yaml")}, "")
        groups = definition.classes  # type: ignore[attr-defined]
        assert [min(c.values) // 10 * 10 for c in groups] == [*range(10, 101, 10), *range(110, 221, 10)]
        assert all(v // 10 == min(c.values) // 10 for c in groups for v in c.values)
