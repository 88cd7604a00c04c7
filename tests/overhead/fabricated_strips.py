"""Small seeded strips, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter


def write_strip(path: Path, values: NDArray[Any], transform: Affine, crs: str | None, **options: Any) -> Path:
    """A GeoTIFF of `values` (bands, rows, columns)."""
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **{**profile, "crs": crs, "transform": transform, **options}) as strip:
        strip.write(values)
    return path


def texture(bands: int, height: int, width: int, dtype: str = "uint16", high: float = 2000.0, seed: int = 0) -> Any:
    """Something like ground: smooth in places, with edges and noise; values from about 0 to `high`."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([gaussian_filter(rng.normal(size=(height, width)), 6) for _ in range(bands)])
    edges = gaussian_filter(rng.normal(size=(height, width)), 12) > 0
    values = high * (0.35 + 2.0 * smooth + 0.25 * edges + 0.01 * rng.normal(size=smooth.shape))
    return np.clip(values, 1, high).astype(dtype)
