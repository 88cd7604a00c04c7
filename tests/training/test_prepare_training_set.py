"""`prepare_training_set` end to end: photographs in folders and archives become even files of small images."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import simplejpeg
from box_partitions import box_partition
from fabricated_archives import tar_of
from PIL import Image, ImageOps
from pyspark.sql import SparkSession
from training_world import SIDE, TrainingWorld, hostile, photo

from geosieve.images import content
from geosieve.images.decode import resized
from geosieve.images.plain_jpeg import plain_jpeg_size
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO
from geosieve.tables import schemas

BOXES = {"west": (-180.0, -90.0, 0.0, 90.0), "east": (0.0, -90.0, 180.0, 90.0)}
SPLITS = [
    {"name": "test", "share": 0.4, "balance": {"partition": "cover"}},
    {"name": "train", "share": 0.55},
]
REFUSED = {name: error_class for name, (_, error_class) in hostile().items()} | {
    **{f"gone/{k}.jpg": "missing_file" for k in (0, 1)},
    **{f"gone/{k}.jpg": "changed_content" for k in (2, 3)},
    **{f"changed.tar.gz/d/{k}.jpg": "changed_content" for k in range(1, 14)},
    **{"listed": "no_bytes", "on the web": "no_bytes"},
}


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> TrainingWorld:
    """Images, labels and splits. After they were made, some files went or changed."""
    made = TrainingWorld(tmp_path_factory.mktemp("training"), spark)
    nowhere = dict.fromkeys(("member", "offset", "length", "compression", "content_sha256"))
    for name, uri in (("listed", None), ("on the web", "https://example.org/a.jpg")):
        made.rows.append({**made.rows[0], **nowhere, "image_id": name, "uri": uri})
    made.publish(made.rows, "r1")
    made.publish(made.rows[:1], "r1", source="other")
    root = {"root": str(made.tables), "sources": ["photos"], "run": "r1"}
    cells = {"name": "s2_l3", "kind": "s2", "level": 3}
    code, report = made.label([box_partition(made.root, "cover", BOXES), cells], sources=["photos"], run="r1")
    assert code == EXIT_DONE, report["error"]
    split = {"name": "halves", "seed": 3, "groups": [], "draw": "image", "splits": SPLITS}
    code, report = made.run("build_splits", {**split, "images": root, "labels": {"root": str(made.tables)}})
    assert code == EXIT_DONE, report["error"]
    for k in (0, 1):
        (made.folder / f"gone/{k}.jpg").unlink()
    (made.folder / "gone/2.jpg").write_bytes(photo(999))
    (made.folder / "gone/3.jpg").write_bytes(b"")
    made.write("changed.tar.gz", gzip.compress(tar_of({"d/0.jpg": photo(280), "d/1.jpg": b"other"})))
    return made


@pytest.fixture(scope="module")
def report(world: TrainingWorld) -> dict[str, Any]:
    code, report = world.prepare()
    assert code == EXIT_DONE, report["error"]
    return report


@pytest.fixture(scope="module")
def splits(world: TrainingWorld) -> dict[str, str]:
    """The split of each image that is in one, by id."""
    rows = pq.read_table(world.tables / "splits/split_set=halves/run_id=r1", partitioning=None).to_pylist()
    return {row["image_id"]: row["split"] for row in rows if row["split"] != "left_out"}


@pytest.fixture(scope="module")
def rows(world: TrainingWorld, report: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.shards().to_pylist()
    return found


def test_every_image_of_a_split_is_a_row_or_a_reject(
    world: TrainingWorld, report: dict[str, Any], rows: list[dict[str, Any]], splits: dict[str, str]
) -> None:
    rejects = world.rejects()
    assert rejects == {name: error for name, error in REFUSED.items() if name in splits}
    assert {row["image_id"]: row["split"] for row in rows} == {k: v for k, v in splits.items() if k not in rejects}
    assert len(rows) == report["rows_out"] and report["rows_in"] == len(splits) == len(rows) + len(rejects)
    assert report["rejected"] == Counter(rejects.values())
    assert set(rejects.values()) >= {"missing_file", "changed_content", "no_bytes"}


def upright(content: bytes) -> np.ndarray:
    """All pixels decoded, made upright and resized by Pillow."""
    with Image.open(io.BytesIO(content)) as image:
        whole = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(whole.resize(resized(*whole.size, SIDE), Image.Resampling.BICUBIC)).astype(float)


def test_images_are_small_upright_copies_without_metadata(world: TrainingWorld, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        image, expected = row["image"], upright(world.contents[row["image_id"]])
        found = simplejpeg.decode_jpeg(image).astype(float)
        assert found.shape == expected.shape == (row["height"], row["width"], 3)
        assert np.abs(found - expected).mean() < 4, row["image_id"]
        # There is nothing but the JFIF header and pixels; so no EXIF, wherever it may stand.
        assert plain_jpeg_size(image) == (row["width"], row["height"])
        assert b"Exif" not in image and b"GPS" not in image
    kept = {row["image_id"]: row["image"] for row in rows if "single/plain" in row["image_id"]}
    assert len(kept) > 1 and all(world.contents[name] == image for name, image in kept.items())


def test_labels_and_metadata_are_those_of_the_image(world: TrainingWorld, rows: list[dict[str, Any]]) -> None:
    images, labels = {row["image_id"]: row for row in world.rows}, world.labels().set_index("image_id")
    for row in rows:
        image, label = images[row["image_id"]], labels.loc[row["image_id"]]
        assert (row["lat"], row["lon"], row["author"]) == (image["lat"], image["lon"], image["author"])
        assert row["s2_l3"] == label["s2_l3"] and "cover" not in row


MASK = (1 << 64) - 1
P = (11400714785074694791, 14029467366897019727, 1609587929392839161, 9650029242287828579, 2870177450012600261)


def xxh64(data: bytes, seed: int) -> int:
    """XXH64 as its specification describes it (github.com/Cyan4973/xxHash, doc/xxhash_spec.md)."""

    def turn(x: int, bits: int) -> int:
        return (x << bits | x >> (64 - bits)) & MASK

    def mix(lane: int, word: int) -> int:
        return turn((lane + word * P[1]) & MASK, 31) * P[0] & MASK

    at = 0
    if len(data) >= 32:
        lanes = [(seed + P[0] + P[1]) & MASK, (seed + P[1]) & MASK, seed, (seed - P[0]) & MASK]
        while at + 32 <= len(data):
            lanes = [mix(lane, int.from_bytes(data[at + 8 * k :][:8], "little")) for k, lane in enumerate(lanes)]
            at += 32
        h = sum(turn(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            h = ((h ^ mix(0, lane)) * P[0] + P[3]) & MASK
    else:
        h = (seed + P[4]) & MASK
    h = (h + len(data)) & MASK
    while at + 8 <= len(data):
        h = (turn(h ^ mix(0, int.from_bytes(data[at : at + 8], "little")), 27) * P[0] + P[3]) & MASK
        at += 8
    if at + 4 <= len(data):
        h = (turn(h ^ int.from_bytes(data[at : at + 4], "little") * P[0] & MASK, 23) * P[1] + P[2]) & MASK
        at += 4
    for byte in data[at:]:
        h = turn(h ^ byte * P[4] & MASK, 11) * P[0] & MASK
    h = (h ^ h >> 33) * P[1] & MASK
    h = (h ^ h >> 29) * P[2] & MASK
    return h ^ h >> 32


def shuffle_key(seed: int, source: str, image_id: str) -> int:
    """Spark's xxhash64 of an int and two strings: each is hashed with the hash before it as its seed, the first 42."""
    h = xxh64(source.encode(), xxh64(seed.to_bytes(4, "little"), 42))
    h = xxh64(image_id.encode(), h)
    return h - (1 << 64) if h >> 63 else h


