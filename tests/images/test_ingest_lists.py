"""Lists of coordinates become images and rejects: every row ends in one of the two, and says why."""

from __future__ import annotations

import csv
import gzip
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from ingesting import Ingest
from pyspark.sql import SparkSession

from geosieve.images.coordinate_lists import find_files, open_csv, with_row_numbers
from geosieve.images.sources import Columns
from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO

COORDS = Path(__file__).parents[3] / "shared" / "data" / "coords"
CONF = Path(__file__).parents[2] / "conf" / "ingest_images"

GOOD = "paris,48.8584,2.2945\nrio,-22.9519,-43.2105\nfiji,-17.8,179.99\n"
BAD = {
    ",10,20": "missing_id",
    "  ,10,20": "missing_id",
    "a,,20": "missing_position",
    "b,NaN,20": "missing_position",
    "c,10,null": "missing_position",
    'd,"48,85","2,29"': "decimal_comma",
    "e,48°51'N,2": "not_a_number",
    "f,1e400x,2": "not_a_number",
    "g,Infinity,2": "not_a_number",
    "h,12d,2": "not_a_number",
    "i,90.0001,2": "lat_out_of_range",
    "j,-1000,2": "lat_out_of_range",
    "k,10,180.0001": "lon_out_of_range",
    "l,10,360.5": "lon_out_of_range",
    "m,10,-180.5": "lon_out_of_range",
    "n,0,0": "null_island",
    "o,0.000,-0.0": "null_island",
    "p,10": "malformed_row",
    "q,10,20,30": "malformed_row",
}


def write(path: Path, rows: str, header: str = "id,latitude,longitude") -> Path:
    path.write_text(f"{header}\n{rows}", encoding="utf-8")
    return path


def test_each_kind_of_bad_row_has_its_class(ingest: Ingest, tmp_path: Path) -> None:
    code, report = ingest(write(tmp_path / "list.csv", GOOD + "\n".join(BAD) + "\n"))
    assert code == EXIT_DONE, report["error"]
    assert set(ingest.images()) == {"paris", "rio", "fiji"}
    assert (report["rows_in"], report["rows_out"]) == (3 + len(BAD), 3)
    rejects = ingest.rejects()
    for line, error_class in BAD.items():
        name = next(csv.reader([line]))[0].strip() or None
        assert error_class in [row.error_class for row in rejects if row.id == name], line
    counts = {name: list(BAD.values()).count(name) for name in BAD.values()}
    assert report["rejected"] == counts
    for row in rejects:
        assert row.message and len(row.message) <= 500
        assert row.uri.endswith("list.csv")


def test_messages_say_what_to_do(ingest: Ingest, tmp_path: Path) -> None:
    ingest(write(tmp_path / "list.csv", GOOD + 'a,"48,85","2,29"\nb,10,270\nc,100,2\n'))
    said = {row.id: row.message for row in ingest.rejects()}
    assert "decimal point" in said["a"] and "'48,85'" in said["a"]
    assert "subtract 360" in said["b"] and "'270'" in said["b"]
    assert "swapped" in said["c"] and "'100'" in said["c"]


def test_ends_of_the_world_are_positions(ingest: Ingest, tmp_path: Path) -> None:
    ingest(write(tmp_path / "list.csv", "n,90,0\ns,-90,0\ne,0,180\nw,0,-180\ngulf,0,0.0001\nplus,+1.5e1,.5\n"))
    found = {name: (row.lat, row.lon) for name, row in ingest.images().items()}
    assert found == {
        "n": (90, 0), "s": (-90, 0), "e": (0, 180), "w": (0, -180), "gulf": (0, 0.0001), "plus": (15, 0.5)
    }  # fmt: skip


def test_ids_are_text(ingest: Ingest, tmp_path: Path) -> None:
    ingest(write(tmp_path / "list.csv", "0012,1,1\n12,1,2\n1e3,1,3\nπ/ä.jpg,1,4\n"))
    assert set(ingest.images()) == {"0012", "12", "1e3", "π/ä.jpg"}


