"""Lists with image files, and records that hold images: each row has its file, and whatever does not fit is told."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fabricated_archives import tar_of, zip_of
from fabricated_images import GPS, image
from ingesting import COLUMNS, Ingest
from workspace import Report

from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE

CONF = Path(__file__).parents[2] / "conf" / "ingest_images"


def photo(number: int) -> bytes:
    """A photo with colours of its own, and a position that is not the list's."""
    return image(gps=GPS, color=(number % 256, number // 256, 7), size=(40, 30 + number % 5), orientation=6)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def as_published(ingest: Ingest, config: str, uri: Path, files: Path | None = None, **change: Any) -> Report:
    """Run the job with the source of a file in conf/, at other places."""
    source = yaml.safe_load((CONF / config).read_text())["source"]
    if files is not None:
        source["files"]["uri"] = str(files)
    return ingest(uri, **{**{key: source[key] for key in source if key not in ("uri", "name")}, **change})


def refused(ingest: Ingest) -> dict[str, str]:
    return {row.id: row.error_class for row in ingest.rejects()}


def test_osv5m_as_published_with_its_zips(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    photos = {str(number): photo(number) for number in range(20)}
    cut = photos["13"][:-20]
    parts = ({**photos, "13": cut}.items() for _ in range(2))
    for k, part in enumerate(parts):
        inside = {f"0{k}/{name}.jpg": content for name, content in part if int(name) % 2 == k}
        (folder / f"0{k}.zip").write_bytes(zip_of({**inside, f"0{k}/unlisted{k}.jpg": photo(99)}))
    (folder / "02.zip").write_bytes(b"<html>404</html>")
    (folder / "notes.txt").write_bytes(b"about the images")
    header = "id,latitude,longitude,captured_at,creator_username,sequence\n"
    lines = [f"{name},{name}.5,{name}.25,1430000000000,who,s{int(name) // 4}\n" for name in photos]
    # The archive 02.zip, which is none, is not the file of a row with the id 02.
    (tmp_path / "train.csv").write_text(header + "".join(lines) + "77,1,2,,,\n78,100,2,,,\n02,1,2,,,\n")
    code, report = as_published(ingest, "osv5m_images.yaml", tmp_path / "train.csv", folder)
    assert code == EXIT_DONE, report["error"]
    # Three rows of the list are no images, one file is cut off, and an archive is none: 23 rows and an archive.
    of_rows = {"77": "no_file", "78": "lat_out_of_range", "02": "no_file", "13": "truncated"}
    assert refused(ingest) == {**of_rows, "02.zip": "broken_archive"}
    assert (report["rows_in"], report["rows_out"]) == (24, 19)
    assert report["details"]["inputs"]["files_not_listed"] == 3  # two photos and the notes
    images = ingest.images()
    assert set(images) == set(photos) - {"13"}
    for name, row in images.items():
        assert (row.lat, row.lon, row.author) == (int(name) + 0.5, int(name) + 0.25, "who")
        assert (row.content_sha256, row.member) == (sha256(photos[name]), f"0{int(name) % 2}/{name}.jpg")
        assert (row.width, row.height, row.orientation, row.warnings) == (30 + int(name) % 5, 40, 6, [])
        stored = Path(row.uri.removeprefix("file:")).read_bytes()
        assert stored[row.offset : row.offset + row.length] == photos[name]


def test_ids_that_are_ends_of_paths(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "yfcc"
    (folder / "f9" / "c0").mkdir(parents=True)
    (folder / "f9" / "c0" / "1.jpg").write_bytes(photo(1))
    (folder / "a.tar").write_bytes(
        tar_of({"x/f9/c0/2.jpg": photo(2), "x/f9/c1/2.jpg": photo(3), "9/c0/1.jpg": photo(4)})
    )
    (folder / "b.tar").write_bytes(tar_of({"d/5.jpg": photo(5), "e/6.jpg": photo(6)}))
    (folder / "c.tar").write_bytes(tar_of({"d/5.jpg": photo(7), "e/6.jpg": photo(6)}))
    ids = ("f9/c0/1.jpg", "/f9/c0/2.jpg", "./f9/c1/2.jpg", "f9/c2/2.jpg", "d/5.jpg", "e/6.jpg")
    (tmp_path / "list.csv").write_text("IMG_ID,LAT,LON\n" + "".join(f"{name},1,2\n" for name in ids))
    code, report = as_published(ingest, "yfcc_tars.yaml", tmp_path / "list.csv", folder)
    assert code == EXIT_DONE, report["error"]
    found = {name: row.content_sha256 for name, row in ingest.images().items()}
    expected = {"f9/c0/1.jpg": 1, "/f9/c0/2.jpg": 2, "./f9/c1/2.jpg": 3, "e/6.jpg": 6}
    assert found == {name: sha256(photo(number)) for name, number in expected.items()}
    # Two different photos are d/5.jpg; that the two of e/6.jpg are the same file does no harm.
    assert refused(ingest) == {"f9/c2/2.jpg": "no_file", "d/5.jpg": "ambiguous_file"}


def test_a_webdataset_with_its_parquet_files(ingest: Ingest, tmp_path: Path) -> None:
    for shard in range(2):
        keys = [f"0000{shard}000{k}" for k in range(3)]
        inside = {
            f"{key}.{kind}": photo(int(key)) if kind == "jpg" else b"{}" for key in keys for kind in ("jpg", "json")
        }
        (tmp_path / f"0000{shard}.tar").write_bytes(tar_of(inside))
        rows = {"key": keys, "latitude": [1.5, 2.5, 3.5], "longitude": [4.0, 5.0, 6.0], "url": ["http://x"] * 3}
        pq.write_table(pa.table(rows), tmp_path / f"0000{shard}.parquet")
    code, report = as_published(ingest, "webdataset.yaml", tmp_path / "*.parquet", tmp_path, fingerprint=False)
    assert (code, report["rows_in"], report["rows_out"]) == (EXIT_DONE, 6, 6), report["error"]
    row = ingest.images()["000010002"]
    assert (row.lat, row.lon, row.member) == (3.5, 6.0, "000010002.jpg") and row.uri.endswith("/00001.tar")


def packed(records: list[dict[str, Any]], **options: Any) -> bytes:
    return b"".join(msgpack.packb(record, **options) for record in records)


@pytest.mark.parametrize("has_bytes", [True, False], ids=["bytes", "old_raw"])
def test_mp16_as_geoestimation_packs_it(ingest: Ingest, tmp_path: Path, has_bytes: bool) -> None:
    records = [
        {"id": f"f9/c0/{k}.jpg", "image": photo(k), "latitude": k - 3.125, "longitude": 0.1 * k, "other": [{"x": None}]}
        for k in range(8)
    ]
    records[2]["latitude"] = float("nan")
    records[3]["image"] = photo(3)[:-20]
    del records[4]["image"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "shard_0.msg").write_bytes(packed(records[:5], use_bin_type=has_bytes))
    (tmp_path / "in" / "shard_1.msg").write_bytes(packed(records[5:], use_bin_type=has_bytes)[:-10])
    code, report = as_published(ingest, "mp16_msgpack.yaml", tmp_path / "in")
    assert code == EXIT_DONE, report["error"]
    images = ingest.images()
    assert set(images) == {f"f9/c0/{k}.jpg" for k in (0, 1, 5, 6)}
    for name, row in images.items():
        k = int(name[6:-4])
        assert (row.lat, row.lon, row.content_sha256) == (k - 3.125, 0.1 * k, sha256(photo(k)))
        stored = Path(row.uri.removeprefix("file:")).read_bytes()
        assert stored[row.offset : row.offset + row.length] == photo(k) and row.compression == "none"
    expected = {"2": "missing_position", "3": "truncated", "4": "empty_file"}
    assert refused(ingest) == {f"f9/c0/{k}.jpg": name for k, name in expected.items()} | {None: "truncated_archive"}
    assert report["rows_in"] == 8  # seven whole records and the damage


@pytest.mark.parametrize("content", [b"\xc1\xc1", b"\x93\x01\x02\x03", b"\xdf\xff\xff\xff\xff", b"\x81" * 9_000])
def test_damaged_msgpack_is_a_reject(ingest: Ingest, tmp_path: Path, content: bytes) -> None:
    good = packed([{"id": "a", "image": photo(1), "latitude": 1, "longitude": 2}])
    (tmp_path / "a.msg").write_bytes(good + content + good)
    code, report = as_published(ingest, "mp16_msgpack.yaml", tmp_path / "a.msg")
    assert (code, set(ingest.images())) == (EXIT_DONE, {"a"}), report["error"]
    assert [row.error_class for row in ingest.rejects()] == ["broken_archive"]


def test_a_parquet_column_of_bytes(ingest: Ingest, tmp_path: Path) -> None:
    photos = [photo(k) for k in range(40)]
    bytes_column = pa.array([*photos[:38], b"no image", None], pa.binary())
    table = pa.table(
        {"id": [f"p{k}" for k in range(40)], "image": bytes_column, "latitude": [0.5] * 40, "longitude": [2] * 40}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    code, report = as_published(ingest, "parquet_bytes.yaml", tmp_path / "a.parquet")
    assert code == EXIT_DONE, report["error"]
    images = ingest.images()
    assert refused(ingest) == {"p38": "not_an_image", "p39": "empty_file"} and len(images) == 38
    for k, content in enumerate(photos[:38]):
        row = images[f"p{k}"]
        assert (row.content_sha256, row.width, row.lat) == (sha256(content), 30 + k % 5, 0.5)
        assert (row.compression, row.member, row.offset, row.length) == ("parquet", "image", k, len(content))


def test_what_contradicts_itself_is_refused(ingest: Ingest, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"id": ["a"], "latitude": [1.0], "longitude": [2.0], "image": ["text"]}), tmp_path / "a.parquet"
    )
    with_image = {**COLUMNS, "image": "image"}
    code, report = ingest(tmp_path / "a.parquet", format="parquet", columns=with_image)
    assert code == EXIT_BAD_INPUT and "source.columns.image" in report["error"] and "holds no bytes" in report["error"]
    files = {"uri": str(tmp_path), "match": "stem"}
    code, report = ingest(tmp_path / "a.parquet", format="parquet", columns=with_image, files=files)
    assert code == EXIT_BAD_CONFIG and "not in both" in report["error"]
    code, report = ingest(tmp_path / "a.parquet", format="msgpack", columns=COLUMNS)
    assert code == EXIT_BAD_CONFIG and "image" in report["error"]


def test_a_damaged_page_of_a_parquet_column_costs_the_rest_of_its_row_group(ingest: Ingest, tmp_path: Path) -> None:
    path, photos = tmp_path / "a.parquet", [photo(k) for k in range(120)]
    columns = {"id": [f"p{k}" for k in range(120)], "latitude": [0.5] * 120, "longitude": [2] * 120, "image": photos}
    # Pages of one image each, in three row groups.
    pq.write_table(
        pa.table(columns),
        path,
        row_group_size=40,
        compression="snappy",
        use_dictionary=False,
        data_page_size=1,
        write_batch_size=1,
    )
    chunk = pq.read_metadata(path).row_group(1).column(3)
    assert chunk.path_in_schema == "image"
    content = bytearray(path.read_bytes())
    # Headers of pages are among what is lost; a page's own bytes have no checksum.
    middle, end = (chunk.data_page_offset + chunk.total_compressed_size * k // 2 for k in (1, 2))
    content[middle:end] = bytes(end - middle)
    path.write_bytes(content)
    code, report = as_published(ingest, "parquet_bytes.yaml", path)
    assert code == EXIT_DONE, report["error"]
    images, bad = ingest.images(), refused(ingest)
    assert images.keys() | bad.keys() == set(columns["id"]) and not images.keys() & bad.keys()
    first = min(int(name[1:]) for name in bad)
    assert 40 < first <= 61 and bad == {f"p{k}": "broken_archive" for k in range(first, 80)}
    assert all(images[f"p{k}"].content_sha256 == sha256(photos[k]) for k in range(120) if f"p{k}" in images)
