"""Jobs on an S3 store: rasters through GDAL's /vsis3/, tables through S3A and its magic committer; and its moods."""

from __future__ import annotations

import io
import json
import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from fabricated_archives import tar_of, zip_of
from fabricated_images import GPS, image
from fabricated_world import (
    COLLECTIONS,
    PARTITIONS,
    catalog_config,
    ingest_config,
    label_config,
    make_files,
    rows_fingerprint,
    run_fingerprint,
)
from job_client import JobServer, Outcome
from s3_jobs import ENVIRONMENT, SECRET, JobStore
from s3_server import Request

BUCKET = "world"
FILES, TABLES = f"s3a://{BUCKET}/files", f"s3a://{BUCKET}/tables"
IMAGES = 1_000

# GDAL keeps what it has read as long as its process lives; here every run must ask the server.
UNCACHED = {"CPL_VSIL_CURL_NON_CACHED": f"/vsis3/{BUCKET}/files"}


class Store(JobStore):
    """A store with the fabricated world in it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, BUCKET, UNCACHED)
        make_files(root / "files", IMAGES)
        for path in (root / "files").rglob("*.*"):
            self.client.upload_file(str(path), BUCKET, f"files/{path.relative_to(root / 'files')}")

    def label_rows(self, run_id: str) -> str:
        leaf = f"tables/labels/run_id={run_id}"
        return rows_fingerprint(self.rows(leaf))

    def label(self, run_id: str) -> tuple[Outcome, list[Request], float]:
        """A labelling run on the store, the requests that it made, and its seconds."""
        self.settle()
        mark, start = len(self.server.requests), time.monotonic()
        outcome = self.driver.run("label_attributes", label_config(TABLES, TABLES, _partitions(FILES)), run_id)
        return outcome, self.server.requests[mark:], time.monotonic() - start


def _partitions(files: str) -> list[Any]:
    countries = {"kind": "polygons", "name": "country", "uri": f"{files}/countries.geojson", "name_column": "name"}
    return [*PARTITIONS, countries]


def _all_jobs(driver: JobServer, files: str, tables: str) -> Outcome:
    assert driver.run("ingest_images", ingest_config(files, tables), "r").exit_code == 0
    for collection in COLLECTIONS:
        assert driver.run("catalog_rasters", catalog_config(files, tables, collection), "r").exit_code == 0
    outcome = driver.run("label_attributes", label_config(tables, tables, _partitions(files)), "r")
    assert outcome.exit_code == 0
    return outcome


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    store = Store(tmp_path_factory.mktemp("s3"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def on_s3(store: Store) -> tuple[Outcome, list[Request]]:
    """The jobs' outcome on the store, and every request that they made."""
    mark = len(store.server.requests)
    outcome = _all_jobs(store.driver, FILES, TABLES)
    return outcome, store.server.requests[mark:]


def _written(requests: list[Request]) -> list[Request]:
    return [r for r in requests if r.method in ("PUT", "POST", "DELETE") and not r.by_gdal]


