"""Parquet lists: numbers of every type come through unchanged; types that cannot be right are refused."""

from __future__ import annotations

import decimal
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingesting import Ingest

from geosieve.runtime.errors import EXIT_BAD_INPUT, EXIT_DONE

COLUMNS = {"image_id": "id", "lat": "latitude", "lon": "longitude", "captured_at": "taken"}
TAKEN = datetime(2015, 4, 25, 22, 13, 20, tzinfo=UTC)


def save(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(12, 6), pa.string()])
def test_positions_of_any_numeric_type(ingest: Ingest, tmp_path: Path, kind: pa.DataType) -> None:
    exact = ["48.5", "-0.25"]  # exact also in 32 bits
    values = exact if kind == pa.string() else [decimal.Decimal(text) for text in exact]
    if pa.types.is_floating(kind):
        values = [float(text) for text in exact]
    path = save(
        tmp_path / "list.parquet", id=pa.array(["a", "b"]), latitude=pa.array(values, kind), longitude=pa.array([1, 2])
    )
    code, report = ingest(path, format="parquet", columns={k: v for k, v in COLUMNS.items() if k != "captured_at"})
    assert code == EXIT_DONE, report["error"]
    assert [(row.lat, row.lon) for _, row in sorted(ingest.images().items())] == [(48.5, 1), (-0.25, 2)]


@pytest.mark.parametrize(
    "taken",
    [
        pa.array([1430000000000]),
        pa.array([1430000000000.0]),
        pa.array([1430000000], pa.int32()),
        pa.array([TAKEN], pa.timestamp("us", "UTC")),
        pa.array([TAKEN.replace(tzinfo=None)], pa.timestamp("us")),
        pa.array(["2015-04-25 22:13:20"]),
    ],
)
def test_times_of_any_type_are_one_instant(ingest: Ingest, tmp_path: Path, taken: pa.Array) -> None:
    path = save(tmp_path / "list.parquet", id=pa.array([7]), latitude=[1.0], longitude=[2.0], taken=taken)
    assert ingest(path, format="parquet", columns=COLUMNS)[0] == EXIT_DONE
    assert ingest.images()["7"].captured_at.timestamp() == TAKEN.timestamp()


def test_nulls_and_nan_are_missing(ingest: Ingest, tmp_path: Path) -> None:
    path = save(
        tmp_path / "list.parquet",
        id=["a", "b", "c", None],
        latitude=[1.0, float("nan"), None, 1.0],
        longitude=[1.0, 1.0, 1.0, 1.0],
        taken=pa.array([None] * 4, pa.int64()),
    )
    report = ingest(path, format="parquet", columns=COLUMNS)[1]
    assert report["rejected"] == {"missing_position": 2, "missing_id": 1}
    assert ingest.images()["a"].warnings == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": [1.5]}, "cannot hold ids"),
        ({"latitude": [[1.0, 2.0]]}, "is no text, number or time"),
        ({"latitude": [True]}, "is no text, number or time"),
    ],
)
def test_types_that_cannot_be_right_are_refused(ingest: Ingest, tmp_path: Path, change: Any, said: str) -> None:
    path = save(
        tmp_path / "list.parquet", **{"id": ["a"], "latitude": [1.0], "longitude": [2.0], "taken": [1], **change}
    )
    code, report = ingest(path, format="parquet", columns=COLUMNS)
    assert (code, said in report["error"]) == (EXIT_BAD_INPUT, True), report["error"]


def test_files_whose_columns_drift_apart_are_named(ingest: Ingest, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "a.parquet", id=["a"], latitude=[1.0], longitude=[2.0], taken=[1430000000])
    save(folder / "b.parquet", id=["b"], latitude=["1"], longitude=[2.0], taken=[1430000000])
    code, report = ingest(folder, format="parquet", columns=COLUMNS)
    assert (code, "b.parquet" in report["error"], "string but double" in report["error"]) == (
        EXIT_BAD_INPUT,
        True,
        True,
    )
    save(folder / "b.parquet", id=["b"], lat=[1.0], longitude=[2.0], taken=[1430000000])
    code, report = ingest(folder, format="parquet", columns=COLUMNS)
    assert (code, "b.parquet" in report["error"], "'lat'" in report["error"]) == (EXIT_BAD_INPUT, True, True)


