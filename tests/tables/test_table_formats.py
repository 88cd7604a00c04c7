"""The tables as other engines see them: types, time zone, compression, GeoParquet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from geosieve.runtime.errors import InputError
from geosieve.tables import schemas
from geosieve.tables.publish import Leaf, Publication
from geosieve.tables.read import committed_runs, read_runs
from geosieve.tables.schema import BBOX, Column, Table
from geosieve.tables.schemas import LABELS, labels_table

ALL = [*(table for table in schemas.ALL if table is not LABELS), labels_table(["koppen", "s2_l10"])]
SQUARE = shapely.box(10.0, -5.5, 12.25, 3.0)
MOMENT = datetime(2019, 12, 31, 23, 59, 59, 123456, tzinfo=UTC)

# What a bigint is to each engine: 64 bits and signed, and so on; no engine needs another type than these.
ARROW = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "binary": pa.binary(),
    "geometry": pa.binary(),
}
DUCKDB = {
    "string": {"VARCHAR"},
    "boolean": {"BOOLEAN"},
    "int": {"INTEGER"},
    "bigint": {"BIGINT"},
    "double": {"DOUBLE"},
    "timestamp": {"TIMESTAMP WITH TIME ZONE"},
    "date": {"DATE"},
    "binary": {"BLOB"},
    "geometry": {"BLOB", "GEOMETRY('OGC:CRS84')", "GEOMETRY"},  # as its version knows GeoParquet
}
EXAMPLES: dict[str, Any] = {
    "string": "Åre, “quoted”\n",
    "boolean": True,
    "int": -(2**31),
    "bigint": -(2**63),
    "double": -179.123456789012,
    "timestamp": MOMENT,
    "date": date(1970, 1, 1),
    "binary": b"\xff\xd8\0",
    "geometry": SQUARE.wkb,
}


def _example(kind: str) -> Any:
    if kind.startswith("array<"):
        return [_example(kind[6:-1])] * 2
    if kind.startswith("struct<"):
        return {name: _example(of) for name, of in _members(kind)}
    return EXAMPLES[kind]


def _members(kind: str) -> list[list[str]]:
    return [pair.split(":") for pair in kind[7:-1].split(",")]


def _arrow(kind: str) -> pa.DataType:
    if kind.startswith("array<"):
        return pa.list_(pa.field("element", _arrow(kind[6:-1])))
    if kind.startswith("struct<"):
        return pa.struct([(name, _arrow(of)) for name, of in _members(kind)])
    return ARROW[kind]


def _rows(table: Table) -> list[dict[str, Any]]:
    """A full row, and one with every nullable column null."""
    columns = [column for column in table.columns if column != BBOX]
    full = {column.name: _example(column.type) for column in columns}
    return [full, {c.name: None if c.nullable else full[c.name] for c in columns}]


def _frame(spark: SparkSession, table: Table) -> DataFrame:
    fields = [field for field in table.spark_schema().fields if field.name != BBOX.name]
    frame = spark.createDataFrame(_rows(table), StructType(fields)).coalesce(1)
    if table.geometry is not None:
        frame = frame.withColumn(table.geometry.name, F.expr(f"ST_GeomFromWKB({table.geometry.name})"))
    return frame


@dataclass(frozen=True)
class Published:
    """A committed run that holds a table's example rows in one file."""

    table: Table
    root: str
    file: Path


@pytest.fixture(scope="module", params=ALL, ids=lambda table: table.name)
def published(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> Published:
    table, root = request.param, str(tmp_path_factory.mktemp(request.param.name))
    leaf = Leaf(table, {column.name: "x" for column in table.partitions})
    # Rejects are never a run's main table: they count beside it.
    leaves = [leaf, Leaf(schemas.PARTITIONS, {"job": "x"})] if table is schemas.REJECTS else [leaf]
    publication = Publication(spark, root, "r1", "{}", "0" * 64, leaves)
    publication.begin()
    rows = [publication.write(each.table, _frame(spark, each.table)) for each in leaves]
    assert set(rows) == {2}
    publication.commit(sum(rows), "{}")
    (file,) = Path(leaf.uri(root, "r1")).glob("part-*.parquet")
    return Published(table, root, file)


def test_every_table_is_what_it_says_to_spark_pyarrow_and_duckdb(spark: SparkSession, published: Published) -> None:
    table, file, expected = published.table, published.file, _rows(published.table)

    arrow = pq.ParquetFile(file)
    assert {field.name: field.type for field in arrow.schema_arrow} == {c.name: _arrow(c.type) for c in table.columns}
    stored = arrow.read().to_pylist()
    assert [_without_bbox(row) for row in stored] == expected

    described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet('{file}', hive_partitioning=false)").fetchall()
    found = {name: kind for name, kind, *_ in described}
    assert set(found) == {column.name for column in table.columns}
    for column in table.columns:
        assert column.type not in DUCKDB or found[column.name] in DUCKDB[column.type]
        assert not any(narrow in found[column.name] for narrow in ("TINYINT", "SMALLINT", "UINTEGER", "UBIGINT"))

    runs = committed_runs(spark, published.root, table)
    rows = read_runs(spark, published.root, table, runs).collect()
    assert [row["run_id"] for row in rows] == ["r1", "r1"]
    assert [_without_bbox(row.asDict(recursive=True), table) for row in rows] == [_naive(row) for row in expected]


def _without_bbox(row: dict[str, Any], table: Table | None = None) -> dict[str, Any]:
    drop = {BBOX.name, *(column.name for column in table.partition_columns)} if table else {BBOX.name}
    return {name: value for name, value in row.items() if name not in drop}


def _naive(row: dict[str, Any]) -> dict[str, Any]:
    """PySpark gives timestamps in the machine's zone and without one."""
    local = {k: v.astimezone().replace(tzinfo=None) for k, v in row.items() if isinstance(v, datetime)}
    return {**row, **local}


def test_files_hold_only_types_that_athena_reads(published: Published) -> None:
    metadata = pq.ParquetFile(published.file).metadata
    for number in range(len(metadata.schema)):
        column = metadata.schema.column(number)
        logical = json.loads(column.logical_type.to_json())
        assert column.physical_type in {"BOOLEAN", "INT32", "INT64", "DOUBLE", "BYTE_ARRAY"}, column.name
        if logical["Type"] == "Int":
            assert logical["isSigned"] and logical["bitWidth"] >= 32, column.name
        if logical["Type"] == "Timestamp":
            assert logical["isAdjustedToUTC"] and logical["timeUnit"] == "microseconds", column.name
    group = metadata.row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}


