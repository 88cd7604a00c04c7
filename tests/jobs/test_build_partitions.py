"""`build_partitions` end to end: what it publishes, that tasks and order do not matter, and labelling with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely
from fabricated_rasters import write_raster
from PIL import Image
from pyspark.sql import SparkSession
from rasterio.transform import from_origin
from s2_oracle import area_km2, degrees, leaf
from s2geometry import S2CellId
from workspace import Report, Workspace

from geosieve.geo.codes import OUTSIDE

DATA = Path(__file__).parents[3] / "shared" / "data"
FAMILY = [{"name": "coarse", "img_max": 400}, {"name": "middle", "img_max": 150}, {"name": "fine", "img_max": 60}]
ADAPTIVE = {"method": "adaptive_s2", "img_min": 5, "family": FAMILY}


class Partitions(Workspace):
    """Builds partitions from its images, and labels with them."""

    def __init__(self, root: Path, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark = spark

    def build(self, method: dict[str, Any], run_id: str = "r1", source: str = "points") -> Report:
        images = {"root": str(self.tables), "sources": [source]}
        return self.run("build_partitions", {"images": images, "build": method}, run_id)

    def regions(self, partition: str, run_id: str = "r1") -> pd.DataFrame:
        leaf = self.tables / f"regions_of_partition/job=build_partitions/run_id={run_id}"
        frame = pq.read_table(leaf, partitioning=None).to_pandas(types_mapper={}.get)
        return frame[frame["partition"] == partition].sort_values("region").reset_index(drop=True)

    def labelled(self, partitions: list[Any]) -> pd.DataFrame:
        """`labels` of the points."""
        code, report = self.label(partitions, sources=["points"])
        assert code == 0, report["error"]
        return self.labels()

    def built(self, partition: str, **more: Any) -> dict[str, Any]:
        return {"kind": "built", "name": partition, "root": str(self.tables), "partition": partition, **more}


@pytest.fixture
def workspace(tmp_path: Path, spark: SparkSession) -> Partitions:
    return Partitions(tmp_path, spark)


def towns(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic: towns of unequal size all over the Earth, one across ±180, one at each pole, and scattered points."""
    rng = np.random.default_rng(seed)
    lat0 = np.r_[rng.uniform(-60, 70, 20), 89.9, -89.9, 10.0]
    lon0 = np.r_[rng.uniform(-180, 180, 20), 0.0, 0.0, 180.0]
    town = rng.choice(lat0.size, n, p=rng.dirichlet(np.ones(lat0.size)))
    lat = np.clip(lat0[town] + rng.normal(0, 0.3, n), -90, 90)
    lon = (lon0[town] + rng.normal(0, 0.3, n) + 180) % 360 - 180
    scattered = n // 20
    lat[:scattered] = np.degrees(np.arcsin(rng.uniform(-1, 1, scattered)))
    lon[:scattered] = rng.uniform(-180, 180, scattered)
    return lat, lon


def by_s2geometry(lat: np.ndarray, lon: np.ndarray, img_max: int, img_min: int) -> dict[str, int]:
    """The rules of METHODS section 3 with objects of s2geometry: images by token."""
    cells: dict[S2CellId, list[S2CellId]] = {}
    for point in zip(lat.tolist(), lon.tolist(), strict=True):
        image = leaf(*point)
        cells.setdefault(image.parent(2), []).append(image)
    cells = {cell: held for cell, held in cells.items() if len(held) > img_min}
    level = 2
    while level < 30 and any(len(held) > img_max for held in cells.values()):
        level += 1
        for cell in [cell for cell, held in cells.items() if len(held) > img_max]:
            for image in cells.pop(cell):
                cells.setdefault(image.parent(level), []).append(image)
    return {cell.ToToken(): len(held) for cell, held in cells.items() if len(held) > img_min}