@pytest.mark.parametrize("break_lines", [False, True])
def test_quotes_hold_delimiters_quotes_and_line_breaks(ingest: Ingest, tmp_path: Path, break_lines: bool) -> None:
    title = '"a ""b"", c\nd"' if break_lines else '"a ""b"", c d"'
    path = write(tmp_path / "list.csv", f"x,1,2,{title}\r\ny,3,4,plain\r\n\r\n", "id,latitude,longitude,who")
    code, report = ingest(path, columns={"image_id": "id", "lat": "latitude", "lon": "longitude", "author": "who"})
    assert (code, report["rows_in"]) == (EXIT_DONE, 2), report
    assert ingest.images()["x"].author == ('a "b", c\nd' if break_lines else 'a "b", c d')
    assert ingest.images()["y"].author == "plain"


def test_a_byte_order_mark_and_gzip_are_no_part_of_the_header(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "list.csv.gz"
    path.write_bytes(gzip.compress(("\ufeffid,latitude,longitude\n" + GOOD).encode()))
    assert ingest(path)[0] == EXIT_DONE
    assert set(ingest.images()) == {"paris", "rio", "fiji"}


def test_a_semicolon_list(ingest: Ingest, tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "x;1.5;2\ny;1,5;2\n", "id;latitude;longitude")
    assert ingest(path, delimiter=";")[1]["rejected"] == {"decimal_comma": 1}


def test_times_are_utc_and_unreadable_ones_a_warning(ingest: Ingest, tmp_path: Path) -> None:
    times = {
        "ms": ("1430000000123", datetime(2015, 4, 25, 22, 13, 20, 123000)),
        "ms_pandas": ("1430000000000.0", datetime(2015, 4, 25, 22, 13, 20)),
        "s": ("1430000000", datetime(2015, 4, 25, 22, 13, 20)),
        "date": ("2015-04-25", datetime(2015, 4, 25)),
        "iso": ("2015-04-25T22:13:20Z", datetime(2015, 4, 25, 22, 13, 20)),
        "zone": ("2015-04-25 22:13:20+02:00", datetime(2015, 4, 25, 20, 13, 20)),
        "none": ("", None),
        "nan": ("NaN", None),
        "zero": ("0000-00-00 00:00:00", None),
        "ole": ("1899-12-30", None),
    }
    times["us"] = ("1430000000123456", datetime(2015, 4, 25, 22, 13, 20, 123456))
    times["ns"] = ("1430000000123456789", datetime(2015, 4, 25, 22, 13, 20, 123456))
    times["1839"] = ("1839-08-19 12:00:00", datetime(1839, 8, 19, 12))
    times["1899"] = ("1899-12-31T23:59:59Z", datetime(1899, 12, 31, 23, 59, 59))
    bad = ["yesterday", "2015-02-30", "0001-01-01", "9999-01-01 00:00:00", "12", "2015:04:25 10:00:00"]
    rows = [f"{name},1,2,{text}" for name, (text, _) in times.items()]
    rows += [f"bad{i},1,2,{text}" for i, text in enumerate(bad)]
    path = write(tmp_path / "list.csv", "\n".join(rows) + "\n", "id,lat,lon,taken")
    columns = {"image_id": "id", "lat": "lat", "lon": "lon", "captured_at": "taken"}
    code, report = ingest(path, columns=columns)
    assert code == EXIT_DONE, report["error"]
    images = ingest.images()
    for name, (_, expected) in times.items():
        got = images[name].captured_at  # naive, in the zone of this machine
        assert (got and got.timestamp()) == (expected and expected.replace(tzinfo=UTC).timestamp()), name
        assert images[name].warnings == []
    for i, text in enumerate(bad):
        assert images[f"bad{i}"].captured_at is None, text
        assert [w.code for w in images[f"bad{i}"].warnings] == ["bad_time"], text
    assert report["details"]["warnings"] == {"bad_time": len(bad)}


def test_sizes_are_pixels_or_a_warning(ingest: Ingest, tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "x,1,2,640,480.0\ny,1,2,-1,big\n", "id,lat,lon,w,h")
    ingest(path, columns={"image_id": "id", "lat": "lat", "lon": "lon", "width": "w", "height": "h"})
    x, y = ingest.images()["x"], ingest.images()["y"]
    assert (x.width, x.height, x.warnings) == (640, 480, [])
    assert (y.width, y.height, [w.code for w in y.warnings]) == (None, None, ["bad_size", "bad_size"])


def test_order_and_partitioning_decide_nothing(ingest: Ingest, spark: SparkSession, tmp_path: Path) -> None:
    rows = [f"i{k % 40},{k % 7},{k % 11},{'same' if k % 3 else k}" for k in range(120)]
    rows += [*rows[:5], "i1,0,0,x", "bad,,,", "bad,,,"]
    seen = []
    for seed, files in ((0, 1), (1, 3), (2, 7)):
        random.Random(seed).shuffle(rows)
        folder = tmp_path / f"in{seed}"
        folder.mkdir()
        for part in range(files):
            write(folder / f"{part}.csv", "\n".join(rows[part::files]) + "\n", "id,latitude,longitude,who")
        columns = {"image_id": "id", "lat": "latitude", "lon": "longitude", "author": "who"}
        code, report = ingest(folder, run_id=f"s{seed}", columns=columns)
        assert code == EXIT_DONE, report["error"]
        assert report["rows_in"] == len(rows) == report["rows_out"] + sum(report["rejected"].values())
        rejects = sorted((str(r.id), r.error_class, r.message) for r in ingest.rejects(f"s{seed}"))
        images = sorted((r.image_id, r.lat, r.lon, r.author) for r in ingest.images(f"s{seed}").values())
        seen.append((images, rejects))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == 40


def test_of_a_repeated_id_one_row_is_kept_and_bad_ones_do_not_count(ingest: Ingest, tmp_path: Path) -> None:
    ingest(write(tmp_path / "list.csv", "x,,\nx,1,2\nx,1,2\nx,1,3\ny,5,5\n"))
    assert (ingest.images()["x"].lat, ingest.images()["x"].lon) == (1, 2)
    classes = [row.error_class for row in ingest.rejects()]
    assert sorted(classes) == ["duplicate_id", "duplicate_id", "missing_position"]


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        ("id,lattitude,longitude", "a,1,2\n", "nearest: 'lattitude'"),
        ("ID,latitude,longitude", "a,1,2\n", "nearest: 'ID'"),
        ("id,latitude,longitude,latitude", "a,1,2,3\n", "occurs 2 times"),
        ("x,y,z", "a,1,2\n", "its columns: x, y, z"),
        ("id,latitude,longitude", "", "no rows"),
        ("", "", "no header line"),
        ("id,latitude,longitude", "a,100,2\nb,-122,37\nc,-122.5,37.7\nd,2,48\n", "swapped"),
        ("id,latitude,longitude", "a,,\nb,0,0\n", "every row is refused (missing_position 1, null_island 1)"),
    ],
)
def test_an_unusable_file_fails_the_run(ingest: Ingest, tmp_path: Path, header: str, rows: str, said: str) -> None:
    code, report = ingest(write(tmp_path / "list.csv", rows, header))
    assert code == EXIT_BAD_INPUT
    assert said in report["error"]
    assert "list.csv" in report["error"]
    assert ingest.committed() == []