def test_tables_with_a_geometry_are_geoparquet_with_a_bbox_covering(published: Published) -> None:
    file = pq.ParquetFile(published.file)
    geometry = published.table.geometry
    if geometry is None:
        assert b"geo" not in file.schema_arrow.metadata
        return
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == geometry.name
    column = geo["columns"][geometry.name]
    assert column["encoding"] == "WKB"
    assert "crs" not in column  # absent means OGC:CRS84: longitude before latitude
    assert column["geometry_types"] == ["Polygon"]
    edges = {edge: ["bbox", edge] for edge in ("xmin", "ymin", "xmax", "ymax")}
    assert column["covering"] == {"bbox": edges}
    for row in file.read().to_pylist():
        if row[geometry.name] is None:
            assert row["bbox"] is None
        else:
            assert tuple(row["bbox"][edge] for edge in edges) == SQUARE.bounds


def test_a_writer_that_drifted_from_the_declaration_is_named_column_by_column(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("a", 1, 0.5)], "partition string, n_regions int, extra double")
    with pytest.raises(InputError) as caught:
        schemas.PARTITIONS.conform(frame)
    faults = set(caught.value.what.split("; "))
    assert faults == {
        "partition_hash is missing",
        "kind is missing",
        "definition is missing",
        "extra is not declared",
        "n_regions is int, not bigint",
    }
    assert "partitions" in caught.value.where


def test_conform_puts_columns_into_the_declared_order(spark: SparkSession) -> None:
    columns = [column.name for column in schemas.REJECTS.columns]
    frame = spark.createDataFrame([tuple(columns[::-1])], [*columns[::-1]])
    assert schemas.REJECTS.conform(frame).columns == columns


def test_a_partition_may_not_take_the_name_of_a_column() -> None:
    for name in ("lat", "run_id"):
        with pytest.raises(ValueError, match=name):
            labels_table([name])
    with pytest.raises(ValueError, match="twice"):
        labels_table(["twice", "once", "twice"])


def test_declarations_use_only_the_types_of_the_contract() -> None:
    for table in ALL:
        for column in table.columns:
            inner = column.type.removeprefix("array<").removeprefix("struct<").rstrip(">")
            kinds = {pair.split(":")[-1] for pair in inner.split(",")}
            assert kinds <= set(ARROW), f"{table.name}.{column.name}"
            assert not column.type.startswith("array<") or column.type.startswith("array<struct<")
        assert all(column.type == "string" for column in table.partition_columns)
        assert table.partition_columns[-1] == Column("run_id", "string", "the run that wrote the row")


def test_the_documentation_of_tables_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "tables.md"
    assert page.read_text(encoding="utf-8") == schemas.documentation()


def test_pages_and_row_groups_of_pictures_are_small(spark: SparkSession, tmp_path: Path) -> None:
    """A page holds one picture that is larger than a page, not a hundred: a task has them in memory at once."""
    pictures = Table(
        "pictures",
        "One row a picture.",
        (Column("id", "bigint", "its number"), Column("file", "binary", "its file")),
        row_group_bytes=16 << 20,
    )
    size, rows = 2 << 20, 40
    noise = F.pandas_udf(lambda ids: ids.map(lambda k: np.random.default_rng(k).bytes(size)), "binary")
    attempt = Publication(spark, str(tmp_path), "r1", "{}", "0" * 64, [Leaf(pictures)])
    assert attempt.begin()
    attempt.write(pictures, spark.range(0, rows, 1, 1).select("id", noise("id").alias("file")))
    attempt.commit(rows, "{}")
    (file,) = (tmp_path / "pictures" / "run_id=r1").glob("*.parquet")
    groups = pq.ParquetFile(file).metadata
    assert max(groups.row_group(k).total_byte_size for k in range(groups.num_row_groups)) <= (16 << 20) + 2 * size
    parquet, hadoop = spark._jvm.org.apache.parquet, spark._jvm.org.apache.hadoop  # type: ignore[union-attr]
    configuration = spark._jsparkSession.sessionState().newHadoopConf()  # type: ignore[attr-defined]
    reader = parquet.hadoop.ParquetFileReader.open(
        parquet.hadoop.util.HadoopInputFile.fromPath(hadoop.fs.Path(f"file:{file}"), configuration)
    )
    try:
        for block in reader.getRowGroups():
            pages = [reader.readOffsetIndex(column).getPageCount() for column in block.getColumns()]
            assert pages == [1, block.getRowCount()]
    finally:
        reader.close()
