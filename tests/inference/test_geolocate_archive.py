"""`geolocate_archive` end to end, with predictors that anyone can check, over archives that grow."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import colour_predictors
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from colour_predictors import told
from fabricated_archives import zip_of
from fabricated_images import GPS, image
from pyspark.sql import DataFrame, SparkSession
from small_scans import COLOURS, Colour, member, overlay_config, packed, picture
from workspace import JOBS, Workspace

from geosieve.geo.s2 import cell_ids
from geosieve.inference.archive_config import GeolocateConfig
from geosieve.inference.geolocate import JOB, _Run, geolocate_archive
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
from geosieve.tables.publish import Publication, Shard
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import AUDIT, IMAGE_SUMMARY, IMAGES, PREDICTIONS, RANKED_REGIONS, REJECTS, SCANNED_FILES

KEYS = ["source", "image_id"]


@pytest.fixture(scope="module")
def base(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    spark.sparkContext.addPyFile(colour_predictors.__file__)
    made = Workspace(tmp_path_factory.mktemp("base"))
    code, report = made.run("build_overlay", overlay_config(made.root, str(made.tables)))
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
        return member(self.hashes, partition, channel, **options)

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


def fill(archive: Archive) -> dict[str, Colour]:
    """The files of `packed`; colours by id."""
    files, colours = packed()
    for name, content in files.items():
        (archive.photos / name).write_bytes(content)
    return colours


def ranked_by_itself(archive: Archive, colours: dict[str, Colour]) -> dict[str, pd.DataFrame]:
    """The tables that `rank_regions` makes of what the predictors should have said."""
    rows = []
    for image_id, colour in colours.items():
        for predictor, partition, channel, n in (("b", "bands", 0, 10), ("s", "sides", 1, 6)):
            p = told(colour, n, channel).tolist()
            rows.append(("archive", image_id, predictor, archive.hashes[partition], p))
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


def test_files_that_change_between_catalogue_and_look_are_rejects_and_their_copies_are_left(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several files with one content, the first by name is looked at."""
    for name, colour in {"a.png": 1, "a copy.png": 1, "b.png": 40, "b copy.png": 40, "c.png": 90}.items():
        (archive.photos / name).write_bytes(picture(colour, 7))
    looked = _Run._looked

    def after_a_change(self: _Run, *arguments: Any) -> Any:
        (archive.photos / "a copy.png").write_bytes(picture(200, 7))
        (archive.photos / "b copy.png").unlink()
        return looked(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "_looked", after_a_change)
        report = archive.scan("r1")
    rejects = archive.rows(REJECTS).set_index("id")["error_class"].to_dict()
    assert rejects == {"a copy.png": "changed_content", "b copy.png": "missing_file"}
    assert list(archive.summaries("r1").index) == ["c.png"]
    assert (report["rows_in"], report["details"]["images_left"]) == (3, 2)
    archive.scan("r2")
    found = archive.rows(PREDICTIONS, "r2").query("predictor == 'b'").set_index("image_id")
    regions = {image_id: row.probabilities[0]["region"] for image_id, row in found.iterrows()}
    assert regions == {"a.png": 1 // 16, "a copy.png": 200 // 16 % 10, "b.png": 40 // 16}
    assert archive.run(JOB, archive.config(), "r3")[0] == EXIT_NOTHING_TO_DO


def test_an_archive_that_grows_between_two_attempts_loses_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its members are spread over parts: those that are new may belong to a part that is written already."""
    inside = {f"{k:02d}.png": picture(k, 3) for k in range(24)}
    ids = [f"a.zip/{name}" for name in inside]

    def pack(n: int) -> None:
        (archive.photos / "a.zip").write_bytes(zip_of(dict(list(inside.items())[:n])))

    pack(8)
    (archive.photos / "one.png").write_bytes(picture(1, 1))
    do = _Run.do

    def dies(self: _Run, shard: Shard, parts: int) -> None:
        if shard.index:
            raise RetryableError("the driver has died")
        do(self, shard, parts)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "do", dies)
        assert archive.run(JOB, archive.config(images_per_part=5), "r1")[0] == EXIT_RETRYABLE
    pack(24)
    archive.scan("r1", images_per_part=5)
    first = set(archive.summaries("r1").index)
    assert {"one.png", *ids[:8]} < first < {"one.png", *ids}  # some of the new ones belong to the first part
    archive.scan("r2")
    second = set(archive.summaries("r2").index)
    assert first | second == {"one.png", *ids} and not first & second
    assert archive.run(JOB, archive.config(), "r3")[0] == EXIT_NOTHING_TO_DO


def test_answers_that_are_lost_and_computed_otherwise_are_not_committed(
    archive: Archive, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an executor go the blocks on its disk; what Spark computes again, it reads from files as they are now."""
    for name in ("a.png", "b.png"):
        (archive.photos / name).write_bytes(picture(ord(name[0]), 9))
    write = Shard.write

    def after_a_loss(self: Shard, table: Table, frame: DataFrame) -> int:
        if table is PREDICTIONS:
            (archive.photos / "a.png").write_bytes(picture(30, 30))
            kept = sorted(spark.sparkContext._jsc.getPersistentRDDs().keys())
            answers = kept[-2]  # before those that are settled by them
            spark._jvm.org.apache.spark.SparkEnv.get().blockManager().master().removeRdd(answers, True)
        return write(self, table, frame)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "write", after_a_loss)
        code, report = archive.run(JOB, archive.config(), "r1")
    assert code == EXIT_RETRYABLE and "lost with an executor" in report["error"]
    assert not committed_runs(spark, str(archive.tables), IMAGE_SUMMARY)
    archive.scan("r1")
    assert set(archive.summaries()["answer_image_id"]) == set(archive.rows(RANKED_REGIONS)["image_id"])
