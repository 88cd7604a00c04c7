"""Chips of strips on S3: they are the strip's pixels through storms of 503s; nothing is there if these do not end."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fabricated_strips import texture, write_strip
from job_client import Outcome
from PIL import Image
from pyproj import Transformer
from rasterio.transform import Affine
from s3_jobs import JobStore
from s3_server import Request

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_RETRYABLE

BUCKET, JOB, POSITIONS = "chips", "cut_chips", 30


class Chips(JobStore):
    """A store with a prepared strip on its own grid, and a list of positions."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, BUCKET)
        self.values = texture(3, 700, 900, "uint8", 255)
        write_strip(root / "in/s.tif", self.values, Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "EPSG:32633")
        rng = np.random.default_rng(0)
        self.column, self.row = rng.uniform(0, 900, POSITIONS), rng.uniform(0, 700, POSITIONS)
        lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(
            5e5 + self.column / 2, 5e6 - self.row / 2
        )
        lines = [f"{n},{lat[n]!r},{lon[n]!r}" for n in range(POSITIONS)]
        self.client.put_object(Bucket=BUCKET, Key="list.csv", Body="\n".join(["id,lat,lon", *lines]).encode())
        strips = {"name": "s", "uri": str(root / "in"), "resolution_m": 0.5, "ranges": [[0, 255]]}
        outcome = self.driver.run("prepare_strips", {"strips": strips, "output": f"s3a://{BUCKET}/tables"}, "r")
        assert outcome.exit_code == EXIT_DONE, outcome.report["error"]

    def cut(self, output: str) -> Outcome:
        self.settle()
        columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
        uri = f"s3a://{BUCKET}/list.csv"
        config = {
            "name": "set",
            "positions": {"name": "list", "format": "csv", "uri": uri, "columns": columns},
            "rasters": {"root": f"s3a://{BUCKET}/tables", "strips": ["s"]},
            "views": [{"size_px": 100, "resolution_m": 0.5}],
            "output": f"s3a://{BUCKET}/{output}",
        }
        return self.driver.run(JOB, config, "r")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chips]:
    store = Chips(tmp_path_factory.mktemp("chips"))
    yield store
    store.close()


def reads_strips(request: Request) -> bool:
    return request.by_gdal and "/_strips/" in request.path


def test_a_storm_of_503_changes_no_chip(store: Chips) -> None:
    mark = len(store.server.requests)
    with store.server.refusing(503, reads_strips, times=2):
        outcome = store.cut("storm")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert sum(request.refused is not None for request in store.server.since(mark)) == 2
    rows = store.rows("storm/chips/chip_set=set/run_id=r")
    left, top = (np.round(v - 50).astype(int) for v in (store.column, store.row))
    whole = (left >= 0) & (left <= 800) & (top >= 0) & (top <= 600)
    assert np.flatnonzero(whole).tolist() == sorted(int(row["image_id"]) for row in rows if row["empty_share"] == 0)
    for row in rows:
        if row["empty_share"] == 0:
            n = int(row["image_id"])
            expected = store.values[:, top[n] : top[n] + 100, left[n] : left[n] + 100].transpose(1, 2, 0)
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(row["chip"]))), expected)


def test_a_store_that_stays_down_ends_the_run_with_nothing_done(store: Chips) -> None:
    with store.server.refusing(503, reads_strips):
        outcome = store.cut("down")
        store.settle()
    assert outcome.exit_code == EXIT_RETRYABLE, outcome.report["error"]
    assert not [key for key in store.keys("down/") if key.endswith(("/_SUCCESS", ".parquet"))]


def test_a_strip_that_was_replaced_on_the_store_gives_no_chip(store: Chips) -> None:
    (key,) = [key for key in store.keys("tables/_strips/") if key.endswith(".tif")]
    content = store.read(key)
    store.client.put_object(Bucket=BUCKET, Key=key, Body=content[: len(content) // 2])
    outcome = store.cut("replaced")
    assert outcome.exit_code == EXIT_BAD_INPUT and "'changed': " in outcome.report["error"]
    assert not [key for key in store.keys("replaced/") if key.endswith("/_SUCCESS")]
