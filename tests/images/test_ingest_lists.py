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

from geosieve.runtime.errors import EXIT_BAD_CONFIG, EXIT_BAD_INPUT, EXIT_DONE, EXIT_NOTHING_TO_DO

COORDS = Path(__file__).parents[3] / "shared" / "data" / "coords"
CONF = Path(__file__).parents[2] / "conf" / "sources"

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
    }
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
    assert (code, report["status"], ingest.root.exists()) == (EXIT_DONE, "dry_run", False)
    assert ingest(path)[0] == EXIT_DONE
    before = sorted((p, p.stat().st_mtime_ns) for p in ingest.root.rglob("*"))
    code, report = ingest(path)
    assert (code, report["status"]) == (EXIT_NOTHING_TO_DO, "nothing_to_do")
    assert sorted((p, p.stat().st_mtime_ns) for p in ingest.root.rglob("*")) == before


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