def test_files_are_even_and_hold_the_images_in_the_order_of_a_seeded_hash(
    world: TrainingWorld, rows: list[dict[str, Any]], splits: dict[str, str]
) -> None:
    rejects = world.rejects()
    files = world.files()
    for split in ("test", "train"):
        ids = [name for name in splits if splits[name] == split and name not in rejects]
        expected = sorted(ids, key=lambda name: (shuffle_key(11, "photos", name), name))
        of_split = [row for row in rows if row["split"] == split]
        assert [row["image_id"] for row in of_split] == expected
        counts = [file["rows"] for file in files if file["split"] == split]
        assert sum(counts) == len(ids) and max(counts) - min(counts) <= 1 and len(counts) == 4
        places = [(shard, k) for shard, n in enumerate(counts) for k in range(n)]
        assert [(row["shard"], row["shard_row"]) for row in of_split] == places


def test_every_file_is_one_row_group_and_is_listed(world: TrainingWorld, report: dict[str, Any]) -> None:
    files = world.files()
    assert {path.name for path in world.leaf().glob("part-*")} == {file["name"] for file in files}
    assert [(file["split"], file["shard"]) for file in files] == [(s, k) for s in ("test", "train") for k in range(4)]
    for file in files:
        path = world.leaf() / file["name"]
        metadata = pq.ParquetFile(path).metadata
        assert (metadata.num_row_groups, metadata.num_rows) == (1, file["rows"])
        assert path.stat().st_size == file["bytes"]
    for split, facts in report["details"]["splits"].items():
        of_split = [file for file in files if file["split"] == split]
        assert (facts["files"], facts["images"]) == (len(of_split), sum(file["rows"] for file in of_split))


