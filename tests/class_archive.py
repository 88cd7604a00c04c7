"""Makes the archive of classes from which the JVMs of the tests start: `spark-submit tests/class_archive.py`.

A JVM takes 12 s of a processor until its first small query is done; most of it is reading and checking classes, which
it need not do for those in a shared archive (Java's `-XX:SharedArchiveFile`): then it takes 8 s. At its end, the JVM
that runs this writes all classes that it has loaded, so this uses what many tests use.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import functions as F

from geosieve.runtime.session import spark_session


def same(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from batches


def main() -> None:
    with spark_session("classes of the tests", local=False) as spark, tempfile.TemporaryDirectory() as folder:
        rows = spark.range(1000).selectExpr("id", "id % 7 as kind", "id / 10D as lat", "array(id) as ids")
        sorted_rows = rows.mapInArrow(same, rows.schema).repartition("kind").sortWithinPartitions("id")
        sorted_rows.write.partitionBy("kind").parquet(f"{folder}/rows")
        read = spark.read.parquet(f"{folder}/rows")
        read.createOrReplaceTempView("rows")
        areas = spark.sql("select ST_GeomFromText('POLYGON((0 0, 0 50, 50 50, 50 0, 0 0))') as area, 1 as number")
        places = read.join(areas, F.expr("ST_Intersects(ST_Point(lat, lat), area)"))
        places.groupBy("kind").agg(F.countDistinct("id"), F.collect_list("lat"), F.max_by("id", "lat")).collect()
        spark.sql("select id, row_number() over (partition by kind order by lat) as place from rows").toPandas()
        read.join(read.groupBy("kind").count(), "kind").join(F.broadcast(read.limit(9)), "id", "left").collect()
        Path(f"{folder}/lines.json").write_text('{"a": 1, "b": ["c"]}\n')
        spark.read.json(f"{folder}/lines.json").union(spark.sql("select 1 as a, array('c') as b")).distinct().collect()
        spark.read.option("header", "true").csv(f"{folder}/lines.json").count()
        settings = spark.sparkContext._jsc.hadoopConfiguration()
        settings.set("fs.s3a.access.key", "none")
        settings.set("fs.s3a.secret.key", "none")
        settings.set("fs.s3a.endpoint", "http://127.0.0.1:9")
        jvm = spark.sparkContext._jvm
        assert jvm is not None
        jvm.org.apache.hadoop.fs.FileSystem.get(jvm.java.net.URI("s3a://none/"), settings).close()


if __name__ == "__main__":
    main()