def test_a_family_of_adaptive_s2_cells(workspace: Partitions) -> None:
    lat, lon = towns(6000)
    workspace.ingest(lat, lon)
    code, report = workspace.build(ADAPTIVE)
    assert code == 0, report["error"]
    for member in FAMILY:
        regions = workspace.regions(member["name"])
        expected = by_s2geometry(lat, lon, member["img_max"], 5)
        # in S2 id order, each with its images
        order = sorted(expected, key=lambda token: S2CellId.FromToken(token).id())
        assert regions["name"].tolist() == order
        assert regions["n_images"].tolist() == [expected[token] for token in order]
        areas = [area_km2(S2CellId.FromToken(token)) for token in order]
        np.testing.assert_allclose(regions["area_km2"], areas, rtol=1e-9)
        inside = report["details"]["images"][member["name"]]
        assert inside["inside"] == sum(expected.values())
        assert inside["inside"] + inside["outside"] == lat.size
    assert report["rows_in"] == report["rows_out"] == sum(len(workspace.regions(m["name"])) for m in FAMILY)

    # a parent is the cell of the coarser member that contains the cell
    for finer, coarser in (("fine", "middle"), ("middle", "coarse")):
        above = workspace.regions(coarser)["name"]
        for row in workspace.regions(finer).itertuples():
            parent, child = (S2CellId.FromToken(token) for token in (above[row.parent], row.name))
            assert parent.contains(child)

    # labelling gives every image the cell that holds it, or none
    labels = workspace.labelled([workspace.built("fine"), workspace.built("coarse", run="r1")])
    names = workspace.regions("fine")["name"].tolist()
    expected = by_s2geometry(lat, lon, 60, 5)
    for row in labels.itertuples():
        image = leaf(row.lat, row.lon)
        if row.fine != OUTSIDE:
            assert S2CellId.FromToken(names[row.fine]).contains(image)
        else:
            assert not any(image.parent(level).ToToken() in expected for level in range(2, 31))

    # the mean position on the sphere, also of the town across ±180
    mean = labels.groupby("fine")[["lat", "lon"]].agg(list)
    regions = workspace.regions("fine")
    for region, (lats, lons) in mean.drop(OUTSIDE).iterrows():
        phi, theta = np.radians(lats), np.radians(lons)
        total = np.array([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)]).sum(axis=1)
        phi, theta = np.radians(regions.loc[region, ["lat", "lon"]].to_numpy(float))
        there = np.array([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)])
        assert np.linalg.norm(total / np.linalg.norm(total) - there) < 1e-9

    # outlines: GeoParquet that holds its images, none across ±180
    shapes = shapely.from_wkb(regions["geometry"].to_list())
    assert shapely.is_valid(shapes).all() and (np.ptp(shapely.bounds(shapes)[:, [0, 2]], axis=1) <= 90.0).all()
    inside = labels[(labels["fine"] != OUTSIDE) & (labels["lat"].abs() < 80)]  # degrees of longitude shrink beyond
    away = shapely.distance(shapes[inside["fine"]], shapely.points(inside["lon"], inside["lat"]))
    assert (away == 0).mean() > 0.99 and away.max() < 0.01  # a chord of half a degree lies so far from its great circle


def test_tasks_and_order_do_not_matter(workspace: Partitions) -> None:
    lat, lon = towns(3000, seed=1)
    workspace.ingest(lat, lon)
    workspace.ingest(lat[::-1], lon[::-1], source="reversed")
    geocells = {"method": "geocells", "name": "g", "sample": 10_000, "search": {"min_samples": [20], "xi": [0.05]}}
    quadtree = {"method": "quadtree", "name": "q", "img_max": 100}
    digests = []
    for run_id, source, partitions in (("a", "points", 4), ("b", "reversed", 31)):
        workspace.spark.conf.set("spark.sql.shuffle.partitions", partitions)
        found = {}
        for number, method in enumerate((ADAPTIVE, quadtree)):
            code, report = workspace.build(method, f"{run_id}{number}", source)
            assert code == 0, report["error"]
            found |= {name: facts["hash"] for name, facts in report["details"]["partitions"].items()}
            for name in report["details"]["partitions"]:
                table = workspace.regions(name, f"{run_id}{number}")
                found[f"{name} rows"] = table.drop(columns=["geometry", "bbox"]).to_csv()
        digests.append(found)
    workspace.spark.conf.unset("spark.sql.shuffle.partitions")
    assert digests[0] == digests[1]
    # a sample is drawn by id: the same images in other tasks give the same geocells
    hashes = set()
    for run_id, files in (("c", 1), ("d", 7)):
        workspace.spark.conf.set("spark.sql.files.maxPartitionBytes", "128MB" if files == 1 else "4KB")
        code, report = workspace.build(geocells, run_id)
        assert code == 0, report["error"]
        hashes.add(report["details"]["partitions"]["g"]["hash"])
    workspace.spark.conf.unset("spark.sql.files.maxPartitionBytes")
    assert len(hashes) == 1