def test_tasks_the_order_of_images_and_other_splits_do_not_matter(
    world: TrainingWorld,
    report: dict[str, Any],
    splits: dict[str, str],
    spark: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world.publish(world.rows[::-1], "other_order", files=3)
    monkeypatch.setattr(content, "_BYTES_PER_TASK", 30_000)  # some ten tasks
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "3")
    try:
        code, other = world.prepare("r2", images={"run": "other_order"}, splits={"only": ["train"]})
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", str(before))
    assert code == EXIT_DONE, other["error"]
    both = world.shards("r1")
    assert world.shards("r2").equals(both.filter(pc.equal(both["split"], "train")))
    assert world.rejects("r2") == {name: error for name, error in world.rejects().items() if splits[name] == "train"}
    assert list(other["details"]["splits"]) == ["train"]
    for fact in ("mean", "std", "classes"):
        assert other["details"]["splits"]["train"][fact] == report["details"]["splits"]["train"][fact]


def test_the_report_tells_colours_classes_hashes_and_runs(
    world: TrainingWorld, report: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    for split, facts in report["details"]["splits"].items():
        of_split = [row for row in rows if row["split"] == split]
        pixels = np.concatenate([upright(world.contents[row["image_id"]]).reshape(-1, 3) for row in of_split]) / 255
        assert facts["mean"] == pytest.approx(pixels.mean(axis=0), abs=0.004)
        assert facts["std"] == pytest.approx(pixels.std(axis=0), abs=0.004)
        cells = facts["classes"]["s2_l3"]
        counts = Counter(row["s2_l3"] for row in of_split)
        assert cells["regions"] == len(counts) and len(cells["images"]) == min(50, len(counts))
        assert sorted(cells["images"].values()) == sorted(counts.values())[-50:]
    used = pq.read_table(world.tables / "partitions/job=label_attributes/run_id=r1", partitioning=None).to_pylist()
    assert report["details"]["partitions"] == {
        row["partition"]: row["partition_hash"] for row in used if row["partition"] == "s2_l3"
    }
    assert report["details"]["runs"]["splits"].endswith("splits/split_set=halves/run_id=r1")


def test_a_balance_that_rejects_have_broken_is_told(
    world: TrainingWorld, report: dict[str, Any], splits: dict[str, str]
) -> None:
    labels, rejects = world.labels().set_index("image_id")["cover"], world.rejects()
    before = Counter(labels[name] for name, split in splits.items() if split == "test")
    after = Counter(labels[name] for name, split in splits.items() if split == "test" and name not in rejects)
    assert before[0] == before[1] and after[0] != after[1]
    (told,) = [warning for warning in report["warnings"] if "balance" in warning]
    assert f"by up to {abs(after[0] - after[1])} images" in told


def test_a_committed_run_is_left_alone(world: TrainingWorld, report: dict[str, Any]) -> None:
    code, again = world.prepare()
    assert code == EXIT_NOTHING_TO_DO and again["status"] == "nothing_to_do"


def test_a_file_of_several_row_groups_is_refused(world: TrainingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "TRAINING_SHARDS", replace(schemas.TRAINING_SHARDS, row_group_bytes=4_000))
    code, report = world.prepare("groups", splits={"only": ["test"]})
    assert code == EXIT_BAD_CONFIG and "row groups, not one" in report["error"] and "memory" in report["error"]


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"splits": {"only": ["trian"]}}, EXIT_BAD_INPUT, "did you mean 'train'"),
        ({"splits": {"only": ["left_out"]}}, EXIT_BAD_CONFIG, "in no split"),
        ({"splits": {"name": "halfs"}}, EXIT_BAD_INPUT, "did you mean 'halves'"),
        ({"splits": {"run": "r9"}}, EXIT_BAD_INPUT, "no committed run 'r9'"),
        ({"labels": {"partitions": ["s2_l4"]}}, EXIT_BAD_INPUT, "no label of s2_l4"),
        ({"labels": {"partitions": ["image"]}}, EXIT_BAD_CONFIG, "already has a column 'image'"),
        ({"images": {"sources": ["other"]}}, EXIT_BAD_INPUT, "no image is in the training set"),
        ({"images": {"sources": ["phtos"]}}, EXIT_BAD_INPUT, "did you mean 'photos'"),
        ({"quality": 101}, EXIT_BAD_CONFIG, "quality"),
        ({"ranks": 0}, EXIT_BAD_CONFIG, "ranks"),
    ],
)
def test_what_cannot_be_made_is_said(world: TrainingWorld, changes: dict[str, Any], code: int, said: str) -> None:
    found, report = world.prepare("bad", **changes)
    assert found == code and said in report["error"], report
    assert not world.leaf("bad").joinpath("_SUCCESS").exists()


def test_the_hash_of_the_order_is_that_of_its_specification() -> None:
    # Test vectors of the reference implementation.
    assert xxh64(b"", 0) == 0xEF46DB3751D8E999 and xxh64(b"abc", 0) == 0x44BC2CF5AD770999