def test_rows_on_s3_equal_rows_on_a_local_disk(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    local = _all_jobs(store.driver, str(store.root / "files"), str(store.root / "tables"))
    assert store.label_rows("r") == run_fingerprint(store.root / "tables", "r")
    # A map is the same map wherever its files lie, so its hash is too.
    assert on_s3[0].report["details"]["partitions"] == local.report["details"]["partitions"]
    assert local.report["details"]["partitions"]["country"]["labelled"] > 0


def test_geoparquet_is_read_through_the_store_of_the_tables(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    """The square of countries.geojson: the same regions and labels, by Hadoop's client and its settings alone."""
    square = shapely.to_wkb(shapely.box(5, 40, 15, 55))
    geo = {"version": "1.1.0", "primary_column": "shape", "columns": {"shape": {"encoding": "WKB"}}}
    table = pa.table({"name": ["Squareland"], "shape": [square]}).replace_schema_metadata({"geo": json.dumps(geo)})
    file = io.BytesIO()
    pq.write_table(table, file)
    key = "files/land [1] {a}.parquet"
    store.client.put_object(Bucket=BUCKET, Key=key, Body=file.getvalue())
    partition = {"kind": "polygons", "name": "country", "uri": f"s3a://{BUCKET}/{key}", "name_column": "name"}
    mark = len(store.server.requests)
    outcome = store.driver.run(
        "label_attributes", label_config(TABLES, f"s3a://{BUCKET}/geoparquet", [partition]), "geoparquet"
    )
    assert outcome.exit_code == 0, outcome.report["error"]
    of_geojson = on_s3[0].report["details"]["partitions"]["country"]
    assert outcome.report["details"]["partitions"]["country"] == of_geojson
    asked = [r for r in store.server.requests[mark:] if r.path.endswith("a}.parquet")]
    assert asked and all("Hadoop" in r.agent for r in asked)


def test_archives_are_read_by_ranges_and_hardly_more_than_once(store: Store) -> None:
    """A zip and a tar of 200 photographs of some 30 kB, one after the other."""
    noise = random.Random(0)
    photos = {f"d/{number}.jpg": image(gps=GPS) + noise.randbytes(30_000) for number in range(200)}
    archives = {"a.zip": zip_of(photos), "b.tar": tar_of(photos)}
    for name, content in archives.items():
        store.client.put_object(Bucket=BUCKET, Key=f"archives/{name}", Body=content)
    source = {"name": "scans", "uri": f"s3a://{BUCKET}/archives", "format": "photos"}
    mark = len(store.server.requests)
    outcome = store.driver.run("ingest_images", {"source": source, "output": f"s3a://{BUCKET}/archived"}, "archives")
    assert outcome.exit_code == 0, outcome.report["error"]
    assert (outcome.report["rows_out"], outcome.report["rejected"]) == (2 * len(photos), {})
    leaf = "archived/images/source=scans/run_id=archives"
    for row in store.rows(leaf):
        stored = archives[row["uri"].rpartition("/")[2]]
        assert stored[row["offset"] :][: row["length"]] == photos[row["member"]]
    for name, content in archives.items():
        asked = [r for r in store.server.requests[mark:] if r.path.endswith(name) and r.method == "GET"]
        assert sum(r.bytes for r in asked) <= 1.2 * len(content)
        if name == "a.zip":  # one request a member, and the directory's
            assert len(asked) <= len(photos) + 5


def test_pixels_are_read_by_ranges_and_nothing_is_listed_for_it(on_s3: tuple[Outcome, list[Request]]) -> None:
    gdal = [request for request in on_s3[1] if request.by_gdal]
    assert {r.path for r in gdal if r.path.endswith(".tif")} == {
        f"/{BUCKET}/files/climate/global.tif",
        f"/{BUCKET}/files/population/utm32.tif",
        f"/{BUCKET}/files/population/utm33.tif",
    }
    assert not [r for r in gdal if r.path.endswith(".tif") and r.method != "GET"]
    assert not [r for r in gdal if "aux.xml" in r.path or r.path.endswith((".ovr", ".msk", ".tfw"))]


def test_masks_and_metadata_beside_rasters_are_reported_from_one_listing(store: Store) -> None:
    for name in ("a.tif", "b.tif", "c.tif"):
        store.client.upload_file(str(store.root / "files/climate/global.tif"), BUCKET, f"beside/{name}")
    for name in ("a.tif.msk", "b.tif.aux.xml", "c.tfw", "d.tif.msk"):  # c has its own georeference, d is not there
        store.client.put_object(Bucket=BUCKET, Key=f"beside/{name}", Body=b"x")
    output = f"s3a://{BUCKET}/tables_of_its_own"  # other tests count what lies in TABLES
    config = {"rasters": {"collection": "beside", "uri": f"s3a://{BUCKET}/beside"}, "output": output}
    mark = len(store.server.requests)
    outcome = store.driver.run("catalog_rasters", config, "r")
    assert outcome.exit_code == 0, outcome.report["error"]
    (warning,) = [text for text in outcome.report["warnings"] if "beside rasters" in text]
    assert "2 files" in warning and f"s3a://{BUCKET}/beside/a.tif.msk" in warning
    asked = store.server.requests[mark:]
    assert not [r for r in asked if r.path.endswith((".msk", ".aux.xml", ".tfw"))]
    listed = [r for r in asked if "prefix=beside" in r.query]
    assert len(listed) <= 6  # however many files there are


def test_tables_are_committed_by_the_magic_committer(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    written = _written(on_s3[1])
    (leaf,) = {key.rpartition("/")[0] for key in store.keys("tables/labels/") if key.endswith("_SUCCESS")}
    magic = [r for r in written if f"{leaf}/__magic" in r.path]
    assert any(r.method == "PUT" and r.path.endswith(".pending") for r in magic)
    parts = [entry["name"] for entry in store.manifest(leaf)["files"]]
    assert parts
    for name in parts:
        # The bytes went where they stay: an upload that the job's commit completed, and no object was copied.
        posts = [r.query for r in written if r.method == "POST" and r.path == f"/{BUCKET}/{leaf}/{name}"]
        assert any(query.startswith("uploads") for query in posts)
        assert any(query.startswith("uploadId=") for query in posts)
    assert not [r for r in on_s3[1] if r.copy_source]


def test_a_committed_leaf_holds_what_its_manifest_lists_and_nothing_is_left_over(
    store: Store, on_s3: tuple[Outcome, list[Request]]
) -> None:
    markers = [key for key in store.keys("tables/") if key.endswith("/_SUCCESS")]
    assert len(markers) == 2 + 2 * len(COLLECTIONS) + 4
    for marker in markers:
        leaf = marker.rpartition("/")[0]
        names = {key.removeprefix(f"{leaf}/") for key in store.keys(f"{leaf}/")}
        data = {name for name in names if not name.startswith("_")}
        assert data == {entry["name"] for entry in store.manifest(leaf)["files"]}
        attempt = {"_attempts/000001.claim", "_attempts/000001.commit"}
        assert names - data <= {"_SUCCESS", "_config.json", "_report.json"} | attempt
    assert not [key for key in store.keys("tables/") if "__magic" in key or "_temporary" in key]
    assert not store.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_rerun_of_a_committed_run_writes_nothing(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    outcome, requests, _ = store.label("r")
    assert (outcome.exit_code, outcome.report["status"]) == (99, "nothing_to_do")
    assert _written(requests) == []


def test_what_a_killed_driver_left_is_gone_after_a_rerun(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    # Pending commits and a finished part from before; an upload that was never completed costs money for ever.
    leaf = "tables/labels/run_id=again"
    job = f"{leaf}/__magic/job-1"
    for key in (f"{job}/task-0/part-00000-old.parquet.pending", f"{job}.pendingset", f"{leaf}/part-00000-old.parquet"):
        store.client.put_object(Bucket=BUCKET, Key=key, Body=b"old")
    store.client.create_multipart_upload(Bucket=BUCKET, Key=f"{leaf}/part-00001-old.parquet")
    outcome, _, _ = store.label("again")
    assert outcome.exit_code == 0
    assert not [key for key in store.keys(leaf) if "__magic" in key or "old" in key]
    uploads = store.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert not [upload["Key"] for upload in uploads if upload["Key"].startswith(leaf)]
    assert store.label_rows("again") == store.label_rows("r")


def test_a_storm_of_503_passes(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    with (
        store.server.refusing(503, _reads_tables, times=2),
        store.server.refusing(503, _writes_parts, times=2),
        store.server.refusing(503, _reads_pixels, times=4),
    ):
        outcome, requests, _ = store.label("storm")
    refused = [request for request in requests if request.refused]
    assert [sum(map(kind, refused)) for kind in (_reads_tables, _writes_parts, _reads_pixels)] == [2, 2, 4]
    assert outcome.exit_code == 0
    assert store.label_rows("storm") == store.label_rows("r")


def _reads_tables(request: Request) -> bool:
    return not request.by_gdal and request.method in ("GET", "HEAD") and "/tables/" in request.path


def _writes_parts(request: Request) -> bool:
    return not request.by_gdal and request.method in ("PUT", "POST") and "/part-" in request.path


def _reads_pixels(request: Request) -> bool:
    return request.by_gdal and request.path.endswith(".tif")


def _reads_blocks() -> Callable[[Request], bool]:
    """Every read of a raster but the first of its file, which opens it."""
    seen: set[str] = set()

    def applies(request: Request) -> bool:
        if not _reads_pixels(request):
            return False
        opened = request.path in seen
        seen.add(request.path)
        return opened

    return applies


@pytest.mark.parametrize(
    ("name", "applies"),
    [
        ("opening rasters", _reads_pixels),
        ("reading blocks", _reads_blocks()),
        ("reading polygons", lambda r: r.by_gdal and r.path.endswith(".geojson")),
        ("reading tables", _reads_tables),
        ("writing tables", _writes_parts),
    ],
)
def test_a_store_that_stays_throttled_is_given_up_in_bounded_time(
    store: Store, on_s3: tuple[Outcome, list[Request]], name: str, applies: Callable[[Request], bool]
) -> None:
    run_id = name.replace(" ", "-")
    with store.server.refusing(503, applies):
        outcome, requests, seconds = store.label(run_id)
    assert outcome.exit_code == 75, outcome.report["error"]
    assert "retry budget" in outcome.report["error"]
    refused = [request for request in requests if request.refused]
    assert 2 <= len(refused) < 200
    assert seconds < 60
    assert not [key for key in store.keys("tables/") if key.endswith(f"run_id={run_id}/_SUCCESS")]


def test_a_throttled_raster_is_not_taken_for_a_bad_one(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    with store.server.refusing(503, lambda r: _reads_pixels(r) and "utm33" in r.path):
        outcome = store.driver.run("catalog_rasters", catalog_config(FILES, TABLES, "population"), "throttled")
    assert outcome.exit_code == 75
    assert f"{FILES}/population/utm33.tif" in outcome.report["error"]
    assert not [key for key in store.keys("tables/") if key.endswith("run_id=throttled/_SUCCESS")]


@pytest.mark.parametrize(
    ("status", "asked", "exit_code"),
    [(403, 1, 65), (404, 1, 65), (503, 1 + int(ENVIRONMENT["GDAL_HTTP_MAX_RETRY"]), 75)],
)
def test_only_a_throttled_raster_is_asked_for_again(store: Store, status: int, asked: int, exit_code: int) -> None:
    # One file that no process has seen, in one task, and outside of the folder that GDAL must not remember: there it
    # asks once to find a file and once more to open it. 503 shows that the same count sees a repetition.
    key = f"fresh/{status}.tif"
    store.client.upload_file(str(store.root / "files/climate/global.tif"), BUCKET, key)
    config = {"rasters": {"collection": f"fresh{status}", "uri": f"s3a://{BUCKET}/{key}"}, "output": TABLES}
    mark = len(store.server.requests)
    with store.server.refusing(status, lambda r: r.by_gdal and r.path == f"/{BUCKET}/{key}"):
        outcome = store.driver.run("catalog_rasters", config, "r")
    assert len([request for request in store.server.requests[mark:] if request.refused]) == asked
    assert outcome.exit_code == exit_code
    assert f"s3a://{BUCKET}/{key}" in outcome.report["error"]


@pytest.mark.parametrize("status", [403, 404])
def test_a_map_that_is_refused_or_gone_ends_the_run_with_its_name(
    store: Store, on_s3: tuple[Outcome, list[Request]], status: int
) -> None:
    target = f"/{BUCKET}/files/climate/global.tif"
    with store.server.refusing(status, lambda r: r.by_gdal and r.path == target):
        outcome, _, _ = store.label(f"pixels-{status}")
    assert outcome.exit_code == 65
    assert f"{FILES}/climate/global.tif" in outcome.report["error"]
    assert not [key for key in store.keys("tables/") if key.endswith(f"run_id=pixels-{status}/_SUCCESS")]


def test_refused_tables_are_not_asked_for_again(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    leaf = f"{BUCKET}/tables/labels/run_id=refused"
    with store.server.refusing(403, lambda r: r.path.startswith(f"/{leaf}")):
        outcome, requests, _ = store.label("refused")
    refused = [(r.method, r.path, r.query) for r in requests if r.refused]
    assert outcome.exit_code == 65
    assert "refuses access (403)" in outcome.report["error"]
    assert f"s3a://{leaf}" in outcome.report["error"]
    assert len(refused) == len(set(refused)) > 0


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (f"s3a://{BUCKET}/no/such/file.tif", "no raster file"),
        ("s3a://no-such-bucket/maps", "no such file or bucket"),
    ],
)
def test_what_is_not_there_is_named_and_not_asked_for_again(store: Store, where: str, says: str) -> None:
    config = {"rasters": {"collection": "nowhere", "uri": where}, "output": TABLES}
    mark = len(store.server.requests)
    outcome = store.driver.run("catalog_rasters", config, "r")
    # Of what is not there: the claim of the run, and tasks of an earlier one, write to the tables meanwhile.
    asked = [(r.method, r.path, r.query) for r in store.server.requests[mark:] if "such" in r.path + r.query]
    assert outcome.exit_code == 65
    assert says in outcome.report["error"]
    assert where.removesuffix("/maps") in outcome.report["error"]
    assert len(asked) == len(set(asked)) > 0


def test_no_secret_is_printed_logged_or_stored(store: Store, on_s3: tuple[Outcome, list[Request]]) -> None:
    signed = "https://store.example/map.tif?X-Amz-Credential=AKIA123&X-Amz-Signature=deadbeef0123"
    config = {"rasters": {"collection": "signed", "uri": signed}, "output": TABLES}
    outcome = store.driver.run("catalog_rasters", config, "r")
    assert outcome.exit_code != 0
    texts = [outcome.printed, on_s3[0].printed, store.driver.log.read_text(errors="replace")]
    texts += [store.read(key).decode("latin-1") for key in store.keys("tables/")]
    for text in texts:
        for secret in (SECRET, "deadbeef0123", "AKIA123"):
            assert secret not in text


def test_of_two_attempts_on_s3_one_wins_and_the_other_may_be_tried_again(
    store: Store, on_s3: tuple[Outcome, list[Request]], tmp_path: Path
) -> None:
    """The earlier one's tasks wait while the later one does its whole work in the same folders."""
    held = {"kind": "held", "name": "hemisphere", "uri": str(tmp_path)}
    config = label_config(TABLES, TABLES, [*PARTITIONS, held])
    other = JobServer(tmp_path / "server", "local[2]", store.settings, store.environment)
    try:
        (tmp_path / "hold").touch()
        other.start("label_attributes", config, "race")
        end = time.monotonic() + 120
        while not list(tmp_path.glob("entered-*")) and time.monotonic() < end:
            time.sleep(0.05)
        for entered in tmp_path.glob("entered-*"):
            entered.unlink()
        store.driver.start("label_attributes", config, "race")
        while not list(tmp_path.glob("entered-*")) and time.monotonic() < end:
            time.sleep(0.05)
        (tmp_path / "hold").unlink()  # both write now
        later, earlier = store.driver.finish(), other.finish()
    finally:
        other.close()
    assert (later.exit_code, earlier.exit_code) == (0, 75), (later.report["error"], earlier.report["error"])
    assert store.label_rows("race")
    leaf = "tables/labels/run_id=race"
    data = {key.removeprefix(f"{leaf}/") for key in store.keys(f"{leaf}/") if "/part-" in key}
    assert data == {entry["name"] for entry in store.manifest(leaf)["files"]}
    assert not [key for key in store.keys(leaf) if "__magic" in key]
    # Tasks of other runs that were given up may still be uploading.
    uploads = store.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert not [upload["Key"] for upload in uploads if "/run_id=race/" in upload["Key"]]
