"""Folders of photos: every file is an image or a reject, also the hostile ones."""

from __future__ import annotations

import csv
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fabricated_images import GPS, image, jpeg_with_exif, looping_exif, png_of_size
from ingesting import Ingest
from PIL import Image
from pyspark.sql import Row, SparkSession

from geosieve.images.photo_rows import PhotoLimits
from geosieve.images.photos import list_photos, photo_files, photo_folder
from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_every_file_is_an_image_or_a_reject(ingest: Ingest, tmp_path: Path) -> None:
    good = {
        "a.jpg": image(gps=GPS, orientation=6),
        "sub/Ünder way [1].JPG": image(),
        "sub/a.jpg": image("PNG"),  # mislabelled
        "loop.jpg": jpeg_with_exif(looping_exif()),
    }
    bad = {
        "empty.jpg": (b"", "empty_file"),
        "empty.txt": (b"", "empty_file"),
        "notes.txt": (b"hello", "not_an_image"),
        "clip.mp4": (b"\0\0\0 ftypmp42", "not_an_image"),
        "README": (b"hello", "not_an_image"),
        "text.jpg": (b"hello", "not_an_image"),
        "cut.jpg": (image()[:50], "unreadable_header"),
        "huge.png": (png_of_size(65_000, 65_000), "too_large"),
        "_MG_0001.JPG": (image(), "hidden_name"),
        "_best/a.jpg": (image(), "hidden_name"),
    }
    hidden = {".DS_Store": b"x", ".thumbs/a.jpg": image(), "_SUCCESS": b"", "sub/._a.jpg": b"x"}
    files = {**good, **{name: content for name, (content, _) in bad.items()}, **hidden}
    folder = fill(tmp_path / "photo album", files)
    code, report = ingest(folder, format="photos")
    assert code == EXIT_DONE, report["error"]
    images = ingest.images()
    assert set(images) == set(good)
    assert {row.id: row.error_class for row in ingest.rejects()} == {name: c for name, (_, c) in bad.items()}
    assert report["rows_in"] == len(good) + len(bad)
    row = images["a.jpg"]
    assert (row.lat, row.lon) == pytest.approx((48.858333, 2.2945), abs=1e-6)
    assert (row.width, row.height, row.orientation, row.warnings) == (30, 40, 6, [])
    for name, content in good.items():
        assert images[name].content_sha256 == hashlib.sha256(content).hexdigest()
        assert images[name].uri.endswith("/photo album/" + name)
    assert [w.code for w in images["sub/Ünder way [1].JPG"].warnings] == ["no_position"]
    assert images["sub/a.jpg"].lat is None


@pytest.mark.parametrize("files", [{}, {"notes.txt": b"hello"}])
def test_a_folder_without_an_image_fails_the_run(ingest: Ingest, tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "in").mkdir()
    code, report = ingest(fill(tmp_path / "in", files), format="photos")
    assert (code, ingest.committed()) == (EXIT_BAD_INPUT, []), report["error"]


@pytest.mark.parametrize("uri", ["nothing", "*.jpg", "a.jpg"])
def test_photos_need_one_folder(ingest: Ingest, tmp_path: Path, uri: str) -> None:
    fill(tmp_path, {"a.jpg": image(), "b.jpg": image()})
    code, report = ingest(tmp_path / uri, format="photos")
    assert (code, "folder" in report["error"]) == (EXIT_BAD_INPUT, True)


def test_a_dry_run_reads_no_photo(ingest: Ingest, tmp_path: Path) -> None:
    code, report = ingest(fill(tmp_path / "in", {"a.jpg": b"no image"}), "--dry-run", format="photos")
    assert (code, report["status"], ingest.tables.exists()) == (EXIT_DONE, "dry_run", False)


