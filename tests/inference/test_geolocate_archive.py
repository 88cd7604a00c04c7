"""`geolocate_archive` end to end, with predictors that anyone can check, over archives that grow."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import colour_predictors
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from box_partitions import box_partition
from colour_predictors import told
from fabricated_archives import tar_of, zip_of
from fabricated_images import GPS, image
from pyspark.sql import SparkSession
from tuned_spark import BRIEF
from workspace import JOBS, Workspace

from geosieve.geo.s2 import cell_ids
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.geolocate import JOB, geolocate_archive
from geosieve.inference.rank_regions import rank_regions
from geosieve.inference.ranking_config import RankConfig
from geosieve.overlay.read import OverlayInput, read_published
from geosieve.runtime.errors import (
    EXIT_BAD_CONFIG,
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_NOTHING_TO_DO,
    EXIT_RETRYABLE,
    RetryableError,
)
from geosieve.tables.publish import Publication
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schemas import AUDIT, IMAGE_SUMMARY, IMAGES, PREDICTIONS, RANKED_REGIONS, REJECTS, SCANNED_FILES

BANDS = {f"band{k}": (-180.0, -90.0 + 18 * k, 180.0, -72.0 + 18 * k) for k in range(10)}
SIDES = {f"side{k}": (-180.0 + 60 * k, -90.0, -120.0 + 60 * k, 90.0) for k in range(6)}
KEYS = ["source", "image_id"]


def picture(red: int, green: int, blue: int = 0, **options: Any) -> bytes:
    """A PNG of one colour, so that no level is lost."""
    return image(kind="PNG", color=(red, green, blue), size=(9, 7), **options)


@pytest.fixture(scope="module")
def base(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    spark.sparkContext.addPyFile(colour_predictors.__file__)
    made = Workspace(tmp_path_factory.mktemp("base"))
    partitions = [box_partition(made.root, "bands", BANDS), box_partition(made.root, "sides", SIDES)]
    config = {"name": "world", "rasters": {"root": str(made.tables)}, "resolution_arcsec": 7200}
    code, report = made.run("build_overlay", {**config, "partitions": partitions})
    assert code == EXIT_DONE, report["error"]
    return made


class Archive(Workspace):
    """A folder of photos, and what is written about it."""

    jobs = {**JOBS, JOB: (GeolocateConfig, geolocate_archive), "rank_regions": (RankConfig, rank_regions)}

    def __init__(self, root: Path, base: Workspace, spark: SparkSession) -> None:
        super().__init__(root)
        self.spark, self.base = spark, base
        self.photos = root / "photos"
        self.photos.mkdir(parents=True)
        overlay = read_published(spark, OverlayInput(root=str(base.tables), name="world")).overlay()
        self.hashes = {p.name: p.digest for p in overlay.partitions}

    def member(self, partition: str, channel: int, **options: Any) -> dict[str, Any]:
        regions = {"bands": len(BANDS), "sides": len(SIDES)}[partition]
        arguments = {"partition": partition, "digest": self.hashes[partition], "regions": regions, "channel": channel}
        return {
            "implementation": "colour_predictors:Colours",
            "options": {**arguments, **options},
            "partition": partition,
        }

    def config(self, **change: Any) -> dict[str, Any]:
        return {
            "name": "scan",
            "source": {"name": "archive", "format": "photos", "uri": str(self.photos)},
            "overlay": {"root": str(self.base.tables), "name": "world"},
            "members": {"b": self.member("bands", 0), "s": self.member("sides", 1)},
            "batch": 4,
            **change,
        }

    def scan(self, run_id: str, *options: str, **change: Any) -> dict[str, Any]:
        """The report of a run that does something."""
        code, report = self.run(JOB, self.config(**change), run_id, *options)
        assert code == EXIT_DONE, report["error"]
        return report

    def rows(self, table: Any, run_id: str | None = None) -> pd.DataFrame:
        runs = [r for r in committed_runs(self.spark, str(self.tables), table) if run_id in (None, r.run_id)]
        assert runs
        return read_runs(self.spark, str(self.tables), table, runs).toPandas()

    def summaries(self, run_id: str | None = None) -> pd.DataFrame:
        return self.rows(IMAGE_SUMMARY, run_id).set_index("image_id").sort_index()


@pytest.fixture
def archive(base: Workspace, spark: SparkSession, tmp_path: Path) -> Archive:
    return Archive(tmp_path / "here", base, spark)


COLOURS = [(16 * k + 3, 16 * ((7 * k) % 16) + 5, k) for k in range(12)]


def fill(archive: Archive) -> dict[str, tuple[int, int, int]]:
    """Three photos of their own, four in a zip, three in a tar and two in a compressed tar; colours by id."""
    name = [f"{k:02d}.png" for k in range(len(COLOURS))]
    content = [picture(*colour) for colour in COLOURS]
    for k in range(3):
        (archive.photos / name[k]).write_bytes(content[k])
    (archive.photos / "a.zip").write_bytes(zip_of({name[k]: content[k] for k in range(3, 7)}))
    (archive.photos / "b.tar").write_bytes(tar_of({name[k]: content[k] for k in range(7, 10)}))
    (archive.photos / "c.tar.gz").write_bytes(gzip.compress(tar_of({name[k]: content[k] for k in range(10, 12)})))
    ids = [*name[:3], *(f"a.zip/{n}" for n in name[3:7]), *(f"b.tar/{n}" for n in name[7:10])]
    return dict(zip([*ids, *(f"c.tar.gz/{n}" for n in name[10:])], COLOURS, strict=True))


def ranked_by_itself(archive: Archive, colours: dict[str, tuple[int, int, int]]) -> dict[str, pd.DataFrame]:
    """The tables that `rank_regions` makes of what the predictors should have said."""
    rows = []
    for image_id, colour in colours.items():
        for member, partition, channel, n in (("b", "bands", 0, 10), ("s", "sides", 1, 6)):
            p = told(colour, n, channel).tolist()
            rows.append(("archive", image_id, member, archive.hashes[partition], p))
    names = ["source", "image_id", "predictor", "partition_hash", "probabilities"]
    folder = archive.root / "given"
    folder.mkdir()
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(rows, columns=names)), folder / "part.parquet")
    members = {"b": {"partition": "bands"}, "s": {"partition": "sides"}}
    config = {"name": "itself", "predictions": [{"uri": str(folder)}], "members": members}
    code, report = archive.run("rank_regions", {**config, "overlay": archive.config()["overlay"]}, "itself")
    assert code == EXIT_DONE, report["error"]
    return {"summary": archive.summaries("itself"), "regions": archive.rows(RANKED_REGIONS, "itself")}


def compared(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    dropped = [
        *("ranking", "run_id", "answer_run_id", "answer_source", "answer_image_id", "content_sha256", "model_set")
    ]
    return frame.drop(columns=dropped, errors="ignore").sort_values(keys).reset_index(drop=True)


def test_answers_are_those_of_the_predictors_probabilities(archive: Archive) -> None:
    colours = fill(archive)
    report = archive.scan("r1")
    assert (report["rows_in"], report["rows_out"], report["rejected"]) == (12, 12, {})
    expected = ranked_by_itself(archive, colours)
    found = archive.summaries("r1")
    assert set(found.index) == set(colours)
    pd.testing.assert_frame_equal(
        compared(found.reset_index(), ["image_id"]), compared(expected["summary"].reset_index(), ["image_id"])
    )
    regions = archive.rows(RANKED_REGIONS, "r1")
    pd.testing.assert_frame_equal(
        compared(regions, ["image_id", "rank"]), compared(expected["regions"], ["image_id", "rank"])
    )
    assert (regions["s2_id"] == cell_ids(regions["lat"].to_numpy(), regions["lon"].to_numpy())).all()
    for image_id, row in found.iterrows():
        assert (row.answer_run_id, row.answer_source, row.answer_image_id) == ("r1", "archive", image_id)
        assert row.content_sha256 == hashlib.sha256(picture(*colours[image_id])).hexdigest()
    images = archive.rows(IMAGES, "r1").set_index("image_id")
    assert set(images.index) == set(colours) and images["content_sha256"].equals(found["content_sha256"][images.index])
    said = archive.rows(PREDICTIONS, "r1").set_index(["image_id", "predictor"])
    for image_id, colour in colours.items():
        row = said.loc[image_id, "b"]
        p = told(colour, 10, 0)
        assert row.probabilities[0]["region"] == p.argmax() and row.rest == 0
        assert sum(pair["probability"] for pair in row.probabilities) == pytest.approx(1)
    audit = archive.rows(AUDIT, "r1").iloc[0]
    assert (audit["images"], audit["computed"], audit["rejected"], audit["source"]) == (12, 12, 0, "archive")
    assert audit["uri"] == str(archive.photos) and not audit["positions_kept"]


def test_only_what_is_new_is_looked_at(archive: Archive) -> None:
    fill(archive)
    archive.scan("r1")
    code, report = archive.run(JOB, archive.config(), "r2")
    assert (code, report["status"]) == (EXIT_NOTHING_TO_DO, "nothing_to_do")
    assert len(committed_runs(archive.spark, str(archive.tables), IMAGE_SUMMARY)) == 1
    # One new photo, a copy of one that is known, a file with other content than before, and a zip with one more.
    (archive.photos / "new.png").write_bytes(picture(200, 100))
    (archive.photos / "sub").mkdir()
    (archive.photos / "sub" / "copy.png").write_bytes(picture(*COLOURS[4]))
    (archive.photos / "00.png").write_bytes(picture(77, 77))
    inside = {f"{k:02d}.png": picture(*COLOURS[k]) for k in range(3, 7)}
    (archive.photos / "a.zip").write_bytes(zip_of({**inside, "more.png": picture(250, 250)}))
    report = archive.scan("r3")
    found = archive.summaries("r3")
    assert set(found.index) == {"new.png", "sub/copy.png", "00.png", "a.zip/more.png"}
    assert report["details"]["images"] == {"computed": 3, "linked": 1}
    copy = found.loc["sub/copy.png"]
    assert (copy.answer_run_id, copy.answer_image_id) == ("r1", "a.zip/04.png")
    assert set(archive.rows(RANKED_REGIONS, "r3")["image_id"]) == {"new.png", "00.png", "a.zip/more.png"}
    original = archive.summaries("r1").loc["a.zip/04.png"]
    for name in ("lat", "lon", "entropy", "area_50_km2", "area_90_km2", "regions"):
        assert copy[name] == original[name]
    assert archive.run(JOB, archive.config(), "r4")[0] == EXIT_NOTHING_TO_DO


def test_limits_end_a_run_and_the_next_goes_on(archive: Archive) -> None:
    colours = fill(archive)
    report = archive.scan("r0", limits={"minutes": 1e-6})
    assert (report["rows_in"], report["rows_out"]) == (0, 0) and report["details"]["images_left"] > 0
    done: list[str] = []
    for k, expected in enumerate((5, 5, 2), start=1):
        report = archive.scan(f"r{k}", limits={"images": 5}, images_per_part=4)
        new = list(archive.summaries(f"r{k}").index)
        assert len(new) == report["rows_in"] == expected
        done += new
        files = archive.rows(SCANNED_FILES, f"r{k}")
        assert files["images_left"].sum() == report["details"]["images_left"] == 12 - len(done)
    assert sorted(done) == sorted(colours)
    assert archive.run(JOB, archive.config(), "r4")[0] == EXIT_NOTHING_TO_DO
    files = archive.rows(SCANNED_FILES, "r1").drop_duplicates("uri").set_index("uri")
    stats = {f"file:{path}": path.stat() for path in archive.photos.iterdir()}
    for uri, row in files.iterrows():
        stat = stats[uri.replace("///", "/")]
        assert (row.bytes, int(row.modified_at.timestamp() * 1000)) == (stat.st_size, stat.st_mtime_ns // 1_000_000)


def test_a_limit_counts_the_parts_of_earlier_attempts(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(archive)
    limited = {"limits": {"images": 5}, "images_per_part": 4}
    commit = Publication._commit_shard

    def one_part(self: Publication, index: int, rows_in: int, written: Any) -> None:
        if self.rows_in:
            raise RetryableError("the driver dies")
        commit(self, index, rows_in, written)

    with monkeypatch.context() as patch:
        patch.setattr(Publication, "_commit_shard", one_part)
        assert archive.run(JOB, archive.config(**limited), "r1")[0] == EXIT_RETRYABLE
    assert archive.scan("r1", **limited)["details"]["images"] == {"computed": 5, "linked": 0}
    assert len(archive.summaries("r1")) == archive.rows(AUDIT, "r1")["computed"][0] == 5


def test_parts_give_the_same_tables(archive: Archive, base: Workspace, spark: SparkSession, tmp_path: Path) -> None:
    other = Archive(tmp_path / "parts", base, spark)
    for one in (archive, other):
        fill(one)
        for name in ("z copy.png", "a copy.png"):
            (one.photos / name).write_bytes(picture(*COLOURS[0]))
    assert archive.scan("r1")["details"]["images"] == {"computed": 12, "linked": 2}
    assert archive.summaries().loc["z copy.png", "answer_image_id"] == "00.png"
    assert other.scan("r1", images_per_part=5)["details"]["images"] == {"computed": 12, "linked": 2}
    assert len(list((other.tables / "image_summary/ranking=scan/run_id=r1").glob("*.parquet"))) > 1
    mine, theirs = (compared(one.rows(IMAGE_SUMMARY), ["image_id"]) for one in (archive, other))
    pd.testing.assert_frame_equal(mine, theirs)


def test_rejects_have_their_class_and_others_are_answered(archive: Archive) -> None:
    good = picture(20, 20)
    (archive.photos / "good.png").write_bytes(good)
    (archive.photos / "empty.png").write_bytes(b"")
    whole = image(size=(400, 300))
    (archive.photos / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (archive.photos / "text.txt").write_text("no image")
    (archive.photos / "raises.png").write_bytes(picture(20, 99))
    (archive.photos / "raises too.png").write_bytes(picture(20, 99))
    (archive.photos / "nan.png").write_bytes(picture(20, 98))
    (archive.photos / "bad.zip").write_bytes(zip_of({"../out.png": good, "in.png": picture(60, 60)}))
    members = {"b": archive.member("bands", 0, raises_at=99), "s": archive.member("sides", 1, nan_at=98)}
    report = archive.scan("r1", members=members)
    rejects = archive.rows(REJECTS).set_index("id")
    assert rejects["error_class"].to_dict() == {
        "empty.png": "empty_file",
        "cut.jpg": "truncated",
        "text.txt": "not_an_image",
        "raises.png": "predictor_failed",
        "raises too.png": "predictor_failed",
        "nan.png": "not_probabilities",
        "bad.zip/../out.png": "unsafe_name",
    }
    assert "this green is too much" in rejects.loc["raises.png", "message"]
    assert set(archive.summaries().index) == {"good.png", "bad.zip/in.png"}
    assert set(archive.rows(IMAGES)["image_id"]) == {"good.png", "bad.zip/in.png"}
    assert report["rows_in"] == report["rows_out"] + sum(report["rejected"].values()) == 9
    # What failed by its class is tried again: now the predictor does not mind.
    members["b"] = archive.member("bands", 0)
    assert archive.scan("r2", members=members, retry=["predictor_failed"])["rows_in"] == 2
    assert set(archive.summaries("r2").index) == {"raises.png", "raises too.png"}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"extra": 1}, "returns an array "), ({"raises_at": 9}, "fails at every image: "), ({"nan_at": 9}, "sum")],
)
def test_a_predictor_that_does_not_work_ends_the_run(archive: Archive, options: dict[str, int], words: str) -> None:
    for k in range(4):
        (archive.photos / f"{k}.png").write_bytes(picture(k, 9))
    code, report = archive.run(JOB, archive.config(members={"b": archive.member("bands", 0, **options)}), "r1")
    assert code == EXIT_BAD_INPUT and words in report["error"]
    assert committed_runs(archive.spark, str(archive.tables), IMAGE_SUMMARY) == []


def test_predictors_of_other_partitions_are_refused(archive: Archive) -> None:
    code, report = archive.run(JOB, archive.config(members={"b": archive.member("bands", 0, digest="abc")}), "r1")
    assert code == EXIT_BAD_INPUT and "another version of partition bands" in report["error"]
    wrong = {**archive.member("bands", 0), "implementation": "colour_predictors:Colors"}
    code, report = archive.run(JOB, archive.config(members={"b": wrong}), "r1")
    assert code == EXIT_BAD_CONFIG and "Colors" in report["error"]
    remote = archive.member("bands", 0, version="https://example.org/weights")
    code, report = archive.run(JOB, archive.config(members={"b": remote}), "r1")
    assert code == EXIT_BAD_CONFIG and "no local file" in report["error"]


def test_a_changed_model_computes_everything_again(archive: Archive) -> None:
    (archive.photos / "a.jpg").write_bytes(image(gps=GPS))
    report = archive.scan("r1")
    assert report["details"]["images"] == {"computed": 1, "linked": 0}
    # Positions stay out, unless asked for.
    images = archive.rows(IMAGES, "r1")
    assert images["lat"].isna().all() and images["lon"].isna().all()
    assert not any("48.85" in str(archive.rows(table, "r1").to_dict()) for table in (IMAGES, PREDICTIONS, AUDIT))
    members = {"b": archive.member("bands", 0, version="2"), "s": archive.member("sides", 1)}
    report = archive.scan("r2", members=members)
    assert report["details"]["images"] == {"computed": 1, "linked": 0}
    assert len(set(archive.rows(IMAGE_SUMMARY)["model_set"])) == 2
    assert archive.run(JOB, archive.config(), "r3")[0] == EXIT_NOTHING_TO_DO  # of the first model, all is known
    report = archive.scan("r4", since="beginning", keep_positions=True)
    assert report["details"]["images"] == {"computed": 0, "linked": 1}
    assert set(archive.summaries("r4")["answer_run_id"]) == {"r1"}
    assert archive.rows(IMAGES, "r4")["lat"][0] == pytest.approx(48.858333)
    assert archive.rows(AUDIT, "r4")["positions_kept"][0]


def test_two_runs_at_once_are_kept_apart(archive: Archive) -> None:
    (archive.photos / "a.png").write_bytes(picture(7, 7))
    lock = archive.tables / f"_locks/{JOB}/scan.json"
    lock.parent.mkdir(parents=True)
    content = {"run_id": "other", "holder": "x", "host": "there", "until": 4e9, "note": {}}
    lock.write_text(json.dumps(content))
    code, report = archive.run(JOB, archive.config(), "r1")
    assert code == EXIT_RETRYABLE and "run other on there is at work" in report["error"]
    assert json.loads(lock.read_text()) == content
    lock.write_text(json.dumps({**content, "until": 1}))  # it has died
    assert archive.scan("r1")["rows_out"] == 1 and not lock.exists()


SCRIPT = """
import sys
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.geolocate import JOB, geolocate_archive
from geosieve.job.main import main
sys.exit(main(JOB, GeolocateConfig, geolocate_archive, ["--config", sys.argv[1], "--run-id", "r1", "--local"]))
"""
KILLS = int(os.environ.get("GEOSIEVE_KILLS", "3"))


def started(archive: Archive, config: dict[str, Any]) -> subprocess.Popen[bytes]:
    path = archive.root / "killed.json"
    path.write_text(json.dumps({**config, "output": str(archive.tables)}))
    places = [str(Path(colour_predictors.__file__).parent), *sys.path]
    submit = shlex.join([*("--driver-memory", "1g"), *BRIEF, "pyspark-shell"])
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, places)), "PYSPARK_SUBMIT_ARGS": submit}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,
    )


def kill_a_worker(process: subprocess.Popen[bytes], rng: np.random.Generator) -> bool:
    """Kill one of the job's Python workers, if there is any."""
    workers = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = child.parent()
                if parent is not None and all("geosieve.runtime.daemon" in of.cmdline() for of in (child, parent)):
                    workers.append(child)
    if workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            workers[rng.integers(len(workers))].kill()
    return bool(workers)