def test_what_is_no_parquet_is_named(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    path.write_text("id,latitude,longitude\n")
    code, report = ingest(path, format="parquet", columns=COLUMNS)
    assert (code, "list.parquet" in report["error"]) == (EXIT_BAD_INPUT, True)


CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"


@pytest.mark.skipif(not CASES.exists(), reason="shared/data/cases is not there")
def test_the_default_of_pandas_is_read(ingest: Ingest) -> None:
    columns = {"image_id": "id", "lat": "lat", "lon": "lon", "captured_at": "taken"}
    code, report = ingest(CASES / "ns.parquet", format="parquet", columns=columns)
    assert code == EXIT_DONE, report["error"]
    times = {name: row.captured_at.timestamp() for name, row in ingest.images().items()}
    assert times == {
        "a": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp(),
        "b": datetime(2021, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp(),
    }


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_nanoseconds_before_1970_and_1900_are_times(ingest: Ingest, tmp_path: Path, zone: str | None) -> None:
    known = [datetime(1890, 5, 6, 7, 8, 9, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]
    nanoseconds = pa.array([int(time.timestamp()) * 10**9 for time in known], pa.timestamp("ns", zone))
    others = {  # of types that Spark does not read
        "hour": pa.array([1, 2], pa.time64("ns")),
        "seen": pa.array([1, 2], pa.timestamp("ns")),
    }
    path = save(
        tmp_path / "list.parquet", id=["a", "b"], latitude=[1.0, 2.0], longitude=[1.0, 2.0], taken=nanoseconds, **others
    )
    code, report = ingest(path, format="parquet", columns=COLUMNS)
    assert code == EXIT_DONE, report["error"]
    assert [row.captured_at.timestamp() for _, row in sorted(ingest.images().items())] == [t.timestamp() for t in known]
    code, report = ingest(path, format="parquet", columns={**COLUMNS, "captured_at": "hour"}, run_id="r2")
    assert (code, "cannot be read" in report["error"]) == (EXIT_BAD_INPUT, True)


def test_texts_of_parquet_that_are_not_utf8_are_refused(ingest: Ingest, tmp_path: Path) -> None:
    # Arrow's offsets 0, 3, 6 into the bytes of \u00cele and \u00c2le in Windows-1252
    offsets, letters = pa.py_buffer(struct.pack("<3i", 0, 3, 6)), pa.py_buffer(b"\xcele\xc2le")
    ids = pa.Array.from_buffers(pa.string(), 2, [None, offsets, letters])
    path = save(tmp_path / "list.parquet", id=ids, latitude=[1.0, 2.0], longitude=[1.0, 2.0])
    columns = {name: theirs for name, theirs in COLUMNS.items() if name != "captured_at"}
    code, report = ingest(path, format="parquet", columns=columns)
    assert (code, "'id' holds text that is not UTF-8" in report["error"]) == (EXIT_BAD_INPUT, True), report["error"]


def test_a_damaged_page_of_texts_ends_the_job(ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    table = pa.table({"id": [f"p{k}" for k in range(100)], "latitude": [1.0] * 100, "longitude": [2.0] * 100})
    pq.write_table(table, path, use_dictionary=False)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = bytes(
        chunk.total_compressed_size
    )
    path.write_bytes(content)
    code, report = ingest(path, format="parquet", columns={k: v for k, v in COLUMNS.items() if k != "captured_at"})
    assert code == EXIT_BAD_INPUT and "damaged" in report["error"]
