"""Sampling a raster at points with common alternatives: rioxarray, rasterstats, GeoPandas with rasterio.sample."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
from numpy.typing import NDArray

from benchmarks.fabricate import NODATA, clustered_points, landscan_like
from benchmarks.timing import REPEATS, one_core
from geosieve.geo.arrays import F8

POINTS = 1_000_000


def ours(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """Values by geosieve at points in degrees, shape (n,)."""
    from benchmarks.sampling import ours

    return ours(path, lat, lon)


def rioxarray_sel(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """The same by rioxarray, with a vectorised `sel` of the nearest pixels."""
    import rioxarray
    import xarray

    with rioxarray.open_rasterio(path) as raster:
        x, y = xarray.DataArray(lon, dims="point"), xarray.DataArray(lat, dims="point")
        return np.asarray(raster.isel(band=0).sel(x=x, y=y, method="nearest").to_numpy())


def geopandas_sample(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """The same by GeoPandas points and rasterio's `sample`."""
    import geopandas
    import rasterio

    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(lon, lat), crs=4326)
    with rasterio.open(path) as raster:
        return np.array([value[0] for value in raster.sample(zip(frame.geometry.x, frame.geometry.y, strict=True))])


def geopandas_sample_sorted(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """As `geopandas_sample`, with points sorted by longitude, then latitude, as rasterio's `sort_xy` does."""
    order = np.lexsort((lat, lon))
    values = geopandas_sample(path, lat[order], lon[order])
    return values[np.argsort(order)]


def rasterstats_query(path: Path, lat: F8, lon: F8) -> NDArray[np.generic]:
    """The same by GeoPandas points and rasterstats' `point_query`, without interpolation."""
    import geopandas
    import rasterstats

    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy(lon, lat), crs=4326)
    values = rasterstats.point_query(frame, str(path), interpolate="nearest")
    return np.array([NODATA if value is None else value for value in values])


# Number of points for each peer: at most as many as it samples in about a minute.
PEERS: dict[Callable[[Path, F8, F8], NDArray[np.generic]], int] = {
    ours: POINTS,
    rioxarray_sel: POINTS,
    geopandas_sample_sorted: 100_000,
    geopandas_sample: 100_000,
    rasterstats_query: 2_000,
}


def measure(peer: Callable[[Path, F8, F8], NDArray[np.generic]], n: int) -> tuple[float, float, NDArray[np.generic]]:
    """Sample the first n points. Return processor seconds, the peak memory of this process in GiB, and the values."""
    one_core()
    lat, lon = clustered_points(POINTS, seed=7)
    path = landscan_like(1).resolve()
    peer(path, lat[:1], lon[:1])  # imports
    start = process_time()
    values = peer(path, lat[:n], lon[:n])
    return process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, values


def in_fresh_process(peer: Callable[..., NDArray[np.generic]], n: int) -> tuple[float, float, NDArray[np.generic]]:
    """`measure` in a new process, so that the peak memory is that of this peer alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, peer, n).result()


def main() -> int:
    """Print a table. Return exit code 0.

    The column `differ` counts points with another value than ours. Nearest-neighbour rules differ at pixel edges.
    """
    runs = {peer: [] for peer in PEERS}
    for _ in range(REPEATS):
        for peer, n in PEERS.items():
            runs[peer].append(in_fresh_process(peer, n))
    truth = runs[ours][0][2]
    our_rate = POINTS / median(run[0] for run in runs[ours])
    print(f"{'':24} {'points':>9} {'points/s':>9} {'ours/peer':>9} {'peak GiB':>8} {'differ':>6}")
    for peer, n in PEERS.items():
        rate = n / median(run[0] for run in runs[peer])
        peak = max(run[1] for run in runs[peer])
        differ = int((runs[peer][0][2] != truth[:n]).sum())
        print(f"{peer.__name__:24} {n:9,} {rate:9,.0f} {our_rate / rate:9,.1f} {peak:8.2f} {differ:6}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
