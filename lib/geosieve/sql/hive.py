"""Plain Hive tables over committed runs, for engines without Iceberg: `python -m geosieve.sql.hive` prints them.

A table is external, and each committed run is a partition of it, so none in the making is seen. No Spark is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from geosieve.runtime.errors import GeosieveError, InputError
from geosieve.runtime.store import StoreFiles, open_input
from geosieve.tables.read import Run, find_runs
from geosieve.tables.schema import Column, Table
from geosieve.tables.schemas import ALL

Flavour = Literal["athena", "trino"]
_ATHENA = {"int": "int", "string": "string", "binary": "binary", "geometry": "binary", "timestamp": "timestamp"}
_TRINO = {
    **{"int": "integer", "string": "varchar", "binary": "varbinary", "geometry": "varbinary"},
    "timestamp": "timestamp(6)",  # must equal the server's hive.timestamp-precision
}
_ARROW = {
    **{pa.int32(): "int", pa.int64(): "bigint", pa.float64(): "double", pa.bool_(): "boolean", pa.string(): "string"},
    **{pa.date32(): "date", pa.binary(): "binary"},
}


def statements(root: str, location: str, flavour: Flavour, schema: str = "geosieve") -> Iterator[str]:
    """The statements for every table that has committed runs below `root`, each without a semicolon.

    `location`: the same folder as the engine names it: `s3://bucket/tables` for Athena; for Trino on local files
    `local:///data/tables`, because with `file:///` it finds no rows. `schema`: of the tables; of Trino, with the
    catalogue. A table that is there is left as it is, and Athena adds the partitions that it lacks. Trino refuses to
    register a partition twice: leave out those that are there.

    InputError if runs have the same column with different types.
    """
    for table in ALL:
        runs = find_runs(StoreFiles(), root, table)
        if not runs:
            continue
        columns = [*table.columns, *_further(table, runs)]
        folder = f"{location.rstrip('/')}/{table.name}"
        yield _create(table, columns, folder, flavour, schema)
        for run in runs:
            yield _partition(table, run, folder, flavour, schema)


def _create(table: Table, columns: list[Column], folder: str, flavour: Flavour, schema: str) -> str:
    quote = '"' if flavour == "trino" else "`"
    told = [f"  {quote}{column.name}{quote} {_type(column.type, flavour)}" for column in columns]
    folders = [column.name for column in table.partition_columns]
    if flavour == "trino":
        # Partition columns are the last ones, in the order of the folders.
        listed = ",\n".join([*told, *(f'  "{name}" varchar' for name in folders)])
        by = ", ".join(f"'{name}'" for name in folders)
        return (
            f'CREATE TABLE IF NOT EXISTS {schema}."{table.name}" (\n{listed}\n)\n'
            f"WITH (format = 'PARQUET', external_location = '{folder}', partitioned_by = ARRAY[{by}])"
        )
    listed, by = ",\n".join(told), ", ".join(f"`{name}` string" for name in folders)
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {schema}.`{table.name}` (\n{listed}\n)\n"
        f"PARTITIONED BY ({by})\nSTORED AS PARQUET\nLOCATION '{folder}/'"
    )


def _partition(table: Table, run: Run, folder: str, flavour: Flavour, schema: str) -> str:
    names = [column.name for column in table.partition_columns]
    leaf = "/".join([folder, *(f"{name}={run.values[name]}" for name in names)])
    if flavour == "trino":
        catalog, _, inside = schema.rpartition(".")
        keys, values = (", ".join(_text(of) for of in some) for some in (names, [run.values[name] for name in names]))
        procedure = f"{catalog}.system" if catalog else "system"
        return (
            f"CALL {procedure}.register_partition('{inside}', '{table.name}', ARRAY[{keys}], ARRAY[{values}], "
            f"{_text(leaf)})"
        )
    told = ", ".join(f"`{name}` = {_text(run.values[name])}" for name in names)
    return f"ALTER TABLE {schema}.`{table.name}` ADD IF NOT EXISTS PARTITION ({told}) LOCATION {_text(leaf + '/')}"


def _further(table: Table, runs: list[Run]) -> list[Column]:
    """Columns that the files have beside the declared ones, e.g. one per partition in `labels`."""
    declared = {column.name for column in table.columns}
    found: dict[str, str] = {}
    for run in runs:
        if not run.files:
            continue
        uri = f"{run.uri}/{run.files[0]}"
        with open_input(uri) as file:
            stored = pq.read_schema(file)
        for field in stored:
            if field.name in declared:
                continue
            kind = _ARROW.get(field.type)
            if kind is None or found.setdefault(field.name, kind) != kind:
                raise InputError(
                    f"column {field.name!r} is {field.type}, which has no place in a table of Hive or has another type "
                    "in another run",
                    where=uri,
                )
    return [Column(name, kind, "") for name, kind in found.items()]


def _type(declared: str, flavour: Flavour) -> str:
    """The engine's name of a type of `schema.Column`."""
    names = _TRINO if flavour == "trino" else _ATHENA
    if declared.startswith("array<"):
        inner = _type(declared[6:-1], flavour)
        return f"array({inner})" if flavour == "trino" else f"array<{inner}>"
    if declared.startswith("struct<"):
        fields = [field.split(":") for field in declared[7:-1].split(",")]
        if flavour == "trino":
            listed = ", ".join(f'"{name}" {names.get(kind, kind)}' for name, kind in fields)
            return f"row({listed})"
        return f"struct<{','.join(f'{name}:{names.get(kind, kind)}' for name, kind in fields)}>"
    return names.get(declared, declared)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def main(arguments: list[str] | None = None) -> int:
    """Print the statements."""
    parser = argparse.ArgumentParser(prog="geosieve.sql.hive", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="root folder of the tables, a path or s3a://bucket/folder")
    parser.add_argument("--location", required=True, help="the same as the engine names it, e.g. s3://bucket/folder")
    parser.add_argument("--flavour", choices=("athena", "trino"), default="athena")
    parser.add_argument("--schema", default="geosieve", help="of the tables; for Trino catalogue.schema")
    options = parser.parse_args(arguments)
    try:
        for statement in statements(options.root, options.location, options.flavour, options.schema):
            print(f"{statement};\n")
    except GeosieveError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
