"""Scans of an archive on S3: while the store fails, while credentials expire, while the archive grows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import colour_predictors
import pytest
from colour_predictors import told
from fabricated_archives import zip_of
from job_client import Outcome
from s3_jobs import KEY_ID, SECRET, JobStore
from s3_server import Request
from small_scans import COLOURS, Colour, member, overlay_config, packed, picture

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO, EXIT_RETRYABLE

BUCKET, JOB = "archive", "geolocate_archive"
LEAVES = {
    **{name: "ranking=scan" for name in ("scanned_files", "predictions", "ranked_regions", "image_summary")},
    "images": "source=archive",
    "rejects": f"job={JOB}/part=scan",
}

Tables = dict[str, list[dict[str, Any]]]
"""Sorted rows by the names of tables."""


def wait_for_entry(folder: Path) -> None:
    """Until a predictor has been asked, and waits."""
    end = time.monotonic() + 120
    while not list(folder.glob("entered-*")):
        assert time.monotonic() < end
        time.sleep(0.05)


class Scans(JobStore):
    """A store with an overlay, and the archive of `packed` in the folder `photos`."""

    def __init__(self, root: Path) -> None:
        places = [str(Path(colour_predictors.__file__).parent), os.environ.get("PYTHONPATH", "")]
        super().__init__(root, BUCKET, {"PYTHONPATH": os.pathsep.join(places)})
        world = overlay_config(root, f"s3a://{BUCKET}/world")
        outcome = self.driver.run("build_overlay", {**world, "output": f"s3a://{BUCKET}/world"}, "o")
        assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
        self.hashes = outcome.report["details"]["partitions"]
        self.colours = self.fill("photos")

    def fill(self, folder: str) -> dict[str, Colour]:
        files, colours = packed()
        for name, content in files.items():
            self.put(f"{folder}/{name}", content)
        return colours

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def config(self, output: str, photos: str = "photos", **options: Any) -> dict[str, Any]:
        """Of a scan that writes three parts. `options`: of both predictors."""
        members = {"b": ("bands", 0), "s": ("sides", 1)}
        return {
            "name": "scan",
            "source": {"name": "archive", "format": "photos", "uri": f"s3a://{BUCKET}/{photos}"},
            "overlay": {"root": f"s3a://{BUCKET}/world", "name": "world"},
            "members": {name: member(self.hashes, *of, **options) for name, of in members.items()},
            "batch": 4,
            "images_per_part": 4,
            "output": f"s3a://{BUCKET}/{output}",
        }

    def scan(self, output: str, run_id: str = "r", photos: str = "photos", **options: Any) -> Outcome:
        self.settle()
        return self.driver.run(JOB, self.config(output, photos, **options), run_id)

    def committed(self, output: str) -> list[str]:
        return [key for key in self.keys(f"{output}/") if key.endswith("/_SUCCESS")]

    def locks(self, output: str) -> list[str]:
        return [key for key in self.keys(f"{output}/_locks/") if not key.endswith("/")]

    def tables(self, output: str, run_id: str = "r") -> Tables:
        found = {name: self.rows(f"{output}/{name}/{values}/run_id={run_id}") for name, values in LEAVES.items()}
        return {name: sorted(rows, key=repr) for name, rows in found.items()}

    def ids(self, output: str, run_id: str) -> list[str]:
        """The images that a run has answered."""
        return sorted(row["image_id"] for row in self.tables(output, run_id)["image_summary"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scans]:
    store = Scans(tmp_path_factory.mktemp("scans"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def undisturbed(store: Scans) -> Tables:
    outcome = store.scan("quiet")
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert outcome.report["rows_in"] == outcome.report["rows_out"] == len(store.colours)
    return store.tables("quiet")


def by_workers(request: Request) -> bool:
    return request.method in ("GET", "HEAD") and request.path.startswith(f"/{BUCKET}/photos/")


def of_tables(request: Request) -> bool:
    return request.method in ("GET", "HEAD") and "/storm/" in request.path and not of_lock(request)


def writes_rows(request: Request) -> bool:
    return request.method in ("PUT", "POST") and "/storm/" in request.path and "/part-" in request.path


def of_lock(request: Request) -> bool:
    return "/storm/_locks/" in request.path


def test_every_picture_is_answered_by_its_colour(store: Scans, undisturbed: Tables) -> None:
    assert {row["image_id"] for row in undisturbed["image_summary"]} == set(store.colours)
    for row in undisturbed["predictions"]:
        channel, regions = {"b": (0, 10), "s": (1, 6)}[row["predictor"]]
        best = row["probabilities"][0]["region"]
        assert best == told(store.colours[row["image_id"]], regions, channel).argmax()
    assert len(undisturbed["predictions"]) == 2 * len(store.colours)
    # The lock is gone, and no upload is left over.
    assert not store.locks("quiet")
    assert not store.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


def test_a_storm_of_503_and_broken_connections_passes(store: Scans, undisturbed: Tables) -> None:
    kinds = (by_workers, of_tables, writes_rows, of_lock)
    mark = len(store.server.requests)
    with (
        store.server.refusing(503, by_workers, times=4),
        store.server.breaking_off(by_workers, times=2),
        store.server.refusing(503, of_tables, times=2),
        store.server.refusing(503, of_lock, times=2),
        store.server.refusing(503, writes_rows, times=2),
    ):
        outcome = store.scan("storm")
    refused = [request for request in store.server.since(mark) if request.refused is not None]
    assert [sum(map(kind, refused)) for kind in kinds] == [6, 2, 2, 2]
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    assert store.tables("storm") == undisturbed


class Expiring:
    """Refuses all that jobs ask, from the request after the first one that `last` chooses."""

    def __init__(self, last: Callable[[Request], bool]) -> None:
        self._last, self._over = last, False

    def __call__(self, request: Request) -> bool:
        over = self._over and not request.agent.startswith("Boto3")
        self._over = self._over or self._last(request)
        return over


@pytest.mark.parametrize(
    ("output", "last"),
    [
        ("expired_reading", by_workers),
        ("expired_writing", lambda request: request.method == "PUT" and "/_shards/000000-" in request.path),
    ],
)
def test_credentials_that_expire_end_the_run_and_its_next_attempt_goes_on(
    store: Scans, undisturbed: Tables, output: str, last: Callable[[Request], bool]
) -> None:
    with store.server.refusing(400, Expiring(last)):
        outcome = store.scan(output)
        store.settle()
    assert outcome.exit_code == EXIT_BAD_INPUT, outcome.report["error"]
    assert "the store refuses access" in outcome.report["error"] and "expired" in outcome.report["error"]
    assert not store.committed(output)
    kept = [key for key in store.keys(output) if "/_shards/" in key]
    assert len(kept) == (output == "expired_writing")
    # Another run waits until the time of this one is over; an attempt at the same run does not.
    assert store.scan(output, "other").exit_code == EXIT_RETRYABLE
    again = store.scan(output)
    assert again.exit_code == EXIT_DONE, again.report["error"]
    assert store.tables(output) == undisturbed
    assert not store.locks(output)
    texts = [outcome.printed, again.printed, store.driver.log.read_text(errors="replace")]
    texts += [store.read(key).decode("latin-1") for key in store.keys(f"{output}/")]
    assert not [text for text in texts if SECRET in text or KEY_ID in text]


def test_an_archive_that_grows_and_changes_while_it_is_scanned_loses_nothing(store: Scans, tmp_path: Path) -> None:
    """What comes while predictors look is left for the next run; what changes before it is looked at is a reject."""
    colours = store.fill("growing")
    store.put("growing/z.png", picture(5, 5))  # the last one to be looked at
    (tmp_path / "hold").touch()
    config = {**store.config("grown", "growing", folder=str(tmp_path)), "batch": 1, "images_per_part": 100}
    store.settle()
    store.driver.start(JOB, config, "r1")
    wait_for_entry(tmp_path)
    store.put("growing/new.png", picture(7, 7))
    inside = {f"{k:02d}.png": picture(*COLOURS[k]) for k in range(3, 7)}
    store.put("growing/a.zip", zip_of({**inside, "more.png": picture(250, 250)}))
    store.put("growing/z.png", picture(99, 99, 9))
    (tmp_path / "hold").unlink()
    outcome = store.driver.finish()
    assert outcome.exit_code == EXIT_DONE, outcome.report["error"]
    first = store.tables("grown", "r1")
    answered = [row["image_id"] for row in first["image_summary"]]
    rejected = [(row["id"], row["error_class"]) for row in first["rejects"]]
    assert ("z.png", "changed_content") in rejected
    # Members of the zip had been looked at, or are gone from where they were.
    assert sorted([*answered, *(name for name, _ in rejected)]) == sorted([*colours, "z.png"])
    again = store.driver.run(JOB, config, "r2")
    assert again.exit_code == EXIT_DONE, again.report["error"]
    second = store.ids("grown", "r2")
    assert {"new.png", "a.zip/more.png", "z.png"} <= set(second)
    assert sorted([*answered, *second]) == sorted([*colours, "new.png", "a.zip/more.png", "z.png"])
    said = {(row["image_id"], row["predictor"]): row for row in store.tables("grown", "r2")["predictions"]}
    assert said["z.png", "b"]["probabilities"][0]["region"] == 99 // 16
    assert store.driver.run(JOB, config, "r3").exit_code == EXIT_NOTHING_TO_DO


def test_of_two_runs_the_one_that_holds_the_lock_goes_on(store: Scans, tmp_path: Path) -> None:
    lock = f"locked/_locks/{JOB}/scan.json"
    other = {"run_id": "other", "holder": "x", "host": "there", "until": 4e9, "note": {}}
    store.put("few/a.png", picture(9, 9))
    store.put(lock, json.dumps(other).encode())
    outcome = store.scan("locked", photos="few")
    assert outcome.exit_code == EXIT_RETRYABLE and "run other on there is at work" in outcome.report["error"]
    assert json.loads(store.read(lock)) == other
    store.put(lock, json.dumps({**other, "until": 1}).encode())  # it has died
    (tmp_path / "hold").touch()
    store.driver.start(JOB, store.config("locked", "few", folder=str(tmp_path)), "r")
    wait_for_entry(tmp_path)
    held = json.loads(store.read(lock))
    assert held["run_id"] == "r" and held["until"] > time.time()
    store.put(lock, json.dumps(other).encode())  # this run was so slow that another one has taken its place
    (tmp_path / "hold").unlink()
    lost = store.driver.finish()
    assert lost.exit_code == EXIT_RETRYABLE and "run other on there is at work" in lost.report["error"]
    assert not store.committed("locked") and json.loads(store.read(lock)) == other
    store.client.delete_object(Bucket=BUCKET, Key=lock)
    again = store.driver.run(JOB, store.config("locked", "few", folder=str(tmp_path)), "r")
    assert again.exit_code == EXIT_DONE and not store.locks("locked"), again.report["error"]
