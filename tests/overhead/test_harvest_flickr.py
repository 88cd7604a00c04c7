"""The job from a box to a table of photos with their files, and from there to `images`. Photos are SYNTHETIC."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from photo_servers import API, BOX, CONFIG, KEY, OPEN, Service, city, serving, to_harvest
from pyspark.sql import SparkSession
from workspace import JOBS, Report, Workspace

from geosieve.overhead import harvest, searching
from geosieve.overhead.flickr import FlickrConfig, flickr_job
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO, EXIT_RETRYABLE

CONF = Path(__file__).parents[2] / "conf"
SMALL = {**CONFIG, "photos_per_query": 250, "requests_per_hour": 3600}


@dataclass
class World(Workspace):
    """A service, and the job that asks it."""

    root: Path
    service: Service = field(default_factory=lambda: Service(city(900, 21)))

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def harvest(self, *options: str, run_id: str = "r1", **changes: Any) -> Report:
        with serving(self.service) as web:
            job = (FlickrConfig, flickr_job(web, API, sleep=lambda seconds: None))
            self.jobs = {**JOBS, "harvest_flickr": job}
            return self.run("harvest_flickr", {**SMALL, **changes}, run_id, *options)

    def table(self, name: str, values: str, run_id: str = "r1") -> pd.DataFrame:
        return pq.read_table(self.tables / name / values / f"run_id={run_id}", partitioning=None).to_pandas()

    def photos(self, run_id: str = "r1") -> pd.DataFrame:
        frame = self.table("harvested_photos", "source=city", run_id)
        return frame.sort_values("image_id", ignore_index=True)

    def rejects(self, run_id: str = "r1") -> pd.DataFrame:
        frame = self.table("rejects", "job=harvest_flickr/part=city", run_id)
        return frame.sort_values(["id", "error_class"], ignore_index=True)

    def files(self, run_id: str = "r1") -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.tables / "_photos/city" / run_id).glob("[!.]*")}

    def wanted(self) -> pd.DataFrame:
        return to_harvest(self.service.photos).assign(id=lambda frame: frame["id"].astype(str))


@pytest.fixture(scope="module", autouse=True)
def key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLICKR_API_KEY", KEY)
        yield


@pytest.fixture
def world(tmp_path: Path, spark: SparkSession) -> World:
    return World(tmp_path)


@dataclass
class Whole:
    """A world some of whose files are spoilt, its undisturbed harvest `r1`, and what that has printed and asked."""

    world: World
    spoilt: dict[str, str]
    report: dict[str, Any]
    printed: str
    asked: int
    files: Counter[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Whole:
    world, errors = World(tmp_path_factory.mktemp("whole")), io.StringIO()
    spoilt = spoil_files(world)
    with redirect_stderr(errors):
        code, report = world.harvest()
    assert code == EXIT_DONE, report["error"]
    service = world.service
    return Whole(world, spoilt, report, errors.getvalue() + world.printed, len(service.asked), service.files.copy())


def spoil_files(world: World) -> dict[str, str]:
    """Gives some files odd answers; returns the error classes by id."""
    good = (200, {}, b"\xff\xd8\xff\xe0 cut")
    odd = {
        "gone": (404, {}, b""),
        "gone ": (302, {"Location": "http://live.photos.test/images/photo_unavailable.png"}, b""),
        "refused_url": (302, {"Location": "http://127.0.0.1/x.jpg"}, b""),
        "encoded": (200, {"Content-Encoding": "gzip"}, b"x"),
        "server_error": (503, {}, b""),
        "throttled": (429, {"Retry-After": "1"}, b""),
        "truncated": (200, {"Content-Length": "99"}, b"\xff\xd8\xff"),
        "too_large": (200, {"Content-Length": str(1 << 40)}, b""),
        "not_an_image": (200, {}, b"<html>sorry</html>"),
        "unreadable_header": good,
    }
    ids = world.wanted()["id"].iloc[5:].iloc[:: len(world.wanted()) // 11].iloc[: len(odd)]
    world.service.odd_files = {f"{number}_abc.jpg": reply for number, reply in zip(ids, odd.values(), strict=True)}
    world.service.odd_files["photo_unavailable.png"] = (200, {}, b"\xff\xd8\xff")
    return {number: kind.strip() for number, kind in zip(ids, odd, strict=True)}


def test_photos_and_rejects_are_what_the_service_has(whole: Whole) -> None:
    world, spoilt, report = whole.world, whole.spoilt, whole.report
    wanted, photos, rejects = world.wanted(), world.photos(), world.rejects()
    assert sorted(photos["image_id"]) == sorted(set(wanted["id"]) - set(spoilt))
    classes = dict(zip(rejects["id"], rejects["error_class"], strict=True))
    assert {**spoilt, **{n: k for n, k in classes.items() if spoilt[n] == "unreadable_header"}} == classes
    assert classes.keys() == spoilt.keys()
    assert report["rows_in"] == len(wanted) == report["rows_out"] + sum(report["rejected"].values())
    row, truth = photos.iloc[0], wanted.set_index("id").loc[photos["image_id"][0]]
    assert (row.lat, row.lon) == (truth.lat / 1e6, truth.lon / 1e6)
    assert row.author == f"{truth.owner}@N00" and row.author_name == f"name {truth.owner}"
    assert row.licence == OPEN[truth.license]
    assert str(row.captured_at) == "2015-06-01 12:30:00+00:00"
    assert row.uploaded_at.timestamp() == truth.uploaded
    assert row.page == f"https://www.flickr.com/photos/{truth.owner}@N00/{row.image_id}"
    files = world.files()
    assert {name: hashlib.sha256(body).hexdigest() for name, body in files.items()} == {
        f"{row.image_id}.jpg": row.content_sha256 for row in photos.itertuples()
    }
    assert report["details"]["requests"] == whole.asked
    # What was refused for good was asked for once, what may pass several times.
    asked = {spoilt[number]: whole.files[f"{number}_abc.jpg"] for number in spoilt}
    assert {kind for kind, times in asked.items() if times > 1} == {"server_error", "throttled", "truncated"}
    written = b"".join(path.read_bytes() for path in world.root.rglob("*") if path.is_file())
    assert KEY.encode() not in written and KEY not in whole.printed
    assert "box " in whole.printed and '"rows_in"' in whole.printed  # logs and the report were looked at
    assert world.harvest()[0] == EXIT_NOTHING_TO_DO


def test_ingest_images_makes_rows_of_the_harvest(whole: Whole) -> None:
    world = whole.world
    config = yaml.safe_load((CONF / "ingest_images/harvest.yaml").read_text())
    source = config["source"]
    for part in (source, source["files"]):
        uri = part["uri"].replace("tables", str(world.tables), 1).replace("flickr_vienna", "city")
        part["uri"] = uri.replace("=vienna", "=r1").replace("/vienna", "/r1")
    code, report = world.run("ingest_images", {"source": {**source, "name": "city"}})
    assert code == EXIT_DONE, report["error"]
    assert report["rejected"] == {} and report["warnings"] == []
    images = world.table("images", "source=city").sort_values("image_id", ignore_index=True)
    photos = world.photos()
    for name in ("image_id", "lat", "lon", "author", "licence", "captured_at", "content_sha256"):
        assert images[name].equals(photos[name]), name
    assert set(images["width"]) == {50} and images["uri"].str.endswith(".jpg").all()


@pytest.mark.parametrize("after", [1, 2, 5, 100, 300])
def test_a_harvest_that_was_killed_goes_on_and_ends_like_another(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    world, run_id = whole.world, f"after{after}"
    world.service.asked.clear()
    world.service.files.clear()
    left, lock = [after], threading.Lock()

    def killed(uri: str, content: bytes) -> None:
        with lock:
            left[0] -= 1
            if left[0] < 0:
                raise SystemError("killed")
        write_file(uri, content)

    write_file = searching.write_file
    with monkeypatch.context() as patch:
        for module in (searching, harvest):
            patch.setattr(module, "write_file", killed)
        code, _ = world.harvest(run_id=run_id)
        assert code not in (EXIT_DONE, EXIT_NOTHING_TO_DO) and left[0] < 0
    assert not (world.tables / f"harvested_photos/source=city/run_id={run_id}/_SUCCESS").exists()
    assert world.harvest(run_id=run_id)[0] == EXIT_DONE
    assert world.photos(run_id).equals(world.photos()) and world.rejects(run_id).equals(world.rejects())
    assert world.files(run_id) == world.files()
    # One answer and one chunk at most are fetched anew, and the licences.
    assert len(world.service.asked) <= whole.asked + 2
    again = sum(world.service.files.values()) - sum(whole.files.values())
    assert again <= 250 + 20


def test_a_network_that_is_down_ends_the_run_until_it_is_started_again(world: World) -> None:
    names = [f"{number}_abc.jpg" for number in world.wanted()["id"]]
    world.service.odd_files = {name: (503, {}, b"") for name in names}
    code, report = world.harvest()
    assert code == EXIT_RETRYABLE and "20 photos in a row" in report["error"]
    world.service.odd_files = {}
    world.service.failures = [(503, {}, b"")] * 5
    assert world.harvest()[0] == EXIT_RETRYABLE
    assert world.harvest()[0] == EXIT_DONE
    assert len(world.photos()) == len(names) and world.rejects().empty


def test_what_cannot_be_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    code, report = world.harvest(run_id="empty", boxes=[{"south": 1, "west": 1, "north": 2, "east": 2}])
    assert code == EXIT_BAD_INPUT and "no such photo" in report["error"]
    code, report = world.harvest(run_id="empty")
    assert code == EXIT_BAD_CONFIG and "another configuration" in report["error"]
    code, report = world.harvest(licences=["cc-by-nc-2.0"])
    assert code == EXIT_BAD_CONFIG and "licences" in report["error"]
    code, report = world.harvest(boxes=[BOX, {**BOX, "south": 48.2}])
    assert code == EXIT_BAD_CONFIG and "overlap" in report["error"]
    code, report = world.harvest(uploaded={"since": "2999-01-01", "before": "2999-01-02"})
    assert code == EXIT_BAD_CONFIG and "not come yet" in report["error"]
    monkeypatch.setenv("FLICKR_API_KEY", "of-nobody")
    code, report = world.harvest()
    assert code == EXIT_BAD_CONFIG and "does not know the key" in report["error"]
    assert "of-nobody" not in json.dumps(report)
    monkeypatch.delenv("FLICKR_API_KEY")
    code, report = world.harvest()
    assert code == EXIT_BAD_CONFIG and "export FLICKR_API_KEY" in report["error"]


def test_a_dry_run_asks_for_nothing_and_writes_nothing(world: World) -> None:
    code, report = world.harvest("--dry-run", "--verbose")
    assert code == EXIT_DONE and report["status"] == "dry_run"
    assert report["details"]["inputs"]["key"] == "FLICKR_API_KEY is set"
    assert not world.service.asked and not world.tables.exists()
    assert KEY not in world.printed