def test_geocells_cover_the_earth_and_their_clusters_cover_them(workspace: Partitions) -> None:
    lat, lon = towns(2500, seed=2)
    workspace.ingest(lat, lon)
    search = {"min_samples": [10, 20], "xi": [0.03, 0.1]}
    clusters = {"name": "clusters", "fewest": 2, "min_samples": [5], "xi": [0.05, 0.2]}
    code, report = workspace.build(
        {"method": "geocells", "name": "geocells", "sample": 2000, "search": search, "clusters": clusters}
    )
    assert code == 0, report["error"]
    tried = report["details"]["search"]
    assert [(t["min_samples"], t["xi"]) for t in tried] == [(10, 0.03), (10, 0.1), (20, 0.03), (20, 0.1)]
    assert sum(t.get("chosen", False) for t in tried) == 1
    sphere = 4 * np.pi * 6371.0088**2
    geocells, inner = workspace.regions("geocells"), workspace.regions("clusters")
    assert len(inner) > len(geocells) > 5
    np.testing.assert_allclose(geocells["area_km2"].sum(), sphere, rtol=1e-12)
    # the clusters of a geocell divide it
    by_parent = inner.groupby("parent").agg({"area_km2": "sum", "n_images": "sum"})
    np.testing.assert_allclose(by_parent["area_km2"], geocells["area_km2"], rtol=1e-9)
    assert by_parent["n_images"].tolist() == geocells["n_images"].tolist()
    assert geocells["n_images"].sum() == lat.size
    whole = shapely.union_all(shapely.from_wkb(geocells["geometry"].to_list()))
    assert whole.area == pytest.approx(360 * 180, rel=1e-9)

    # each image is in the geocell of the nearest centroid, and in the nearest cluster of those
    labels = workspace.labelled([workspace.built("geocells"), workspace.built("clusters")])
    near = _haversine(labels["lat"], labels["lon"], geocells)
    assert labels["geocells"].tolist() == near.argmin(axis=1).tolist()
    near = _haversine(labels["lat"], labels["lon"], inner)
    near[inner["parent"].to_numpy()[np.newaxis] != labels["geocells"].to_numpy()[:, np.newaxis]] = np.inf
    assert labels["clusters"].tolist() == near.argmin(axis=1).tolist()


def _haversine(lat: Any, lon: Any, regions: pd.DataFrame) -> np.ndarray:
    phi, theta = np.radians(lat.to_numpy())[:, np.newaxis], np.radians(lon.to_numpy())[:, np.newaxis]
    phi0, theta0 = np.radians(regions["lat"].to_numpy(float)), np.radians(regions["lon"].to_numpy(float))
    return np.sin((phi - phi0) / 2) ** 2 + np.cos(phi) * np.cos(phi0) * np.sin((theta - theta0) / 2) ** 2


def test_a_quadtree_of_the_images(workspace: Partitions) -> None:
    lat, lon = towns(3000, seed=3)
    workspace.ingest(lat, lon)
    code, report = workspace.build({"method": "quadtree", "name": "boxes", "depth": 6, "img_max": 50})
    assert code == 0, report["error"]
    regions = workspace.regions("boxes")
    bounds = shapely.bounds(shapely.from_wkb(regions["geometry"].to_list()))
    west, south, east, north = bounds.T
    inside = (lon[:, None] >= west) & (lon[:, None] <= east) & (lat[:, None] >= south) & (lat[:, None] <= north)
    assert inside.any(axis=1).all() and regions["n_images"].sum() == lat.size
    depth = np.log2(np.ptp(lon) / (east - west)).round()
    assert ((regions["n_images"] <= 50) | (depth == 6)).all()
    labels = workspace.labelled([workspace.built("boxes")])
    assert inside[np.arange(lat.size), labels["boxes"]].all()
    assert labels["boxes"].value_counts().sort_index().tolist() == regions["n_images"].tolist()


