"""Committed runs of small tables, written without Spark."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.pandas.types import to_arrow_schema

from geosieve.tables.schema import Table


def commit(
    root: Path, table: Table, values: Mapping[str, str], rows: Sequence[Mapping[str, Any]], done: bool = True
) -> Path:
    """Write a run of a table in two files; without `done`, it stays in the making."""
    leaf = root / table.name / "/".join(f"{column.name}={values[column.name]}" for column in table.partition_columns)
    leaf.mkdir(parents=True)
    schema = to_arrow_schema(table.spark_schema())
    schema = pa.schema(
        [pa.field(f.name, pa.timestamp("us", "UTC") if pa.types.is_timestamp(f.type) else f.type) for f in schema]
    )
    if table.geometry is not None:
        geo = {"encoding": "WKB", "geometry_types": []}
        told = {"version": "1.1.0", "primary_column": table.geometry.name, "columns": {table.geometry.name: geo}}
        schema = schema.with_metadata({"geo": json.dumps(told)})
    files = []
    for n, some in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        whole = [{name: row.get(name) for name in schema.names} for row in some]
        path = leaf / f"part-{n:05d}.zstd.parquet"
        pq.write_table(pa.Table.from_pylist(whole, schema=schema), path, compression="zstd")
        files.append({"name": path.name, "bytes": path.stat().st_size})
    told = {"files": files, "rows": len(rows), "committed_at": "2026-01-01T00:00:00+00:00", "attempt": "a"}
    if done:
        (leaf / "_SUCCESS").write_text(json.dumps(told))
    return leaf


def image(image_id: str, lat: float, lon: float, uri: str | None = None, content: bytes = b"") -> dict[str, Any]:
    """A row of `images`: of a file with this content, or of a list if it has no `uri`."""
    row = {"image_id": image_id, "lat": float(lat), "lon": float(lon), "warnings": []}
    if uri is None:
        return row
    of_file = {"uri": uri, "offset": 0, "length": len(content), "compression": "none"}
    return {**row, **of_file, "content_sha256": hashlib.sha256(content).hexdigest()}
