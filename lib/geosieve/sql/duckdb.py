"""Views of committed runs for DuckDB, which does not know `_SUCCESS`: `python -m geosieve.sql.duckdb ROOT` prints them.

Spark is not started. Of a table without rows there is a view, too, so that a query that names it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from geosieve.runtime.store import StoreFiles
from geosieve.tables.read import find_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import ALL

_TYPES = {
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "binary": "BLOB",
    "geometry": "BLOB",
}


def views(root: str) -> list[str]:
    """A statement for each table, `CREATE OR REPLACE VIEW`, over exactly the files of its committed runs.

    Columns that a run lacks are null in it. Partition columns are strings. The views know the runs that are committed
    now: make them anew after a job. S3's files are named `s3://`, which needs DuckDB's extension httpfs.
    """
    return [_view(root, table) for table in ALL]


def register(connection: Any, root: str) -> None:
    """Make the views in a connection of DuckDB."""
    for statement in views(root):
        connection.execute(statement)


def _view(root: str, table: Table) -> str:
    files = [f"{run.uri}/{name}" for run in find_runs(StoreFiles(), root, table) for name in run.files if run.rows]
    columns = ", ".join(
        f'NULL::{_type(column.type)} AS "{column.name}"' for column in (*table.columns, *table.partition_columns)
    )
    rows = f"SELECT * FROM (SELECT {columns}) WHERE false"  # noqa: S608 (names of declarations)
    if files:
        listed = ",\n    ".join(_quoted(_address(uri)) for uri in files)
        # Without the second option, a run id of digits would become a number.
        options = "hive_partitioning = true, hive_types_autocast = false, union_by_name = true"
        rows += f"\nUNION ALL BY NAME SELECT * FROM read_parquet([\n    {listed}\n], {options})"  # noqa: S608
    return f'CREATE OR REPLACE VIEW "{table.name}" AS {rows};'


def _type(declared: str) -> str:
    """DuckDB's name of a type of `schema.Column`."""
    if declared.startswith("array<"):
        return f"{_type(declared[6:-1])}[]"
    if declared.startswith("struct<"):
        fields = (field.split(":") for field in declared[7:-1].split(","))
        listed = ", ".join(f'"{name}" {_TYPES[kind]}' for name, kind in fields)
        return f"STRUCT({listed})"
    return _TYPES[declared]


def _address(uri: str) -> str:
    """A file as DuckDB names it."""
    for scheme in ("s3a://", "s3n://"):
        if uri.startswith(scheme):
            return f"s3://{uri.removeprefix(scheme)}"
    if uri.startswith("file:"):
        return f"/{uri.removeprefix('file:').lstrip('/')}"
    return uri if "://" in uri else os.path.abspath(uri)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def main() -> int:
    """Print the views."""
    parser = argparse.ArgumentParser(prog="geosieve.sql.duckdb", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="root folder of the tables, a path or s3a://bucket/folder")
    print("\n\n".join(views(parser.parse_args().root)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
