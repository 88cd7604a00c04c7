"""`cut_chips` as it is run: what is cut, what is refused, and which raster gives a chip."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
from fabricated_strips import texture, write_strip
from PIL import Image
from pyproj import Transformer
from pyspark.sql import SparkSession
from rasterio.transform import Affine
from workspace import JOBS, Workspace

from geosieve.overhead.chips import job
from geosieve.overhead.chips.config import ChipsConfig
from geosieve.overhead.chips.job import cut_chips
from geosieve.overhead.strips.config import StripsConfig
from geosieve.overhead.strips.prepare import prepare_strips

WGS84, UTM33 = "EPSG:4326", "EPSG:32633"
# Metres east and south of the corner of the strip.
X = np.array([100.2, 349.9, 5.0, 600.0, 9000.0, 600.0])
Y = np.array([100.3, 300.1, 50.0, 100.0, 0.0, 100.0])


class Chips(Workspace):
    jobs = {**JOBS, "prepare_strips": (StripsConfig, prepare_strips), "cut_chips": (ChipsConfig, cut_chips)}

    def prepare(self, source: str, uri: Path, **options: Any) -> None:
        code, report = self.run("prepare_strips", {"strips": {"name": source, "uri": str(uri), **options}})
        assert code == 0, report["error"]

    def cut(self, run_id: str = "r1", *options: str, **config: Any) -> tuple[int, dict[str, Any]]:
        rasters = {"root": str(self.tables), **config.pop("rasters", {"strips": ["s"]})}
        views = [{"name": "chip", "size_px": 100, "resolution_m": 0.5}]
        given = {"name": "set", "images": {"root": str(self.tables)}, "rasters": rasters, "views": views, **config}
        return self.run("cut_chips", given, run_id, *options)

    def read(self, run_id: str = "r1") -> pd.DataFrame:
        table = pq.read_table(self.tables / f"chips/chip_set=set/run_id={run_id}", partitioning=None)
        return table.to_pandas().sort_values(["image_id", "view"]).set_index("image_id")

    def rejects(self, run_id: str = "r1") -> pd.DataFrame:
        leaf = self.tables / f"rejects/job=cut_chips/part=set/run_id={run_id}"
        return pq.read_table(leaf, partitioning=None).to_pandas().sort_values("id").set_index("id")


def pixels(chip: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(chip)))


def degrees(epsg: str, x: Any, y: Any) -> tuple[Any, Any]:
    lon, lat = Transformer.from_crs(epsg, WGS84, always_xy=True).transform(x, y)
    return np.atleast_1d(lat), np.atleast_1d(lon)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Chips:
    """A strip on its own grid of 0.5 m, with a hole, and images in, at the edge of and outside of it; and a map."""
    made = Chips(tmp_path_factory.mktemp("chips"))
    values = np.maximum(texture(3, 1200, 1500, "uint8", 255), 1)
    values[:, 500:700, 600:800] = 0
    write_strip(made.root / "in/a.tif", values, Affine(0.5, 0, 5e5, 0, -0.5, 5e6), UTM33, nodata=0)
    facts = [{"pattern": "a*", "captured_at": "2020-05-01T10:00:00Z"}]
    made.prepare("s", made.root / "in", resolution_m=0.5, ranges=[(0, 255)], facts=facts)
    lat, lon = degrees(UTM33, 5e5 + X, 5e6 - Y)
    lat[5] = 85.0
    made.ingest(lat, lon)
    code, report = made.cut()
    assert code == 0, report["error"]
    assert report["rows_in"] == 6 == report["rows_out"] + sum(report["rejected"].values())
    assert report["details"]["chips_of"] == {"s": 2}
    return made


def test_a_chip_is_the_window_of_the_strip_around_the_position(city: Chips) -> None:
    rows = city.read()
    assert sorted(rows.index) == ["points000000", "points000003"]
    with rasterio.open(city.root / "in/a.tif") as strip:
        values = strip.read()
    for name, left, top in (("points000000", 150, 151), ("points000003", 1150, 150)):
        row = rows.loc[name]
        assert row["transform"] == {"a": 0.5, "b": 0, "c": 5e5 + left / 2, "d": 0, "e": -0.5, "f": 5e6 - top / 2}
        expected = values[:, top : top + 100, left : left + 100].transpose(1, 2, 0)
        np.testing.assert_array_equal(pixels(row["chip"]), expected)


def test_a_row_tells_all_about_its_chip(city: Chips) -> None:
    row = city.read().loc["points000000"]
    said = (row.source, row["view"], row.raster_source, row.strip_id, row.epsg, row.utm_zone, row.format)
    assert said == ("points", "chip", "s", "a", 32633, "33N", "png")
    assert (row.width, row.height, row.resolution_m, row.orientation, row.empty_share) == (100, 100, 0.5, "raster", 0)
    assert row.captured_at == pd.Timestamp("2020-05-01T10:00Z")
    assert (row.lat, row.lon) == pytest.approx([float(v[0]) for v in degrees(UTM33, 5e5 + X[0], 5e6 - Y[0])])
    assert row.raster_uri.endswith("/_strips/s/r1/a.tif")


def test_positions_without_a_chip_are_rejects_that_say_why(city: Chips) -> None:
    rejects = city.rejects()
    assert rejects.error_class.to_dict() == {
        **{"points000001": "empty", "points000002": "empty"},  # in the hole; 5 m from the edge
        **{"points000004": "no_raster", "points000005": "outside_utm"},
    }
    assert rejects.message["points000001"] == "view chip: 100.0 % of its pixels are empty"
    assert rejects.message["points000002"] == "view chip: 40.0 % of its pixels are empty"
    assert set(rejects.stage) == {"join", "cut"} and rejects.stage["points000004"] == "join"


def test_the_number_of_tasks_changes_no_row(city: Chips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_TASK_CHIPS", 1)
    monkeypatch.setattr(job, "_PLAN_ROWS", 1)
    assert city.cut("tasks")[0] == 0
    pd.testing.assert_frame_equal(city.read("tasks"), city.read())
    pd.testing.assert_frame_equal(city.rejects("tasks"), city.rejects())


def test_positions_of_a_list_and_a_catalogued_map_at_two_zooms(city: Chips) -> None:
    """The map is in degrees and of 16 bits, and lies around the strip; the list has rows that cannot be used."""
    lat, lon = degrees(UTM33, 5e5 + X, 5e6 - Y)
    rows = [f"p{n},{lat[n]!r},{lon[n]!r}" for n in (0, 1, 4)]
    path = city.root / "list.csv"
    path.write_text("\n".join(["id,lat,lon", *rows, "p0,45.2,15.0", "no,,15", "far,10,10"]) + "\n")
    step = 5e-5
    values = texture(1, 700, 800)
    write_strip(city.root / "map/m.tif", values, Affine(step, 0, 14.98, 0, -step, 45.17), "EPSG:4326")
    code, report = city.catalog("map", city.root / "map")
    assert code == 0, report["error"]
    columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
    positions = {"name": "list", "format": "csv", "uri": str(path), "columns": columns}
    views = [{"name": name, "size_px": 64, "resolution_m": size} for name, size in (("near", 3.0), ("far", 12.0))]
    options = {"images": None, "positions": positions, "views": views, "format": "jpeg"}
    rasters = {"collections": [{"name": "map", "ranges": [[0, 2000]]}]}
    code, report = city.cut("list", rasters=rasters, **options)
    assert code == 0, report["error"]
    assert report["rows_in"] == 12
    assert report["rejected"] == {"duplicate_id": 2, "missing_position": 2, "no_raster": 4}
    found = city.read("list")
    assert list(zip(found.index, found["view"], strict=True)) == [(p, v) for p in ("p0", "p1") for v in ("far", "near")]
    assert set(found.raster_source) == {"map"} and found.strip_id.isna().all()
    assert set(found.format) == {"jpeg"} and pixels(found.chip.iloc[0]).shape == (64, 64, 3)
    for row in found.reset_index().itertuples():
        t = row.transform
        x, y = (t["c"] + 32 * (t["a"] + t["b"]), t["f"] + 32 * (t["d"] + t["e"]))
        assert [float(v[0]) for v in degrees(f"EPSG:{row.epsg}", x, y)] == pytest.approx([row.lat, row.lon], abs=1e-9)
        assert np.hypot(t["a"], t["d"]) == pytest.approx(row.resolution_m)
    code, report = city.cut("deep", rasters={"collections": [{"name": "map"}]}, **options)
    assert code == 65 and "ranges" in report["error"]


def test_a_committed_run_does_nothing_and_a_dry_run_writes_nothing(city: Chips) -> None:
    before = sorted(city.tables.rglob("*"))
    assert city.cut()[0] == 99
    code, report = city.cut("dry", "--dry-run", "--verbose")
    assert (code, report["status"], report["details"]["inputs"]["rasters of s"]) == (0, "dry_run", 1)
    assert sorted(city.tables.rglob("*")) == before


def test_inputs_that_are_not_there_are_named(city: Chips) -> None:
    code, report = city.cut("unknown", rasters={"strips": ["t"]})
    assert code == 65 and "no strips of source 't'; there are s" in report["error"]
    code, report = city.cut("unknown", rasters={"collections": [{"name": "maps"}]})
    assert code == 65 and "no catalogue of raster collection 'maps'" in report["error"]
    code, report = city.cut("none", most_empty=0.0, views=[{"size_px": 2000, "resolution_m": 0.5}])
    assert code == 65 and "no chip could be cut" in report["error"]
    assert not list(city.tables.glob("chips/*/run_id=none/_SUCCESS"))