def test_definitions_are_published_with_what_was_fitted(workspace: Partitions, tmp_path: Path) -> None:
    workspace.ingest(np.array([5.5, 4.5]), np.array([0.5, 3.5]))
    values = np.array([[1, 10, 100, 1000], [1, 1, 1, 10_000]], np.int32)
    raster = write_raster(tmp_path / "people.tif", values, from_origin(0, 6, 1, 1))
    rasters = {"collection": "people", "uri": str(raster), "statistics": True}
    assert workspace.run("catalog_rasters", {"rasters": rasters})[0] == 0
    square = {"type": "Polygon", "coordinates": [[[0, 4], [2, 4], [2, 6], [0, 6], [0, 4]]]}
    feature = {"type": "Feature", "properties": {"name": "Squareland"}, "geometry": square}
    (tmp_path / "land.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    density = {"name": "density", "kind": "density", "collection": "people"}
    land = {"name": "land", "kind": "polygons", "uri": str(tmp_path / "land.geojson"), "name_column": "name"}
    method = {"method": "definitions", "rasters": {"root": str(workspace.tables)}, "partitions": [density, land]}
    code, report = workspace.run("build_partitions", {"build": method})
    assert code == 0, report["error"]
    row = duckdb.sql(
        f"SELECT definition FROM '{workspace.tables}/partitions/job=build_partitions/*/*.parquet' "
        "WHERE partition = 'density'"
    ).fetchall()
    assert json.loads(row[0][0])["edges"] == pytest.approx([10, 100, 1000])
    labels = workspace.labelled([workspace.built("density"), workspace.built("land")])
    assert labels[["density", "land"]].to_numpy().tolist() == [[0, 0], [3, OUTSIDE]]

    # Another map in the same place is not what was published.
    write_raster(tmp_path / "people.tif", np.hstack([values, values]), from_origin(0, 6, 1, 1))
    assert workspace.run("catalog_rasters", {"rasters": rasters}, "r2")[0] == 0
    root = {"root": str(workspace.tables)}
    config = {"images": root, "rasters": root, "partitions": [workspace.built("density")]}
    code, report = workspace.run("label_attributes", config, "r2")
    assert code == 65 and "no longer those that it was published with" in report["error"]


def test_the_published_quadtree_of_osv5m(workspace: Partitions) -> None:
    cells = DATA / "cells" / "osv5m_quadtree_10_1000.csv"
    if not cells.exists():
        pytest.skip("../shared/data is not there")
    code, report = workspace.run(
        "build_partitions", {"build": {"method": "quadtree_csv", "name": "osv5m", "uri": str(cells)}}
    )
    assert code == 0 and report["details"]["partitions"]["osv5m"]["regions"] == 11_399
    photos = pd.read_csv(DATA / "coords" / "yfcc26k.csv").head(3000)
    workspace.ingest(photos["LAT"].to_numpy(), photos["LON"].to_numpy())
    labels = workspace.labelled([workspace.built("osv5m")])
    published = pd.read_csv(cells)
    inside = labels["osv5m"] != OUTSIDE
    boxes = published.iloc[labels.loc[inside, "osv5m"]].reset_index(drop=True)
    there = labels[inside].reset_index(drop=True)
    assert there["lat"].between(boxes["min_lat"], boxes["max_lat"]).all()
    assert there["lon"].between(boxes["min_lon"], boxes["max_lon"]).all()
    for row in labels[~inside].itertuples():
        holds = published["min_lat"].lt(row.lat) & published["max_lat"].gt(row.lat)
        assert not (holds & published["min_lon"].lt(row.lon) & published["max_lon"].gt(row.lon)).any()
    assert inside.mean() > 0.8


def test_what_cannot_be_built_is_told(workspace: Partitions) -> None:
    workspace.ingest(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    code, report = workspace.build(ADAPTIVE)
    assert code == 65 and "no cell has more than 5 of the 2 images" in report["error"]
    assert not list(workspace.tables.glob("partitions/*/*/_SUCCESS"))
    code, report = workspace.build({"method": "geocells", "name": "g"})
    assert code == 65 and "no clustering has 2 to 10000 clusters" in report["error"]
    code, report = workspace.run("build_partitions", {"build": ADAPTIVE})
    assert code == 78 and "images" in report["error"]
    code, report = workspace.build({**ADAPTIVE, "family": FAMILY[::-1]})
    assert code == 78 and "coarse ones come first" in report["error"]
    code, report = workspace.build({**ADAPTIVE, "start_level": 9, "deepest_level": 8})
    assert code == 78 and "start_level 9 is deeper than deepest_level 8" in report["error"]
    bounds = {"south": 60, "west": -10, "north": 40, "east": 10}
    code, report = workspace.build({"method": "quadtree", "name": "q", "bounds": bounds})
    assert code == 78 and "south must be less than north" in report["error"]
    code, report = workspace.build({"method": "quadtree_csv", "name": "q", "uri": "/nowhere.csv"})
    assert code == 65 and "/nowhere.csv" in report["error"]
    root = {"root": str(workspace.tables)}
    config = {"images": root, "rasters": root, "partitions": [workspace.built("fine")]}
    code, report = workspace.run("label_attributes", config)
    assert code == 65 and "no partition 'fine'" in report["error"]


def test_all_images_at_one_place(workspace: Partitions) -> None:
    """The cell is a leaf, level 30, which is still assigned and told; the quadtree is one region."""
    workspace.ingest(np.full(30, 48.8584), np.full(30, 2.2945))
    code, report = workspace.build({**ADAPTIVE, "family": [{"name": "leaf", "img_max": 10}]})
    assert code == 0, report["error"]
    assert "30 images at 1 different positions" in report["warnings"][0] and "deepest_level" in report["warnings"][0]
    assert workspace.regions("leaf")["name"].tolist() == [leaf(48.8584, 2.2945).ToToken()]
    code, report = workspace.build({"method": "quadtree", "name": "one"}, "r2")
    assert code == 0, report["error"]
    assert "30 images at 1 different positions" in report["warnings"][0] and "depth" in report["warnings"][0]
    labels = workspace.labelled([workspace.built("leaf"), workspace.built("one")])
    assert set(labels["leaf"]) == {0} and set(labels["one"]) == {0}


def test_cells_of_images_at_one_place_end_at_the_deepest_level(workspace: Partitions) -> None:
    """60 images at one position, 10 within some metres of it, and a town: by default the 10 fall out of all cells."""
    rng = np.random.default_rng(5)
    eiffel = leaf(48.8584, 2.2945)
    around = eiffel.parent(20)
    near = [degrees(S2CellId(i | 1).ToLatLng()) for i in
            rng.integers(around.range_min().id(), around.range_max().id(), 10, np.uint64).tolist()]  # fmt: skip
    lat = np.r_[np.full(60, 48.8584), [lat for lat, _ in near], 45 + rng.normal(0, 0.05, 100)]
    lon = np.r_[np.full(60, 2.2945), [lon for _, lon in near], 7 + rng.normal(0, 0.05, 100)]
    workspace.ingest(lat, lon)
    family = [{"name": "cells", "img_max": 50}]
    code, report = workspace.build({**ADAPTIVE, "img_min": 5, "family": family})
    assert code == 0, report["error"]
    assert any(f"{eiffel.ToToken()}: 60 images at 1 different positions" in warning for warning in report["warnings"])
    assert report["details"]["images"]["cells"]["outside"] >= 1

    code, report = workspace.build({**ADAPTIVE, "img_min": 5, "family": family, "deepest_level": 20}, "r2")
    assert code == 0, report["error"]
    assert report["warnings"] == []
    held = workspace.regions("cells", "r2").set_index("name")["n_images"]
    assert held[around.ToToken()] == 70
    assert held.sum() == report["details"]["images"]["cells"]["inside"]


def test_cells_may_start_deeper_than_the_first_count(workspace: Partitions) -> None:
    rng = np.random.default_rng(2)
    lat, lon = 48.85 + rng.normal(0, 0.05, 2000), 2.35 + rng.normal(0, 0.05, 2000)
    workspace.ingest(lat, lon)
    method = {"method": "adaptive_s2", "img_min": 0, "start_level": 12, "family": [{"name": "fine", "img_max": 100}]}
    code, report = workspace.build(method)
    assert code == 0, report["error"]
    leaves = [leaf(*point) for point in zip(lat, lon, strict=True)]
    held: dict[str, int] = {}
    for row in workspace.regions("fine").itertuples():
        cell = S2CellId.FromToken(row.name)
        assert cell.level() >= 12
        held[row.name] = sum(cell.contains(image) for image in leaves)
        assert held[row.name] == row.n_images <= 100
    assert sum(held.values()) == 2000


@pytest.mark.parametrize(("parents", "expected"), [("containment", [0, 1]), ("mean", [1, 1])])
def test_a_family_of_cell_files_has_parents_by_cell_or_by_mean(
    workspace: Partitions, tmp_path: Path, parents: str, expected: list[int]
) -> None:
    """The first fine cell lies in the first coarse one, but touches ±180: its mean longitude is in the second."""
    header = "num_images,2\nmin,0\nclass_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean\n"

    def token(lat: float, lon: float, level: int) -> str:
        return str(leaf(lat, lon).parent(level).ToToken())

    for name, level in (("coarse", 4), ("fine", 8)):
        rows = f"0,{token(-16.8, -179.9, level)},9,-16.8,151.2\n1,{token(-16.8, 151.2, level)},9,-16.8,151.2\n"
        (tmp_path / f"{name} [1] {{a}}.csv").write_text(header + rows)
    family = [{"name": name, "uri": str(tmp_path / f"{name} [1] {{a}}.csv")} for name in ("coarse", "fine")]
    method = {"method": "geoestimation_csv", "family": family, "parents": parents}
    code, report = workspace.run("build_partitions", {"build": method})
    assert code == 0, report["error"]
    assert workspace.regions("fine")["parent"].tolist() == expected


def test_images_without_a_position_are_counted(workspace: Partitions, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "photos" / "nowhere.jpg")
    source = {"name": "points", "uri": str(tmp_path / "photos"), "format": "photos"}
    code, report = workspace.run("ingest_images", {"source": source})
    assert code == 0, report["error"]
    workspace.ingest(np.full(30, 48.8584), np.full(30, 2.2945), "others")
    images = {"root": str(workspace.tables)}
    method = {**ADAPTIVE, "family": [{"name": "leaf", "img_max": 10}]}
    code, report = workspace.run("build_partitions", {"images": images, "build": method})
    assert code == 0, report["error"]
    assert report["details"]["images_without_position"] == 1


def test_a_class_that_can_never_occur_is_told_by_both_jobs(workspace: Partitions, tmp_path: Path) -> None:
    workspace.ingest(np.array([5.5]), np.array([0.5]))
    raster = write_raster(tmp_path / "c.tif", np.array([[0, 5]], np.uint8), from_origin(0, 6, 1, 1), nodata=0)
    assert workspace.run("catalog_rasters", {"rasters": {"collection": "cover", "uri": str(raster)}})[0] == 0
    named = [{"name": "water", "values": [0]}, {"name": "land", "values": [5]}]
    cover = {"name": "cover", "kind": "classes", "collection": "cover", "classes": named}
    root = {"root": str(workspace.tables)}
    method = {"method": "definitions", "rasters": root, "partitions": [cover]}
    configs = {
        "build_partitions": {"build": method},
        "label_attributes": {"images": root, "rasters": root, "partitions": [cover]},
    }
    for job, config in configs.items():
        code, report = workspace.run(job, config)
        assert code == 0, report["error"]
        told = [warning for warning in report["warnings"] if "'water' can never have the value 0" in warning]
        assert len(told) == 1 and "'cover'" in told[0], (job, report["warnings"])
