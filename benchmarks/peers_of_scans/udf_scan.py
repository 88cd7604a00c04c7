"""Photos of a folder to probabilities with a pandas UDF of Spark, as documented: a model once per iterator."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf

folder, output = sys.argv[1:]
HERE = str(Path(__file__).parent)


spark = SparkSession.builder.master("local[2]").config("spark.driver.memory", "4g").getOrCreate()


@pandas_udf("array<float>")  # type: ignore[call-overload]
def scores(contents: Iterator[pd.Series]) -> Iterator[pd.Series]:
    """Probabilities of images that are given as the bytes of their files."""
    sys.path.append(HERE)
    from network import SIDE, Look

    look = Look(threads=1)
    for some in contents:
        pictures = [Image.open(io.BytesIO(one)).convert("RGB").resize((SIDE, SIDE)) for one in some]
        yield pd.Series(list(look(np.stack([np.asarray(one) for one in pictures]))))


files = spark.read.format("binaryFile").option("pathGlobFilter", "*.jpg").load(folder)
files.select("path", scores("content").alias("probabilities")).write.parquet(output)
