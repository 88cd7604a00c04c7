"""`catalog_rasters` and `label_attributes` end to end, on fabricated maps, against a brute-force loop."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from fabricated_rasters import world, write_raster
from pyspark.sql import SparkSession
from rasterio.transform import Affine, from_origin
from rasterio.warp import transform as warp
from s2_oracle import leaf
from workspace import Workspace

from geosieve.geo.codes import NODATA, OUTSIDE
from geosieve.labels.summary import LabelCounter
from geosieve.runtime.errors import IntegrityError, RetryableError


@pytest.fixture
def workspace(tmp_path: Path, spark: SparkSession) -> Workspace:
    return Workspace(tmp_path)


def classes(name: str, collection: str, values: range) -> dict[str, Any]:
    named = [{"name": f"c{v}", "values": [v]} for v in values]
    return {"name": name, "kind": "classes", "collection": collection, "classes": named}


def points(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lat = np.concatenate([rng.uniform(-90, 90, n), [90.0, -90.0, 0.0, 0.5, 48.0]])
    lon = np.concatenate([rng.uniform(-180, 180, n), [0.0, 0.0, 180.0, -180.0, 12.0]])
    return lat, lon


def test_labels_equal_a_loop_over_the_points(workspace: Workspace, tmp_path: Path) -> None:
    lat, lon = points(3000)
    workspace.ingest(lat, lon)
    strips = world(tmp_path / "strips.tif", 0.5, seed=1, high=20, blockysize=1, nodata=3)
    workspace.catalog("strips", strips)
    # a mosaic of 10 by 10 degree tiles that leaves the north out
    (tmp_path / "tiles").mkdir()
    for i, north in enumerate(range(40, -90, -10)):
        for j, west in enumerate(range(-180, 180, 10)):
            values = np.random.default_rng(i * 36 + j).integers(0, 9, (20, 20), np.uint8)
            tile = tmp_path / "tiles" / f"t{i:02d}_{j:02d}.tif"
            write_raster(tile, values, from_origin(west, north, 0.5, 0.5), tiled=True, blockxsize=16, blockysize=16)
    code, report = workspace.catalog("tiles", tmp_path / "tiles")
    assert (code, report["rows_in"], report["rows_out"]) == (0, 13 * 36, 13 * 36)

    code, report = workspace.label([classes("strips", "strips", range(1, 20)), classes("tiles", "tiles", range(9)),
                                    {"name": "s2_l8", "kind": "s2", "level": 8}])  # fmt: skip
    assert code == 0 and report["rows_out"] == lat.size
    labels = workspace.labels()
    np.testing.assert_array_equal(labels[["lat", "lon"]], np.column_stack([lat, lon]))

    wrapped = np.where(lon == 180, -180, lon)
    with rasterio.open(strips) as dataset:
        inside = np.where(lat == -90, -89.9, lat)  # rasterio's last row does not hold the pole
        found = np.array([v[0] for v in dataset.sample(zip(wrapped, inside, strict=True))], int)
    np.testing.assert_array_equal(labels["strips"], np.where(found == 3, NODATA, found - 1))

    expected = np.full(lat.size, OUTSIDE)
    for path in (tmp_path / "tiles").iterdir():
        with rasterio.open(path) as dataset:
            grid = dataset.read(1)
            row = np.floor((dataset.bounds.top - lat) / 0.5).astype(int)
            column = np.floor((wrapped - dataset.bounds.left) / 0.5).astype(int)
            row[lat == -90] -= 1
            here = (row >= 0) & (row < 20) & (column >= 0) & (column < 20)
            expected[here] = grid[row[here], column[here]]
    np.testing.assert_array_equal(labels["tiles"], expected)

    cells = [leaf(*point) for point in zip(lat, lon, strict=True)]
    np.testing.assert_array_equal(labels["s2_id"].to_numpy().view(np.uint64), [cell.id() for cell in cells])
    tokens = duckdb.sql(f"""
        SELECT l.image_id, r.name FROM read_parquet('{workspace.tables}/labels/*/*.parquet') l
        JOIN read_parquet('{workspace.tables}/regions_of_partition/*/*/*.parquet') r
        ON r.partition = 's2_l8' AND r.region = l.s2_l8 ORDER BY 1""").fetchall()
    assert [name for _, name in tokens] == [cell.parent(8).ToToken() for cell in cells]

    counted = report["details"]["partitions"]["tiles"]
    assert counted["outside"] == (expected == OUTSIDE).sum()
    assert counted["regions"] == {f"c{v}": int((expected == v).sum()) for v in range(9)}


def test_overlapping_utm_tiles(workspace: Workspace, tmp_path: Path) -> None:
    """Two tiles in neighbouring zones overlap around 12 degrees east; the one with the lower number is asked first."""
    (tmp_path / "tiles").mkdir()
    for zone, x0 in ((32, 600_000), (33, 200_000)):
        values = np.full((200, 200), zone, np.uint8)
        transform = Affine(1000, 0, x0, 0, -1000, 5_500_000)
        write_raster(tmp_path / "tiles" / f"zone{zone}.tif", values, transform, f"EPSG:326{zone}")
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(47.5, 50, 2000), rng.uniform(9, 15, 2000)
    workspace.ingest(lat, lon)
    workspace.catalog("utm", tmp_path / "tiles", priorities=[{"pattern": "zone33*", "priority": -1}])
    workspace.label([classes("utm", "utm", range(32, 34))])
    expected = np.full(lat.size, OUTSIDE)
    for index, name in ((0, "zone32"), (1, "zone33")):  # the later overwrites: it has priority
        with rasterio.open(tmp_path / "tiles" / f"{name}.tif") as dataset:
            x, y = warp("EPSG:4326", dataset.crs, lon.tolist(), lat.tolist())
            column, row = (np.floor(v) for v in ~dataset.transform @ (np.array(x), np.array(y)))
            expected[(row >= 0) & (row < 200) & (column >= 0) & (column < 200)] = index
    np.testing.assert_array_equal(workspace.labels()["utm"], expected)
    assert {OUTSIDE, 0, 1} == set(expected.tolist())


def test_refused_files_are_rejects_with_their_class(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    ones = np.ones((8, 8), np.uint8)
    write_raster(folder / "good.tif", ones, from_origin(0, 8, 1, 1))
    write_raster(folder / "nocrs.tif", ones, from_origin(0, 8, 1, 1), crs=None)
    write_raster(folder / "swapped.tif", np.ones((300, 8), np.uint8), from_origin(40, 170, 1, 1))
    site = 'ENGCRS["site",EDATUM["d"],CS[Cartesian,2],AXIS["e",east],AXIS["n",north],LENGTHUNIT["metre",1]]'
    write_raster(folder / "site.tif", ones, from_origin(0, 8, 1, 1), crs=site)
    (folder / "text.tif").write_text("no raster")
    (folder / "empty.tif").write_bytes(b"")
    whole = write_raster(folder / "short.tif", np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8),
                         from_origin(0, 50, 0.1, 0.1), compress=None)  # fmt: skip
    whole.write_bytes(whole.read_bytes()[:6000])
    code, report = workspace.catalog("mixed", folder)
    assert code == 0
    assert report["rejected"] == {
        "missing_crs": 1,
        "unusable_crs": 1,
        "swapped_axes": 1,
        "not_a_raster": 2,
        "truncated": 1,
    }
    assert (report["rows_in"], report["rows_out"]) == (7, 1)
    rejects = pq.read_table(workspace.tables / "rejects", columns=["id", "error_class"]).to_pylist()
    assert {r["id"]: r["error_class"] for r in rejects}["nocrs.tif"] == "missing_crs"


def test_a_collection_without_any_usable_file_fails(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_text("no raster")
    code, report = workspace.catalog("broken", tmp_path / "x.tif")
    assert code == 65 and "none of 1 files" in report["error"]
    assert workspace.catalog("absent", tmp_path / "absent*.tif")[0] == 65


def test_a_crs_can_be_given_to_files_without_one(workspace: Workspace, tmp_path: Path) -> None:
    write_raster(tmp_path / "nocrs.tif", np.ones((8, 8), np.uint8), from_origin(0, 8, 1, 1), crs=None)
    assert workspace.catalog("given", tmp_path / "nocrs.tif", crs="EPSG:4326")[1]["rows_out"] == 1
    code, report = workspace.run(
        "catalog_rasters", {"rasters": {"collection": "x", "uri": str(tmp_path / "nocrs.tif"), "crs": "EPSG:0"}}
    )
    assert code == 78 and "rasters.crs" in report["error"]


def test_a_map_that_covers_no_image_is_a_warning(workspace: Workspace, tmp_path: Path) -> None:
    workspace.ingest(np.array([50.0]), np.array([8.0]))
    workspace.catalog("far", write_raster(tmp_path / "far.tif", np.ones((8, 8), np.uint8), from_origin(100, 8, 1, 1)))
    code, report = workspace.label([classes("far", "far", range(1, 2))])
    assert code == 0
    assert any("far covers none" in warning for warning in report["warnings"])
    assert report["details"]["partitions"]["far"]["outside"] == 1


def test_a_value_without_a_class_is_counted_and_told(workspace: Workspace, tmp_path: Path) -> None:
    workspace.ingest(np.array([5.0, 5.0]), np.array([0.5, 1.5]))
    workspace.catalog("two", write_raster(tmp_path / "t.tif", np.array([[1, 9]], np.uint8), from_origin(0, 5.5, 1, 1)))
    _, report = workspace.label([classes("two", "two", range(1, 2))])
    assert report["details"]["partitions"]["two"]["unknown"] == 1
    assert any("does not name" in warning for warning in report["warnings"])


def test_a_raster_that_broke_off_after_it_was_catalogued_fails_the_run(workspace: Workspace, tmp_path: Path) -> None:
    workspace.ingest(np.array([-89.0]), np.array([0.0]))
    path = world(tmp_path / "world.tif", 1, compress=None)
    workspace.catalog("w", path)
    path.write_bytes(path.read_bytes()[:9000])
    code, report = workspace.label([classes("w", "w", range(1, 250))])
    assert code == 65 and "world.tif" in report["error"]
    assert not list(workspace.tables.glob("labels/*/_SUCCESS"))


def test_a_dry_run_shows_inputs_and_plan_and_writes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    workspace.ingest(*points(10))
    workspace.catalog("w", world(tmp_path / "w.tif", 10))
    before = sorted(workspace.tables.rglob("*"))
    code, report = workspace.label([classes("w", "w", range(1, 250))], "r1", "--dry-run", "--verbose")
    assert (code, report["status"]) == (0, "dry_run")
    assert "join" not in report["seconds"]
    assert sorted(workspace.tables.rglob("*")) == before
    assert '"kind": "classes"' in workspace.printed and "MapInArrow" in workspace.printed
    assert "images of points" in report["details"]["inputs"]


def test_a_finished_run_is_not_repeated(workspace: Workspace) -> None:
    workspace.ingest(*points(10))
    cells = [{"name": "s2_l5", "kind": "s2", "level": 5}]
    assert workspace.label(cells)[0] == 0
    code, report = workspace.label(cells)
    assert (code, report["status"]) == (99, "nothing_to_do")


@pytest.mark.parametrize(
    ("partitions", "told"),
    [
        (["no_such_partition"], "there is no partition 'no_such_partition'"),
        ([{"name": "x", "kind": "polygon"}], "did you mean 'polygons'"),
        ([{"name": "lat", "kind": "s2", "level": 3}], "already has a column 'lat'"),
        ([{"name": "a", "kind": "s2", "level": 3}, {"name": "a", "kind": "s2", "level": 4}], "stands twice"),
        ([], "at least 1"),
    ],
)
def test_partitions_that_cannot_be_are_told(workspace: Workspace, partitions: list[Any], told: str) -> None:
    code, report = workspace.label(partitions)
    assert code == 78 and told in report["error"]


def test_a_collection_that_was_not_catalogued_is_told_with_those_that_were(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.ingest(*points(3))
    workspace.catalog("here", world(tmp_path / "w.tif", 10))
    code, report = workspace.label([classes("p", "there", range(3))])
    assert code == 65 and "catalogued: here" in report["error"]


def test_the_readmes_query_counts_an_image_once_whatever_runs_there_are(workspace: Workspace) -> None:
    """Two committed runs, the later one of the lesser name and with more images, and one that is not committed."""
    query = re.search(r"```sql\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text("utf-8"), re.DOTALL)
    assert query is not None
    cells = [{"name": "koppen", "kind": "s2", "level": 0}]
    workspace.ingest(np.array([1.0]), np.array([1.0]))
    assert workspace.label(cells, run_id="b")[0] == 0
    workspace.run("ingest_images", {"source": {
        "name": "others", "uri": str(workspace.root / "points.csv"), "format": "csv",
        "columns": {"image_id": "id", "lat": "lat", "lon": "lon"}}})  # fmt: skip
    assert workspace.label(cells, run_id="a")[0] == 0
    committed = json.loads((workspace.tables / "labels/run_id=b/_SUCCESS").read_text())
    (workspace.tables / "labels/run_id=b/_SUCCESS").write_text(
        json.dumps({**committed, "committed_at": "2026-01-01T00:00:00+00:00"})
    )
    assert workspace.label(cells, run_id="c")[0] == 0
    (workspace.tables / "labels/run_id=c/_SUCCESS").unlink()
    found = duckdb.sql(query[1].replace("tables", str(workspace.tables))).fetchall()
    assert found == [("1", 2)]  # both are in face 0, whose token is 1


def test_images_of_all_runs_are_labelled_once_each(workspace: Workspace) -> None:
    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    lists = {"r1": "a,1,1\nb,2,2\nc,3,3\n", "r2": "b,52.5,13.4\nc,3,3\nd,4,4\n"}
    for run_id, rows in lists.items():
        path = workspace.root / f"{run_id}.csv"
        path.write_text("id,lat,lon\n" + rows)
        source = {"name": "points", "uri": str(path), "format": "csv", "columns": columns}
        assert workspace.run("ingest_images", {"source": source}, run_id=run_id)[0] == 0
    inputs = {"images": {"root": str(workspace.tables), "run": "all"}, "rasters": {"root": str(workspace.tables)}}
    cells = {"name": "cells", "kind": "s2", "level": 10}
    code, report = workspace.run("label_attributes", {**inputs, "partitions": [cells]})
    assert (code, report["rows_in"], report["rows_out"]) == (0, 4, 4), report["error"]
    assert report["details"]["older_rows_left_out"] == 2 and "2 rows of images" in report["warnings"][0]
    found = {row.image_id: (row.lat, row.lon) for row in workspace.labels().itertuples()}
    assert found == {"a": (1, 1), "b": (52.5, 13.4), "c": (3, 3), "d": (4, 4)}
    ((images,),) = duckdb.sql(
        f"SELECT count(*) FROM read_parquet('{workspace.tables}/labels/*/*.parquet', union_by_name = true)"
    ).fetchall()
    assert images == 4


def test_labels_that_were_written_twice_are_not_counted_as_twice_as_many(spark: SparkSession) -> None:
    """As on S3, where the rows are written again if another attempt has written beside them."""
    counter = LabelCounter(spark, ["p"])
    for _ in range(2):
        counter.add(pa.table({"p": pa.array([5, 0, 5], pa.int64())}))
    labels, images = counter.counts(6)["p"]
    assert (labels.tolist(), images.tolist()) == ([0, 5], [2, 4])
    with pytest.raises(RetryableError, match="6 labels of p were counted, 3 were written"):
        counter.counts(3)
    with pytest.raises(IntegrityError, match="6 labels of p were counted, 7 were written"):
        counter.counts(7)
