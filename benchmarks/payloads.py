"""Payloads of 200 kB in Python workers on two cores, by references that Spark moves: from a tar, from a Parquet column.

The payloads are random bytes. A task adds up their lengths; nothing is decoded.

Run from the repository's root: python -m benchmarks.payloads
"""

from __future__ import annotations

import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from benchmarks.timing import bar

PAYLOADS, SIZE = 20_000, 200_000
BAR = 5_000
REPEATS = 3


def make(root: Path) -> None:
    """A tar and eight Parquet files of the same payloads."""
    noise = np.random.default_rng(0)
    blocks = [noise.bytes(SIZE) for _ in range(100)]
    with tarfile.open(root / "a.tar", "w") as archive:
        for number in range(PAYLOADS):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = SIZE
            archive.addfile(member, io.BytesIO(blocks[number % 100]))
    (root / "parquet").mkdir()
    column = pa.array(blocks * (PAYLOADS // 8 // 100), pa.binary())
    for number in range(8):
        path = root / "parquet" / f"{number}.parquet"
        pq.write_table(pa.table({"image": column}), path, compression="none", use_dictionary=False, row_group_size=500)


def in_a_tar(spark: SparkSession, root: Path) -> DataFrame:
    """References to all members of the tar."""
    from geosieve.images.archives import list_members
    from geosieve.images.content import placed
    from geosieve.images.members import Member
    from geosieve.images.photo_rows import PhotoLimits

    uri = f"file:{root}/a.tar"
    members = [member for member in list_members(uri, PhotoLimits()) if isinstance(member, Member)]
    rows = [(uri, member.name, member.data, member.length, "none", None) for member in members]
    schema = "uri string, member string, offset bigint, length bigint, compression string, content_sha256 string"
    frame = placed(spark.createDataFrame(rows, schema), PAYLOADS * SIZE).persist()
    frame.count()
    return frame


def in_parquet(spark: SparkSession, root: Path) -> DataFrame:
    """References to all cells of the column."""
    place = ("'image' AS member", "_metadata.row_index AS offset", "0L AS length", "'parquet' AS compression")
    rows = spark.read.parquet(str(root / "parquet"))
    return rows.selectExpr("input_file_name() AS uri", *place, "CAST(NULL AS STRING) AS content_sha256")


def total_bytes(frame: DataFrame) -> int:
    """The bytes of all images that `frame` points to, read by its tasks."""
    from geosieve.images.content import read_contents
    from geosieve.images.photo_rows import PhotoLimits

    def lengths(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        read = read_contents((row for batch in batches for row in batch.to_pylist()), PhotoLimits())
        yield pa.RecordBatch.from_pydict({"bytes": [sum(len(found) for _, found in read if isinstance(found, bytes))]})

    return sum(row["bytes"] for row in frame.mapInArrow(lengths, "bytes bigint").collect())


def main() -> int:
    """Return exit code 1 if a bar is missed."""
    from geosieve.runtime.session import spark_session

    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--master local[2] --driver-memory 2g pyspark-shell")
    met = []
    with tempfile.TemporaryDirectory() as work, spark_session("payloads", local=False) as spark:
        make(Path(work))
        os.sync()  # or the disk would still be written to
        for name, references in (("from a tar", in_a_tar), ("from a column of Parquet", in_parquet)):
            seconds, frame = [], references(spark, Path(work))
            for _ in range(REPEATS):
                start = perf_counter()
                assert total_bytes(frame) == PAYLOADS * SIZE
                seconds.append(perf_counter() - start)
            met.append(bar(f"payloads of {SIZE // 1_000} kB {name}", PAYLOADS / min(seconds), BAR, "/s", at_least=True))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