def test_killed_again_and_again_the_tables_are_those_of_an_undisturbed_run(
    archive: Archive, base: Workspace, spark: SparkSession, tmp_path: Path
) -> None:
    """Drivers (with their JVM) and Python workers are killed at random moments; the same run id is started again.

    Readers never see a part of the run: the tables are there together or not at all.
    """
    other = Archive(tmp_path / "undisturbed", base, spark)
    other.photos = archive.photos  # names determine the parts, and so which of two copies is looked at
    fill(archive)
    (archive.photos / "copy.png").write_bytes(picture(*COLOURS[9]))
    (archive.photos / "cut.png").write_bytes(picture(1, 1)[:40])
    slow = {"b": archive.member("bands", 0, seconds=0.5), "s": archive.member("sides", 1)}
    config = archive.config(members=slow, images_per_part=4, lock_minutes=0.02)
    other.scan("r1", members=slow, images_per_part=4)
    rng = np.random.default_rng(len(COLOURS))
    killed, code = {"driver": 0, "worker": 0}, None
    while code != EXIT_DONE:
        process = started(archive, config)
        victim = "driver" if sum(killed.values()) % 2 == 0 else "worker"
        end = time.monotonic() + rng.uniform(8, 40)
        while sum(killed.values()) < KILLS and time.monotonic() < end and process.poll() is None:
            time.sleep(0.1)
        if sum(killed.values()) < KILLS and process.poll() is None:
            if victim == "driver":
                os.killpg(process.pid, signal.SIGKILL)
                killed["driver"] += 1
            else:
                killed["worker"] += kill_a_worker(process, rng)
        _, log = process.communicate(timeout=600)
        code = process.returncode
        assert code in (EXIT_DONE, EXIT_RETRYABLE, -signal.SIGKILL), log.decode()[-3000:]
        seen = {t.name: len(committed_runs(spark, str(archive.tables), t)) for t in (IMAGES, IMAGE_SUMMARY)}
        assert seen[IMAGE_SUMMARY.name] == (code == EXIT_DONE)
    assert killed["driver"] > 0
    for table, keys in (
        (IMAGE_SUMMARY, ["image_id"]),
        (RANKED_REGIONS, ["image_id", "rank"]),
        (PREDICTIONS, ["image_id", "predictor"]),
        (IMAGES, ["image_id"]),
        (REJECTS, ["id"]),
    ):
        mine, theirs = (compared(one.rows(table), keys) for one in (archive, other))
        pd.testing.assert_frame_equal(mine, theirs)
