"""Chips and pairs on S3: they are the strip's pixels and the photos through storms of 503s.

Nothing is there if these do not end, and a rerun makes it good.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from committed import commit, image
from fabricated_strips import texture, write_strip
from job_client import Outcome
from PIL import Image
from pyproj import Transformer
from rasterio.transform import Affine
from s3_jobs import JobStore
from s3_server import Request

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_RETRYABLE
from geosieve.tables.schemas import IMAGES

BUCKET, POSITIONS = "chips", 30
ROOT = f"s3a://{BUCKET}"


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
        self.at = list(zip(lat, lon, strict=True))
        lines = [f"{n},{lat[n]!r},{lon[n]!r}" for n in range(POSITIONS)]
        self.client.put_object(Bucket=BUCKET, Key="list.csv", Body="\n".join(["id,lat,lon", *lines]).encode())
        strips = {"name": "s", "uri": str(root / "in"), "resolution_m": 0.5, "ranges": [[0, 255]]}
        outcome = self.driver.run("prepare_strips", {"strips": strips, "output": f"{ROOT}/tables"}, "r")
        assert outcome.exit_code == EXIT_DONE, outcome.report["error"]

    def cut(self, output: str) -> Outcome:
        self.settle()
        columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
        config = {
            "name": "set",
            "positions": {"name": "list", "format": "csv", "uri": f"{ROOT}/list.csv", "columns": columns},
            "rasters": {"root": f"{ROOT}/tables", "strips": ["s"]},
            "views": [{"size_px": 100, "resolution_m": 0.5}],
            "output": f"{ROOT}/{output}",
        }
        return self.driver.run("cut_chips", config, "r")

    def photograph(self) -> None:
        """Catalogue photos of the positions: number k is of the level 8 k."""
        photos = []
        for n in range(POSITIONS):
            file = io.BytesIO()
            Image.new("RGB", (60, 40), (8 * n,) * 3).save(file, "JPEG")
            self.client.put_object(Bucket=BUCKET, Key=f"photos/{n}.jpg", Body=file.getvalue())
            photos.append(image(str(n), *self.at[n], f"{ROOT}/photos/{n}.jpg", file.getvalue()))
        leaf = commit(self.root / "tables", IMAGES, {"source": "list", "run_id": "r"}, photos)
        for path in leaf.iterdir():
            self.client.upload_file(str(path), BUCKET, str(path.relative_to(self.root)))

    def pair(self, output: str) -> Outcome:
        """Pairs of the chips that the storm did not change."""
        self.settle()
        config = {
            "name": "set",
            "images": {"root": f"{ROOT}/tables"},
            "chips": {"root": f"{ROOT}/storm", "name": "set"},
            "licences": "any",
            "output": f"{ROOT}/{output}",
        }
        return self.driver.run("build_pairs", config, "r")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chips]:
    store = Chips(tmp_path_factory.mktemp("chips"))
    yield store
    store.close()


def reads_strips(request: Request) -> bool:
    return request.by_gdal and "/_strips/" in request.path


def reads_photos(request: Request) -> bool:
    return request.path.startswith(f"/{BUCKET}/photos/")


def reads_chips(request: Request) -> bool:
    return request.method == "GET" and "/chip_set" in request.path and request.path.endswith(".parquet")


def writes_pairs(request: Request) -> bool:
    return request.method in ("PUT", "POST") and "/pair_set" in request.path and request.path.endswith(".parquet")


@pytest.fixture(scope="module")
def chips(store: Chips) -> list[dict[str, Any]]:
    """Rows that were made through a storm."""
    mark = len(store.server.requests)
    with store.server.refusing(503, reads_strips, times=2):
        outcome = store.cut("storm")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert sum(request.refused is not None for request in store.server.since(mark)) == 2
    return store.rows("storm/chips/chip_set=set/run_id=r")


def test_a_storm_of_503_changes_no_chip(store: Chips, chips: list[dict[str, Any]]) -> None:
    left, top = (np.round(v - 50).astype(int) for v in (store.column, store.row))
    whole = (left >= 0) & (left <= 800) & (top >= 0) & (top <= 600)
    assert np.flatnonzero(whole).tolist() == sorted(int(row["image_id"]) for row in chips if row["empty_share"] == 0)
    for row in chips:
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


def test_storms_of_503_change_no_pair(store: Chips, chips: list[dict[str, Any]]) -> None:
    store.photograph()
    for down in (reads_photos, writes_pairs):
        with store.server.refusing(503, down):
            outcome = store.pair("rerun")
            store.settle()
        assert outcome.exit_code == EXIT_RETRYABLE, outcome.report["error"]
        assert not [key for key in store.keys("rerun/") if key.endswith(("/_SUCCESS", ".parquet"))]
    mark, kinds = len(store.server.requests), (reads_photos, reads_chips, writes_pairs)
    with (
        store.server.refusing(503, reads_photos, times=2),
        store.server.refusing(503, reads_chips, times=2),
        store.server.refusing(503, writes_pairs, times=1),
    ):
        outcome = store.pair("rerun")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    refused = [request for request in store.server.since(mark) if request.refused is not None]
    assert [sum(map(kind, refused)) for kind in kinds] == [2, 2, 1]
    pairs = store.rows("rerun/pairs/pair_set=set/run_id=r")
    assert {row["image_id"]: row["chip"] for row in pairs} == {row["image_id"]: row["chip"] for row in chips}
    for row in pairs:
        levels = np.asarray(Image.open(io.BytesIO(row["photo"])), float)
        assert levels.shape == (40, 60, 3) and np.abs(levels - 8 * int(row["image_id"])).max() <= 1


def test_a_strip_that_was_replaced_on_the_store_gives_no_chip(store: Chips) -> None:
    (key,) = [key for key in store.keys("tables/_strips/") if key.endswith(".tif")]
    content = store.read(key)
    store.client.put_object(Bucket=BUCKET, Key=key, Body=content[: len(content) // 2])
    outcome = store.cut("replaced")
    assert outcome.exit_code == EXIT_BAD_INPUT and "'changed': " in outcome.report["error"]
    assert not [key for key in store.keys("replaced/") if key.endswith("/_SUCCESS")]