@pytest.mark.skipif(not PHOTOS.exists(), reason="shared/data/photos is not there")
def test_real_photos(ingest: Ingest) -> None:
    code, report = ingest(PHOTOS, format="photos")
    assert (code, report["rows_in"], report["rows_out"]) == (EXIT_DONE, 58, 57)
    assert report["rejected"] == {"not_an_image": 1}  # index.csv
    images = ingest.images()
    with (PHOTOS / "index.csv").open() as index:
        for row in csv.DictReader(index):
            found = images[row["file"]]
            assert (found.lat, found.lon) == pytest.approx((float(row["lat"]), float(row["lon"])), abs=1e-5)
    assert all(row.perceptual_hash is not None for row in images.values())
    # Headers alone say the same, also of files whose metadata come late.
    code, report = ingest(PHOTOS, format="photos", fingerprint=False, run_id="headers")
    assert (code, report["rows_out"]) == (EXIT_DONE, 57), report["error"]
    hashed = {"content_sha256": None, "perceptual_hash": None, "run_id": "headers"}
    assert ingest.images("headers") == {name: Row(**{**row.asDict(), **hashed}) for name, row in images.items()}
    nokia = images["25a155af36fba289c3120da98a93ba5ca437511a.jpg"]  # 14:12:31 at +03:00
    assert nokia.captured_at.timestamp() == 1660475551


def test_a_colon_in_a_name_costs_one_photo_and_no_other(ingest: Ingest, tmp_path: Path) -> None:
    names = ["a.jpg", "2020-01-01 12:30:00.jpg", "sub/b.jpg", "odd [1] {2} #3 50%.jpg"]
    code, report = ingest(fill(tmp_path / "shots", dict.fromkeys(names, image())), format="photos")
    assert code == EXIT_DONE, report["error"]
    assert set(ingest.images()) == {"a.jpg", "sub/b.jpg", "odd [1] {2} #3 50%.jpg"}
    assert [(row.id, row.error_class) for row in ingest.rejects()] == [("2020-01-01 12:30:00.jpg", "bad_name")]


def test_photos_that_cannot_be_decoded_are_rejects_where_pixels_are_read(ingest: Ingest, tmp_path: Path) -> None:
    whole, wide = image(size=(400, 300)), image("PNG", size=(90, 100))
    folder = fill(
        tmp_path / "in", {"a.jpg": whole, "cut.jpg": whole[:-100], "wide.png": wide, "long.jpg": bytes(9_999)}
    )
    limits = {"pixels": 120_000, "bytes": 9_000}
    code, report = ingest(folder, format="photos", limits=limits)
    assert (code, report["rejected"]) == (EXIT_DONE, {"truncated": 1, "too_large": 1}), report["error"]
    assert set(ingest.images()) == {"a.jpg", "wide.png"}
    code, report = ingest(folder, format="photos", limits={**limits, "pixels": 119_999}, run_id="fewer")
    assert (code, report["rejected"]) == (EXIT_DONE, {"too_large": 3}), report["error"]
    code, report = ingest(folder, format="photos", limits=limits, fingerprint=False, run_id="headers")
    assert set(ingest.images("headers")) == {"a.jpg", "cut.jpg", "wide.png"}


def test_photographs_of_before_1900_do_not_stop_a_folder(ingest: Ingest, tmp_path: Path) -> None:
    exif, none = Image.Exif(), Image.Exif()
    exif.get_ifd(34665)[36867] = "1890:05:06 07:08:09"
    none.get_ifd(34665)[36867] = "1899:12:30 00:00:00"
    files = {"old.jpg": image(exif=exif.tobytes()), "none.jpg": image(exif=none.tobytes())}
    code, report = ingest(fill(tmp_path / "old [1]", files), format="photos")
    assert (code, report["details"]["words_for_nothing"]) == (EXIT_DONE, {"captured_at": 1}), report["error"]
    images = ingest.images()
    assert images["none.jpg"].captured_at is None
    assert images["old.jpg"].captured_at.timestamp() == datetime(1890, 5, 6, 7, 8, 9, tzinfo=UTC).timestamp()


def test_a_file_that_is_filled_while_the_folder_is_listed_is_one_row(spark: SparkSession, tmp_path: Path) -> None:
    """Copying makes an empty file first. The listing that found it empty counts."""
    folder = fill(tmp_path / "photos", {"a.jpg": b"", "b.jpg": image()})
    listing = list_photos(spark, photo_folder(spark, str(folder)), PhotoLimits())
    (folder / "a.jpg").write_bytes(image())
    rows = photo_files(spark, listing, PhotoLimits()).collect()
    assert sorted((Path(row.uri).name, row.error_class) for row in rows) == [("a.jpg", "empty_file"), ("b.jpg", None)]
