"""Strips on S3: the same files as on a local disk, through storms of 503s; nothing is half done if they do not end.

A strip is written to the byte alike wherever it lies, so its SHA-256 tells whether all of it arrived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated_strips import texture, write_strip
from job_client import Outcome
from rasterio.transform import Affine
from s3_jobs import JobStore
from s3_server import Request

from geosieve.runtime.errors import EXIT_DONE, EXIT_RETRYABLE

BUCKET, JOB = "overhead", "prepare_strips"
NAMES = ["a", "b"]


class Strips(JobStore):
    """A store with two strips, and one without a CRS, in the folder `in`."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, BUCKET)
        self.folder = root / "in"
        for seed, name in enumerate(NAMES):
            place = Affine(1, 0, 5e5 + 2000 * seed, 0, -1, 5e6), "EPSG:32633"
            write_strip(self.folder / f"{name}.tif", texture(3, 300, 700, seed=seed), *place)
        write_strip(self.folder / "bad.tif", texture(3, 40, 40), Affine(1, 0, 5e5, 0, -1, 5e6), None)
        for path in self.folder.iterdir():
            self.client.upload_file(str(path), BUCKET, f"in/{path.name}")

    def prepare(self, uri: str, output: str) -> Outcome:
        self.settle()
        config = {"strips": {"name": "s", "uri": uri, "resolution_m": 0.5}, "output": output}
        return self.driver.run(JOB, config, "r")

    def hashes(self, output: str) -> dict[str, str]:
        """SHA-256 of the files of strips in an output on S3, all that lie there, and equal to those of the rows."""
        found = {
            Path(key).name: hashlib.sha256(self.read(key)).hexdigest()
            for key in self.keys(f"{output}/_strips/")
            if not key.endswith("/")
        }
        rows = self.rows(f"{output}/strips/source=s/run_id=r")
        said = {row["uri"].removeprefix(f"s3a://{BUCKET}/"): row["content_sha256"] for row in rows}
        assert said == {f"{output}/_strips/s/r/{name}": digest for name, digest in found.items()}
        return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strips]:
    store = Strips(tmp_path_factory.mktemp("strips"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def local(store: Strips) -> dict[str, str]:
    """SHA-256 of the files of the same strips on a local disk, by their names."""
    output = store.root / "out"
    outcome = store.prepare(str(store.folder), str(output))
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert outcome.report["rejected"] == {"missing_crs": 1}
    files = [path for path in (output / "_strips").rglob("*") if path.is_file()]
    assert sorted(path.stem for path in files) == NAMES
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def reads_strips(request: Request) -> bool:
    return request.by_gdal and request.path.startswith(f"/{BUCKET}/in/")


def reads_tiles(request: Request) -> bool:
    return request.by_gdal and "/_tiles-" in request.path


def writes_tiles(request: Request) -> bool:
    return request.method in ("PUT", "POST") and "/_tiles-" in request.path and request.path.endswith(".tif")


def writes_strips(request: Request) -> bool:
    return request.method in ("PUT", "POST") and "/_strips/s/r/" in request.path and "/_tiles-" not in request.path


def test_a_storm_of_503_changes_no_byte(store: Strips, local: dict[str, str]) -> None:
    kinds = (reads_strips, reads_tiles, writes_tiles, writes_strips)
    mark = len(store.server.requests)
    with (
        store.server.refusing(503, reads_strips, times=2),
        store.server.refusing(503, reads_tiles, times=2),
        store.server.refusing(503, writes_tiles, times=1),
        store.server.refusing(503, writes_strips, times=1),
    ):
        outcome = store.prepare(f"s3a://{BUCKET}/in", f"s3a://{BUCKET}/storm")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    refused = [request for request in store.server.since(mark) if request.refused is not None]
    assert [sum(map(kind, refused)) for kind in kinds] == [2, 2, 1, 1]
    assert store.hashes("storm") == local
    assert not store.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


@pytest.mark.parametrize(("output", "down"), [("unread", reads_strips), ("unwritten", writes_strips)])
def test_a_store_that_stays_down_ends_the_run_and_a_rerun_makes_it_good(
    store: Strips, local: dict[str, str], output: str, down: Callable[[Request], Any]
) -> None:
    with store.server.refusing(503, down):
        outcome = store.prepare(f"s3a://{BUCKET}/in", f"s3a://{BUCKET}/{output}")
        store.settle()
    assert outcome.exit_code == EXIT_RETRYABLE, outcome.report["error"]
    keys = store.keys(f"{output}/")
    assert not [key for key in keys if key.endswith("/_SUCCESS") or ("/_strips/" in key and key.endswith(".tif"))]
    again = store.prepare(f"s3a://{BUCKET}/in", f"s3a://{BUCKET}/{output}")
    assert again.exit_code == EXIT_DONE, again.report["error"]
    assert store.hashes(output) == local
