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

from geosieve.overhead.chips.config import ChipsConfig
from geosieve.overhead.chips.job import cut_chips
from geosieve.overhead.strips.config import StripsConfig
from geosieve.overhead.strips.prepare import prepare_strips

DATA = Path(__file__).parents[3] / "shared" / "data" / "satellite"
WGS84 = "EPSG:4326"


class Chips(Workspace):
    jobs = {**JOBS, "prepare_strips": (StripsConfig, prepare_strips), "cut_chips": (ChipsConfig, cut_chips)}

    def prepare(self, source: str, uri: Path, **options: Any) -> None:
        code, report = self.run("prepare_strips", {"strips": {"name": source, "uri": str(uri), **options}})
        assert code == 0, report["error"]

    def cut(self, run_id: str = "r1", *options: str, **config: Any) -> tuple[int, dict[str, Any]]:
        rasters = {"root": str(self.tables), **config.pop("rasters", {"strips": ["s"]})}
        given = {"name": "set", "images": {"root": str(self.tables)}, "rasters": rasters, **config}
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
    """A strip on its own grid of 0.5 m, with a hole, and positions in, at the edge of and outside of it."""
    made = Chips(tmp_path_factory.mktemp("chips"))
    values = np.maximum(texture(3, 1200, 1500, "uint8", 255), 1)
    values[:, 500:700, 600:800] = 0
    write_strip(made.root / "in/a.tif", values, Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "EPSG:32633", nodata=0)
    made.prepare("s", made.root / "in", resolution_m=0.5, ranges=[(0, 255)])
    x = np.array([5e5 + 100.2, 5e5 + 349.9, 5e5 + 5, 5e5 + 600, 5e5 + 9000, 5e5 + 600])
    y = np.array([5e6 - 100.3, 5e6 - 300.1, 5e6 - 50, 5e6 - 100, 5e6, 5e6 - 100])
    lat, lon = degrees("EPSG:32633", x, y)
    lat[5] = 85.0
    made.ingest(lat, lon)
    code, report = made.cut(views=[{"name": "chip", "size_px": 100, "resolution_m": 0.5}])
    assert code == 0, report["error"]
    assert report["rows_in"] == 6 == report["rows_out"] + sum(report["rejected"].values())
    return made


def test_a_chip_is_the_window_of_the_strip_around_the_position(city: Chips) -> None:
    rows = city.read()
    assert sorted(rows.index) == ["points000000", "points000003"]
    with rasterio.open(city.root / "in/a.tif") as strip:
        values = strip.read()
    for name, left, top in (("points000000", 150, 151), ("points000003", 1150, 150)):
        row = rows.loc[name]
        assert row["transform"] == {"a": 0.5, "b": 0, "c": 5e5 + left / 2, "d": 0, "e": -0.5, "f": 5e6 - top / 2}
        found = pixels(row.chip)
        expected = values[:, top : top + 100, left : left + 100].transpose(1, 2, 0)
        np.testing.assert_array_equal(found, expected)
