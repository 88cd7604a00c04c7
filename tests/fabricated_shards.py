"""Training shards without Spark: files of small pictures whose colour tells their region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from geosieve.training.loader import ShardFiles

COLOURS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [200, 200, 40]], dtype=np.float64)
"""Of the regions of the partition `colour`. The partition `warm` has two regions: 0 and 3 are warm, 1 and 2 are not."""
WARM = np.array([0, 1, 1, 0])


def picture(rng: np.random.Generator, region: int, side: int = 40) -> bytes:
    """A JPEG file of a colour near that of the region, with noise."""
    pixels = COLOURS[region] + rng.normal(0, 25, 3) + rng.normal(0, 30, (side, side + 8, 3))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)), 90, "RGB", "444")


def write_shards(folder: Path, files: int, rows: int, seed: int = 0, split: str = "train") -> ShardFiles:
    """Files of `rows` pictures and one picture fewer, in turn. One picture in ten has no region."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    uris, counts = [], []
    for file in range(files):
        n = rows - file % 2
        regions = rng.integers(0, len(COLOURS), n)
        known = rng.random(n) >= 0.1
        table = pa.table(
            {
                "source": ["fabricated"] * n,
                "image_id": [f"{split}{file:02d}/{row:04d}" for row in range(n)],
                "shard": pa.array([file] * n, pa.int32()),
                "shard_row": pa.array(range(n), pa.int32()),
                "image": [picture(rng, int(region)) for region in regions],
                "lat": rng.uniform(-60, 60, n),
                "lon": rng.uniform(-180, 180, n),
                "colour": np.where(known, regions, -1),
                "warm": np.where(known, WARM[regions], -2),
            }
        )
        path = folder / f"part-{file:05d}.zstd.parquet"
        pq.write_table(table, path, row_group_size=n)
        uris.append(f"file:{path}")
        counts.append(n)
    return ShardFiles(tuple(uris), tuple(counts), ("colour", "warm"))