def test_one_swapped_file_among_good_ones_fails_the_run(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.csv", "".join(f"a{k},{k % 80},{k - 150}\n" for k in range(300)))
    write(folder / "b.csv", "".join(f"b{k},{k - 150},{k % 80}\n" for k in range(300)))
    code, report = ingest(folder)
    assert (code, "swapped" in report["error"], "b.csv" in report["error"]) == (EXIT_BAD_INPUT, True, True)


def test_a_single_latitude_beyond_90_is_no_swap(ingest: Ingest, tmp_path: Path) -> None:
    code, report = ingest(write(tmp_path / "list.csv", "a,91,2\nb,1,2\nc,1,3\n"))
    assert (code, report["rejected"]) == (EXIT_DONE, {"lat_out_of_range": 1})


def test_files_with_other_headers_are_named(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.csv", GOOD)
    write(folder / "b.csv", "a,1,2\n", "id,longitude,latitude")
    code, report = ingest(folder)
    assert code == EXIT_BAD_INPUT
    assert "b.csv" in report["error"] and "another order" in report["error"]


@pytest.mark.parametrize("uri", ["nothing.csv", "no*.csv"])
def test_a_source_that_is_not_there_is_bad_input(ingest: Ingest, tmp_path: Path, uri: str) -> None:
    code, report = ingest(tmp_path / uri)
    assert (code, "no such file" in report["error"]) == (EXIT_BAD_INPUT, True)


def test_file_names_with_glob_characters_and_blanks(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "in put"
    folder.mkdir()
    write(folder / "a [1].csv", GOOD)
    assert ingest(folder)[0] == EXIT_DONE
    assert len(ingest.images()) == 3


def test_a_rerun_finds_nothing_to_do_and_a_dry_run_writes_nothing(ingest: Ingest, tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", GOOD)
    code, report = ingest(path, "--dry-run")
    assert (code, report["status"], ingest.tables.exists()) == (EXIT_DONE, "dry_run", False)
    assert ingest(path)[0] == EXIT_DONE
    before = sorted((p, p.stat().st_mtime_ns) for p in ingest.tables.rglob("*"))
    code, report = ingest(path)
    assert (code, report["status"]) == (EXIT_NOTHING_TO_DO, "nothing_to_do")
    assert sorted((p, p.stat().st_mtime_ns) for p in ingest.tables.rglob("*")) == before


def test_no_signature_of_a_link_is_copied_to_rejects(ingest: Ingest, tmp_path: Path) -> None:
    ingest(write(tmp_path / "list.csv", GOOD + "x,1,2,https://h/a.jpg?X-Amz-Signature=secret\n"))
    (reject,) = ingest.rejects()
    assert (reject.error_class, "secret" in reject.message) == ("malformed_row", False)


def test_unknown_keys_and_column_names_are_refused(ingest: Ingest, tmp_path: Path) -> None:
    code, report = ingest(write(tmp_path / "list.csv", GOOD), columns={"image_id": "id", "latt": "latitude"})
    assert code == EXIT_BAD_CONFIG
    assert "latt" in report["error"] and "'lat'" in report["error"]


def test_a_line_with_more_fields_than_the_parser_takes_is_one_reject(ingest: Ingest, tmp_path: Path) -> None:
    code, report = ingest(write(tmp_path / "list.csv", GOOD + "x,1,2" + "," * 30_000 + "\n"))
    assert (code, report["rejected"]) == (EXIT_DONE, {"malformed_row": 1}), report["error"]


@pytest.mark.skipif(not COORDS.exists(), reason="shared/data/coords is not there")
@pytest.mark.parametrize(
    ("name", "config", "rows"),
    [("im2gps_237.csv", "im2gps", 237), ("im2gps3k_2997.csv", "im2gps", 2997), ("yfcc26k.csv", "yfcc", 25_600)],
)
def test_published_lists_are_accepted_whole(ingest: Ingest, name: str, config: str, rows: int) -> None:
    columns = yaml.safe_load((CONF / f"{config}.yaml").read_text())["source"]["columns"]
    code, report = ingest(COORDS / name, columns=columns)
    assert (code, report["rows_in"], report["rows_out"], report["rejected"]) == (EXIT_DONE, rows, rows, {})
    with (COORDS / name).open() as published:
        first = next(csv.DictReader(published))
    image = ingest.images()[first[columns["image_id"]]]
    assert (image.lat, image.lon) == (float(first[columns["lat"]]), float(first[columns["lon"]]))


@pytest.mark.parametrize("quoted", [1, 2])
def test_a_quote_that_takes_rows_with_it_refuses_the_file(ingest: Ingest, tmp_path: Path, quoted: int) -> None:
    lines = [f'p{n},{n % 80},{n % 170},"by ""me"", here"' for n in range(1, 300)]
    for number in (10, 200)[:quoted]:
        lines[number] = f'p{number},{number % 80},{number % 170},"Bob'
    uri = write(tmp_path / "list.csv", "\n".join(lines) + "\n", header="id,latitude,longitude,author")
    code, report = ingest(uri)
    assert code == EXIT_BAD_INPUT
    assert "a quote is not closed" in report["error"] and "list.csv" in report["error"]
    assert ingest.committed() == []


def test_texts_of_several_lines_with_numbers_are_no_rows(ingest: Ingest, tmp_path: Path) -> None:
    rows = 'a,1,2,"at 10, 20, 30\nand 4, north\nParis, France, 2010, spring"\nb,3,4,"one\n""two"", three"\n'
    code, report = ingest(write(tmp_path / "list.csv", rows, header="id,latitude,longitude,caption"))
    assert (code, report["rows_out"]) == (EXIT_DONE, 2), report["error"]


def test_a_list_that_spark_would_leave_out_is_refused(ingest: Ingest, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", GOOD)
    write(tmp_path / "_b.csv", GOOD)
    for uri in (tmp_path / "*.csv", tmp_path / "_b.csv"):
        code, report = ingest(uri)
        assert code == EXIT_BAD_INPUT and "_b.csv" in report["error"] and "rename it" in report["error"]


def test_rejects_name_their_file_as_it_is_called(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "my list + 50% é [1]"
    folder.mkdir()
    write(folder / "a b.csv", GOOD + "x,95,1\n")
    code, report = ingest(str(tmp_path / "my list*"))
    assert code == EXIT_DONE, report["error"]
    (row,) = ingest.rejects()
    assert row.uri.startswith("file:/") and row.uri.endswith("/my list + 50% é [1]/a b.csv")


CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
WHO = {"image_id": "id", "lat": "lat", "lon": "lon", "author": "user"}


@pytest.mark.skipif(not CASES.exists(), reason="shared/data/cases is not there")
def test_45_images_of_three_words_for_nothing_have_no_author(ingest: Ingest) -> None:
    code, report = ingest(CASES / "noauthor.csv", columns=WHO)
    assert (code, report["details"]["words_for_nothing"]) == (EXIT_DONE, {"author": 45})
    authors = [row.author for row in ingest.images().values()]
    assert authors.count(None) == 45 and all(name is None or name.startswith("user") for name in authors)


def test_one_vocabulary_of_nothing_holds_for_every_optional_column(ingest: Ingest, tmp_path: Path) -> None:
    words = ["nan", "NaN", r"\N", "None", "NULL", "null", "-", "n/a", '""', "  ", "<NA>", "NaT", "#N/A", " nan ", "N/A"]
    names = ["uri", "captured_at", "author", "sequence", "width", "height", "licence"]
    rows = [",".join([f"p{n}", "1", "2", *[word] * len(names)]) for n, word in enumerate(words)]
    rows.append("real,1,2,https://h/a.jpg,2015-04-25,Nana,none such,640,480,CC-BY")
    rows.append("nan,1,2" + "," * len(names))  # an id is no optional column: it stays
    path = write(tmp_path / "list.csv", "\n".join(rows) + "\n", ",".join(["id", "latitude", "longitude", *names]))
    columns = {"image_id": "id", "lat": "latitude", "lon": "longitude", **{name: name for name in names}}
    code, report = ingest(path, columns=columns)
    assert (code, report["rejected"]) == (EXIT_DONE, {}), report["error"]
    images = ingest.images()
    assert set(images) == {*(f"p{n}" for n in range(len(words))), "real", "nan"}
    for n, word in enumerate(words):
        row = images[f"p{n}"]
        assert [row[name] for name in names] == [None] * len(names), word
        assert row.warnings == [], word
    real = images["real"]
    assert (real.uri, real.author, real.sequence, real.width, real.licence) == (
        "https://h/a.jpg", "Nana", "none such", 640, "CC-BY"
    )  # fmt: skip
    worded = len(words) - 2  # an empty field and blanks are no words
    assert report["details"]["words_for_nothing"] == dict.fromkeys(names, worded)


ACCENTS = 'id,latitude,longitude,user\nÎle,10,20,"a ""b"", José"\nÂle,11,21,é\n'
WITH_USER = {"image_id": "id", "lat": "latitude", "lon": "longitude", "author": "user"}


@pytest.mark.skipif(not CASES.exists(), reason="shared/data/cases is not there")
def test_bytes_of_another_encoding_are_refused_with_their_line_or_read_as_told(ingest: Ingest) -> None:
    code, report = ingest(CASES / "cp1252.csv", columns=WHO)
    assert code == EXIT_BAD_INPUT and ingest.committed() == []
    assert all(said in report["error"] for said in ("line 2 ", "cp1252.csv", "source.encoding: windows-1252"))
    code, report = ingest(CASES / "cp1252.csv", columns=WHO, encoding="windows-1252")
    assert (code, report["rejected"]) == (EXIT_DONE, {}), report["error"]
    assert {name: row.author for name, row in ingest.images().items()} == {
        "Île": "José", "Âle": "Josè", "plain": "Bob"
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp037"])
def test_encodings_without_ascii_lines_are_read(spark: SparkSession, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(ACCENTS.encode(encoding))
    java = {"utf-16-le": "UTF-16LE"}.get(encoding, encoding)
    rows = open_csv(spark, Columns(**WITH_USER), ",", find_files(spark, str(path)), encoding=java)
    assert [tuple(row) for row in rows.select("image_id", "lat", "author").collect()] == [
        ("Île", "10", 'a "b", José'), ("Âle", "11", "é")
    ]  # fmt: skip


def test_the_first_line_that_is_not_utf8_is_named_wherever_it_is(ingest: Ingest, tmp_path: Path) -> None:
    lines = [f"i{k},{k % 80},{k % 170}".encode() for k in range(5000)]
    lines[4321] = "é,1,2".encode("latin-1")
    (tmp_path / "list.csv").write_bytes(b"id,latitude,longitude\r\n" + b"\r\n".join(lines) + b"\r\n")
    code, report = ingest(tmp_path / "list.csv")
    assert code == EXIT_BAD_INPUT and "line 4323 " in report["error"], report["error"]  # the header is line 1


@pytest.mark.parametrize(
    ("encoding", "code", "said"),
    [
        ("UTF-8", EXIT_BAD_INPUT, "encoding: UTF-16"),
        ("windows-1522", EXIT_BAD_CONFIG, "windows-1252"),
        ("no such thing", EXIT_BAD_CONFIG, "Java knows no encoding"),
    ],
)
def test_an_encoding_that_cannot_be_is_told(
    ingest: Ingest, tmp_path: Path, encoding: str, code: int, said: str
) -> None:
    (tmp_path / "list.csv").write_bytes(ACCENTS.encode("utf-16"))
    found, report = ingest(tmp_path / "list.csv", columns=WITH_USER, encoding=encoding)
    assert (found, said in report["error"]) == (code, True), report["error"]


def broken(kind: str) -> tuple[str, bytes]:
    whole = gzip.compress(
        ("id,latitude,longitude\n" + "".join(f"i{k},{k % 80},{k**2 % 170}\n" for k in range(9000))).encode()
    )
    return {
        "cut": ("list.csv.gz", whole[: len(whole) // 2]),
        "damaged": ("list.csv.gz", whole[:9000] + b"\x55\xaa\x12" + whole[9003:]),
        "plain": ("list.csv.gz", b"id,latitude,longitude\na,1,2\n"),
        "unnamed": ("list.csv", whole),
        "other": ("list.csv.bz2", whole),
        "xlsx": ("list.csv", b"PK\x03\x04" + bytes(range(100))),
        "parquet": ("list.csv", b"PAR1" + bytes(range(100))),
        "endless": ("list.csv", b"id,latitude,longitude\na,1,2\nb,3," + b"4" * (20 << 20) + b"\n"),
        "endless_packed": (
            "list.csv.gz", gzip.compress(b"id,latitude,longitude\na,1,2\nb,3," + b"4" * (20 << 20) + b"\nc,1,2\n", 1)
        ),
        "open_quote": ("list.csv", b'id,latitude,longitude,user\na,1,2,x\nb,3,4,"' + b"words and words\n" * 600_000),
        "fields": ("list.csv", b"id,latitude,longitude\na,1,2" + b"," * (3 << 20) + b"\n"),
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut", "cut off or damaged"),
        ("damaged", "cut off or damaged"),
        ("plain", "its name says gzip"),
        ("unnamed", "rename it to list.csv.gz"),
        ("other", "its name says bzip2"),
        ("xlsx", "the file is zip"),
        ("parquet", "format: parquet"),
        ("endless", "longer than 8 MiB"),
        ("endless_packed", "longer than 8 MiB"),
        ("open_quote", "longer than 8 MiB"),
        ("fields", "more than 1,048,576 fields"),
    ],
)
def test_what_is_no_whole_list_is_bad_input_and_named(ingest: Ingest, tmp_path: Path, kind: str, said: str) -> None:
    name, content = broken(kind)
    (tmp_path / name).write_bytes(content)
    code, report = ingest(tmp_path / name)
    assert (code, said in report["error"], name in report["error"]) == (EXIT_BAD_INPUT, True, True), report["error"]
    assert ingest.committed() == []


def test_a_list_without_header_and_ids_has_row_numbers(ingest: Ingest, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("\ufeff1.5,2.5,Ann\n3,4,-\n\nx,5,Bob\n7,8,Bob\n".encode())
    columns = {"image_id": None, "lat": 1, "lon": 2, "author": 3}
    code, report = ingest(tmp_path / "list.csv", columns=columns, header=False)
    assert (code, report["rejected"]) == (EXIT_DONE, {"not_a_number": 1}), report["error"]
    found = {name: (row.lat, row.lon, row.author) for name, row in ingest.images().items()}
    assert found == {"1": (1.5, 2.5, "Ann"), "2": (3, 4, None), "4": (7, 8, "Bob")}
    assert [row.id for row in ingest.rejects()] == ["3"]
    code, report = ingest(tmp_path / "list.csv", columns={**columns, "image_id": "id", "lat": "lat"}, run_id="r2")
    assert code == EXIT_BAD_INPUT and "header: false" in report["error"]


def test_row_numbers_do_not_depend_on_how_files_are_cut(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, first, rows in (("a.csv", 0, 40_000), ("b/c.csv", 40_000, 3)):
        write(tmp_path / name, "".join(f"{(first + k) / 1000},1\n" for k in range(rows)), "lat,lon")
    files = find_files(spark, str(tmp_path))
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "65536")
    try:
        rows = with_row_numbers(open_csv(spark, Columns(image_id=None, lat="lat", lon="lon"), ",", files), files)
        found = {float(row.lat): row.image_id for row in rows.select("image_id", "lat").collect()}
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", before)
    expected = {k / 1000: f"a.csv:{k + 1}" for k in range(40_000)}
    assert found == expected | {(40_000 + k) / 1000: f"b/c.csv:{k + 1}" for k in range(3)}


def test_ids_that_mostly_repeat_are_a_warning(ingest: Ingest, tmp_path: Path) -> None:
    code, report = ingest(write(tmp_path / "list.csv", "".join(f"flickr,{k},{k}\n" for k in range(1, 9))))
    assert (code, report["rejected"]) == (EXIT_DONE, {"duplicate_id": 7})
    assert "7 of 8 rows repeat the id" in report["warnings"][0]


def test_longitudes_of_0_to_360_are_wrapped_when_told_and_refused_when_plain(ingest: Ingest, tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "ny,40.7,286\nla,34,241.75\nparis,48.9,2.3\nfiji,-17,180\nend,5,360\n")
    code, report = ingest(path)
    assert code == EXIT_BAD_INPUT and "source.longitudes: 0..360" in report["error"], report["error"]
    code, report = ingest(path, longitudes="0..360")
    assert (code, report["rejected"]) == (EXIT_DONE, {}), report["error"]
    found = {name: row.lon for name, row in ingest.images().items()}
    assert found == {"ny": -74, "la": -118.25, "paris": 2.3, "fiji": 180, "end": 0}
    path = write(tmp_path / "list.csv", "ny,40.7,286\nla,34,-118\nbad,1,361\n")
    code, report = ingest(path, longitudes="0..360", run_id="r2")
    assert (code, report["rejected"]) == (EXIT_DONE, {"lon_out_of_range": 2}), report["error"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,488584000,22945000\nb,-229519000,-432105000\n", "E7"),
        ("a,6250566.72,255422.6\nb,-2627000.1,-4810000.5\nc,0,0\n", "Web Mercator"),
        ("a,-9999,-9999\nb,-9999,-9999\n", "every row is refused (lat_out_of_range 2)"),  # nothing, not a unit
    ],
)
def test_other_units_than_degrees_are_named(ingest: Ingest, tmp_path: Path, rows: str, said: str) -> None:
    code, report = ingest(write(tmp_path / "list.csv", rows))
    assert (code, said in report["error"]) == (EXIT_BAD_INPUT, True), report["error"]


def test_a_header_that_came_as_one_column_names_the_delimiter(ingest: Ingest, tmp_path: Path) -> None:
    for mark, shown in ((";", '";"'), ("\t", '"\\t"')):
        path = write(tmp_path / "list.csv", mark.join("a12") + "\n", mark.join(["id", "latitude", "longitude"]))
        code, report = ingest(path)
        assert (code, f"source.delimiter: {shown}" in report["error"]) == (EXIT_BAD_INPUT, True), report["error"]
