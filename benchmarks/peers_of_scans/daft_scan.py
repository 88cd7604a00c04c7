"""Photos of a folder to probabilities with Daft, as its documentation shows batch inference: a class of a UDF."""

from __future__ import annotations

import sys
from typing import Any

import daft
import numpy as np
from daft import DataType
from network import BATCH, REGIONS, SIDE, Look

folder, output = sys.argv[1:]


@daft.cls(max_concurrency=1)
class Scores:
    """One instance with two threads."""

    def __init__(self) -> None:
        self.look = Look(threads=2)

    @daft.method.batch(return_dtype=DataType.fixed_size_list(DataType.float32(), REGIONS), batch_size=BATCH)
    def of(self, images: Any) -> Any:
        """Probabilities of a batch of images."""
        return list(self.look(np.stack([np.asarray(image) for image in images.to_pylist()])))


files = daft.from_glob_path(f"{folder}/*.jpg").select("path")
images = daft.col("path").download().decode_image(mode="RGB").resize(SIDE, SIDE)
files.select(daft.col("path"), Scores().of(images).alias("probabilities")).write_parquet(output)
