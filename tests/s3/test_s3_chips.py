"""Chips of strips on S3: the same rows as from a local disk, through storms of 503s; nothing if they do not end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fabricated_strips import texture, write_strip
from job_client import Outcome
from pyproj import Transformer
from rasterio.transform import Affine
from s3_jobs import JobStore
from s3_server import Request

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_RETRYABLE

BUCKET, JOB, POSITIONS = "chips", "cut_chips", 30


class Chips(JobStore):
    """A store with a prepared strip and a list of positions, and the same on a local disk."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, BUCKET)
        place = Affine(0.5, 0, 5e5, 0, -0.5, 5e6), "EPSG:32633"
        write_strip(root / "in/s.tif", texture(3, 700, 900, "uint8", 255), *place)
        rng = np.random.default_rng(0)
        lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(
            5e5 + rng.uniform(0, 450, POSITIONS), 5e6 - rng.uniform(0, 350, POSITIONS)
        )
        lines = [f"{n},{lat[n]!r},{lon[n]!r}" for n in range(POSITIONS)]
        (root / "list.csv").write_text("\n".join(["id,lat,lon", *lines]))
        self.client.upload_file(str(root / "list.csv"), BUCKET, "list.csv")
        for output in (str(root / "tables"), f"s3a://{BUCKET}/tables"):
            strips = {"name": "s", "uri": str(root / "in"), "resolution_m": 0.5}
            outcome = self.driver.run("prepare_strips", {"strips": strips, "output": output}, "r")
            assert outcome.exit_code == EXIT_DONE, outcome.report["error"]

    def cut(self, root: str, output: str) -> Outcome:
        self.settle()
        columns = {"image_id": "id", "lat": "lat", "lon": "lon"}
        config = {
            "name": "set",
            "positions": {"name": "list", "format": "csv", "uri": f"{root}/list.csv", "columns": columns},
            "rasters": {"root": f"{root}/tables", "strips": ["s"]},
            "views": [{"size_px": 100, "resolution_m": 0.5}],
            "output": output,
        }
        return self.driver.run(JOB, config, "r")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chips]:
    store = Chips(tmp_path_factory.mktemp("chips"))
    yield store
    store.close()


def reads_strips(request: Request) -> bool:
    return request.by_gdal and "/_strips/" in request.path


def pictures(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    return {row["image_id"]: row["chip"] for row in rows}


def test_a_storm_of_503_changes_no_chip_and_a_store_that_stays_down_ends_the_run(store: Chips) -> None:
    outcome = store.cut(str(store.root), str(store.root / "out"))
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    local = pq.read_table(store.root / "out/chips/chip_set=set/run_id=r", partitioning=None).to_pylist()
    assert 10 < len(local) < POSITIONS
    mark = len(store.server.requests)
    with store.server.refusing(503, reads_strips, times=2):
        outcome = store.cut(f"s3a://{BUCKET}", f"s3a://{BUCKET}/storm")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert sum(request.refused is not None for request in store.server.since(mark)) == 2
    assert pictures(store.rows("storm/chips/chip_set=set/run_id=r")) == pictures(local)
    with store.server.refusing(503, reads_strips):
        outcome = store.cut(f"s3a://{BUCKET}", f"s3a://{BUCKET}/down")
        store.settle()
    assert outcome.exit_code == EXIT_RETRYABLE, outcome.report["error"]
    assert not [key for key in store.keys("down/") if key.endswith("/_SUCCESS")]
    outcome = store.cut(f"s3a://{BUCKET}", f"s3a://{BUCKET}/down")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert pictures(store.rows("down/chips/chip_set=set/run_id=r")) == pictures(local)


def test_a_strip_that_was_replaced_on_the_store_gives_no_chip(store: Chips) -> None:
    (key,) = [key for key in store.keys("tables/_strips/") if key.endswith(".tif")]
    content = store.read(key)
    store.client.put_object(Bucket=BUCKET, Key=key, Body=content[: len(content) // 2])
    outcome = store.cut(f"s3a://{BUCKET}", f"s3a://{BUCKET}/replaced")
    assert outcome.exit_code == EXIT_BAD_INPUT and "'changed': " in outcome.report["error"]
    assert not [key for key in store.keys("replaced/") if key.endswith("/_SUCCESS")]
