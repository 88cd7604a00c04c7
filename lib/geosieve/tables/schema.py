"""Declarations of tables. The Spark schema, the check before writing and docs/tables.md come from one declaration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pyspark.sql import DataFrame
from pyspark.sql.functions import expr
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DateType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from geosieve.runtime.errors import InputError

# Only types that Athena reads: it has no unsigned integers and misreads 8- and 16-bit integers.
_SCALARS: dict[str, DataType] = {
    "string": StringType(),
    "boolean": BooleanType(),
    "int": IntegerType(),
    "bigint": LongType(),
    "double": DoubleType(),
    "timestamp": TimestampType(),
    "date": DateType(),
    "binary": BinaryType(),
    "geometry": BinaryType(),  # WKB in the files
}


def _spark_type(text: str) -> DataType:
    """Parse a scalar name, `struct<a:double,…>` of scalars, or `array<…>` of one of these. KeyError for other names."""
    if text.startswith("array<"):
        return ArrayType(_spark_type(text[6:-1]))
    if text.startswith("struct<"):
        pairs = (pair.split(":") for pair in text[7:-1].split(","))
        return StructType([StructField(name, _SCALARS[kind]) for name, kind in pairs])
    return _SCALARS[text]


@dataclass(frozen=True)
class Column:
    """A column. `type` is written as in Spark's DDL, or `geometry` for a Sedona geometry, which is stored as WKB."""

    name: str
    type: str
    meaning: str
    nullable: bool = False

    @property
    def spark_type(self) -> DataType:
        """The Spark type of the column in the files."""
        return _spark_type(self.type)


BBOX = Column(
    "bbox",
    "struct<xmin:double,ymin:double,xmax:double,ymax:double>",
    "bounds of the geometry, degrees (GeoParquet's covering); filled in when the table is written",
    nullable=True,
)


@dataclass(frozen=True)
class Table:
    """A table. `columns` are stored in the files; `partitions` are string columns stored in the folder names.

    `run_id` is always the last partition column and is not in `partitions`, so a leaf folder contains one run. Files
    begin another row group after about `row_group_bytes`; None: after 128 MiB, Parquet's default.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    partitions: tuple[Column, ...] = ()
    row_group_bytes: int | None = None

    @property
    def partition_columns(self) -> tuple[Column, ...]:
        """All partition columns in the order of the folders, `run_id` last."""
        return (*self.partitions, Column("run_id", "string", "the run that wrote the row"))

    @property
    def geometry(self) -> Column | None:
        """The geometry column, or None. A table with a geometry is written as GeoParquet 1.1."""
        return next((column for column in self.columns if column.type == "geometry"), None)

    def with_columns(self, columns: list[Column]) -> Table:
        """This table with more stored columns, e.g. one per partition. ValueError if a name would occur twice."""
        taken = {column.name for column in (*self.columns, *self.partition_columns)}
        for column in columns:
            if column.name in taken:
                raise ValueError(f"table {self.name} already has a column {column.name!r}")
            taken.add(column.name)
        return replace(self, columns=(*self.columns, *columns))

    def spark_schema(self) -> StructType:
        """The Spark schema of the files, without partition columns. A geometry is binary (WKB)."""
        return StructType([StructField(c.name, c.spark_type, c.nullable) for c in self.columns])

    def conform(self, frame: DataFrame) -> DataFrame:
        """Check the columns of `frame` before writing and return them in the declared order.

        If the table has a geometry, `bbox` is computed from it. InputError lists the columns that are missing, that
        are not declared or that have another type.
        """
        if self.geometry is not None:
            g = f"`{self.geometry.name}`"
            bounds = f"ST_XMin({g}) AS xmin, ST_YMin({g}) AS ymin, ST_XMax({g}) AS xmax, ST_YMax({g}) AS ymax"
            frame = frame.withColumn(BBOX.name, expr(f"CASE WHEN {g} IS NOT NULL THEN struct({bounds}) END"))
        have = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
        want = {c.name: "udt" if c is self.geometry else c.spark_type.simpleString() for c in self.columns}
        faults = [f"{name} is missing" for name in want.keys() - have.keys()]
        faults += [f"{name} is not declared" for name in have.keys() - want.keys()]
        faults += [
            f"{name} is {have[name]}, not {want[name]}"
            for name in want.keys() & have.keys()
            if have[name] != want[name]
        ]
        if faults:
            raise InputError("; ".join(sorted(faults)), where=f"table {self.name}", hint="see docs/tables.md")
        return frame.select([column.name for column in self.columns])

    def markdown(self) -> str:
        """This table's section of docs/tables.md."""
        folder = "/".join(f"{column.name}=…" for column in self.partition_columns)
        rows = [
            f"| `{c.name}` | {c.type}{' (partition)' if c in self.partition_columns else ''} "
            f"| {'yes' if c.nullable else 'no'} | {c.meaning} |"
            for c in (*self.columns, *self.partition_columns)
        ]
        head = ["| column | type | null | meaning |", "|---|---|---|---|"]
        return "\n".join([f"## {self.name}", "", self.meaning, "", f"Folder: `{self.name}/{folder}`", "", *head, *rows])
