"""A partition whose tasks wait while a file exists, so that a test can strike inside a task for certain.

Workers import it from their PYTHONPATH; the kind of partition that builds it is `kinds/held.py`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from geosieve.geo.arrays import F8, I8
from geosieve.partitions.base import region_table
from geosieve.rasters.candidates import Candidates

_SECONDS = 120.0  # a test that dies must not leave tasks behind for ever


@dataclass(frozen=True)
class HeldPartition:
    """Northern and southern hemisphere. Each task leaves a file `entered-<pid>-…` and waits while `hold` exists."""

    name: str
    digest: str
    folder: str
    n_regions: int = 2

    def regions(self, observed: I8) -> pa.Table:
        return region_table(["north", "south"])

    def outlines(self) -> dict[int, bytes]:
        return {}

    def assigner(self) -> HeldPartition:
        return self

    def assign(self, lat: F8, lon: F8, candidates: Candidates) -> I8:
        folder = Path(self.folder)
        (folder / f"entered-{os.getpid()}-{time.time_ns()}").touch()
        end = time.monotonic() + _SECONDS
        while (folder / "hold").exists() and time.monotonic() < end:
            time.sleep(0.02)
        return np.where(lat < 0, 1, 0).astype(np.int64)
