"""The demo of data sets from above and from the street: strips, chips, pairs, and a page to look at.

A SYNTHETIC city lies on the border of two UTM zones; a strip was taken of each side. Synthetic photos were taken in its
streets, some by authors who allow nothing, some twice, some outside of the strips. Where the samples of real WorldView
strips are at hand (../shared/data/satellite), they are prepared, too, with synthetic photos around their middles.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.warp import transform

from demo import city, prepare
from demo.run import TABLES, job
from geosieve.images.ingest import IngestConfig, ingest_images
from geosieve.overhead.chips.config import ChipsConfig
from geosieve.overhead.chips.job import cut_chips
from geosieve.overhead.pairs.build import build_pairs
from geosieve.overhead.pairs.config import PairsConfig
from geosieve.overhead.strips.config import StripsConfig
from geosieve.overhead.strips.prepare import prepare_strips
from geosieve.reporting.pairs import report_pairs
from geosieve.reporting.pairs_config import ReportPairsConfig
from geosieve.runtime.config import read_yaml
from geosieve.runtime.logs import logger
from geosieve.runtime.session import spark_session
from geosieve.splits.build import build_splits
from geosieve.splits.config import SplitConfig

PHOTOS, AT_SAMPLE, AUTHORS, SIDE, SEED = 360, 8, 80, 160, 7
FOLDER = Path("build/chips")
SHARED = Path("../shared/data/satellite")
SAMPLES = (
    "apls_RGB-PanSharpen_AOI_2_Vegas_img0",
    "solaris_ms1",
    "solaris_ms2",
    "solaris_ms3",
    "solaris_sample_geotiff",
)
"""Strips of WorldView in ../shared, of at least 300 m, in three UTM zones."""
_AREAS = {"Las Vegas": "*AOI_2_Vegas*", "Rotterdam": "*solaris_ms*", "Atlanta": "*solaris_sample*"}
CITY, REAL = "synthetic_city", "worldview_samples"
_LICENCES = ("cc-by-2.0", "cc-by-sa-2.0", "cc0-1.0", "all-rights-reserved")
_STRIPS, _PHOTOS = "conf/prepare_strips/city.yaml", "conf/ingest_images/city.yaml"


def run() -> int:
    """Run the demo and print its results. Return exit code 0."""
    logger().setLevel(logging.WARNING)
    prepare.positions()
    prepare.population_proxy()
    start = perf_counter()
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "photos").mkdir(parents=True)
    print("drawing a synthetic city, and photos in it ...", flush=True)
    drawn = city.draw_city()
    (FOLDER / CITY).mkdir()
    for name in city.STRIPS:
        city.write_strip(name, drawn, FOLDER / CITY / f"{name}.tif")
    sources = [CITY, *([REAL] if _copy_samples() else [])]
    _write_photos()
    run_id = datetime.now(UTC).strftime("demo-%Y%m%dT%H%M%SZ")
    print("starting Spark ...", flush=True)
    with spark_session("geosieve demo", local=True):
        job("ingest_images", IngestConfig, ingest_images, _PHOTOS, run_id)
        _damage()
        strips = {source: _prepare(source, run_id) for source in sources}
        images = [f"images.run={run_id}", 'images.sources=["synthetic_photos"]']
        rasters = [f"rasters.strips_run={run_id}", f"rasters.strips={json.dumps(sources)}"]
        chips = job(
            "cut_chips", ChipsConfig, cut_chips, "conf/cut_chips/demo.yaml", run_id, [*images, *rasters, "format=jpeg"]
        )
        splits = job(
            "build_splits", SplitConfig, build_splits, "conf/build_splits/pairs.yaml", run_id, [*images, *_SPLITS]
        )
        runs = [f"chips.run={run_id}", f"splits.run={run_id}", f"areas={json.dumps(_areas())}"]
        pairs = job("build_pairs", PairsConfig, build_pairs, "conf/build_pairs/demo.yaml", run_id, [*images, *runs])
        config = "conf/report_pairs/demo.yaml"
        told = [f"pairs.run={run_id}", f"note={json.dumps(_note(sources))}"]
        job("report_pairs", ReportPairsConfig, report_pairs, config, run_id, told)
    for source, report in strips.items():
        _print(f"strips {source}: {report['rows_out']}", report)
    _print(f"chips: {chips['rows_out']} of {chips['rows_in']} positions", chips)
    _print(f"splits: {splits['details']['splits']}", splits)
    _print(f"pairs: {pairs['rows_out']} of {pairs['rows_in']} photos", pairs)
    for what in ("areas", "splits", "licences"):
        counts = ", ".join(f"{name} {n}" for name, n in pairs["details"][what].items())
        print(f"  {what}: {counts}")
    print(f"""
page      {read_yaml(config)["output"]}   ({perf_counter() - start:.0f} s)
pairs     {TABLES}/pairs/pair_set=demo/run_id={run_id}
chips     {TABLES}/chips/chip_set=demo/run_id={run_id}
strips    {TABLES}/_strips/{CITY}/{run_id}   (open them in QGIS)
All photos are synthetic{", and so is the city" if len(sources) > 1 else ""}.""")
    return 0


# The city is small: cells of 0.6 km, and no validation split, or nothing would be left between the splits.
_SPLITS = [
    "draw.s2_level=14",
    'splits=[{"name": "test", "share": 0.2}, {"name": "train", "share": 0.8, "apart_km": 0.32}]',
]


def _note(sources: list[str]) -> str:
    real = " Other areas are real samples of WorldView strips." if REAL in sources else ""
    return f"All photos are SYNTHETIC: a generator drew them. So is the city.{real}"


def _areas() -> list[dict[str, str]]:
    return [{"name": name, "pattern": pattern} for name, pattern in _AREAS.items()]


def _prepare(source: str, run_id: str) -> dict[str, Any]:
    settings = [f"strips.name={source}", f"strips.uri={FOLDER / source}"]
    return job("prepare_strips", StripsConfig, prepare_strips, _STRIPS, run_id, settings)


def _print(head: str, report: dict[str, Any]) -> None:
    print(f"{head}" + ("; refused:" if report["rejected"] else ""))
    for error_class, n in report["rejected"].items():
        print(f"  {n:>7}  {error_class}")


def _copy_samples() -> bool:
    """Copy the real strips that are at hand; whether there are any."""
    found = [path for name in SAMPLES if (path := SHARED / f"{name}.tif").exists()]
    for path in found:
        (FOLDER / REAL).mkdir(exist_ok=True)
        shutil.copy(path, FOLDER / REAL / path.name)
    return bool(found)


def _write_photos() -> None:
    """Photos and their list: in the city, around the middles of the real strips, and far from all."""
    draws = np.random.default_rng(SEED)
    west, south, _, north = city.extent("west")
    east = city.extent("east")[2]
    x, y = draws.uniform(west - 60, east + 60, PHOTOS), draws.uniform(south - 60, north + 60, PHOTOS)
    # As everywhere, some places are photographed more than others.
    sight = draws.random(PHOTOS) < 0.3
    centres = np.column_stack([draws.uniform(west + 200, east - 200, 3), draws.uniform(south + 200, north - 200, 3)])
    at = centres[draws.integers(3, size=PHOTOS)] + draws.normal(0, 40, (PHOTOS, 2))
    x, y = np.where(sight, at[:, 0], x), np.where(sight, at[:, 1], y)
    lat, lon = city.positions(x, y)
    for path in sorted((FOLDER / REAL).glob("*.tif")):
        middle = _middle(path)
        lat = np.append(lat, middle[0] + draws.uniform(-25, 25, AT_SAMPLE) / 111_195)
        lon = np.append(lon, middle[1] + draws.uniform(-15, 15, AT_SAMPLE) / 111_195)
    more = lat.size - PHOTOS
    x, y = np.append(x, draws.uniform(west, east, more)), np.append(y, draws.uniform(south, north, more))
    # Most people photograph around where they live; some travel.
    homes = np.column_stack([draws.uniform(west, east, AUTHORS), draws.uniform(south, north, AUTHORS)])
    near = np.hypot(x[:, None] - homes[:, 0], y[:, None] - homes[:, 1]).argsort(axis=1)[:, :3]
    author = near[np.arange(lat.size), draws.integers(3, size=lat.size)]
    author[draws.random(lat.size) < 0.08] = AUTHORS
    licence = draws.choice(_LICENCES, lat.size, p=[0.5, 0.25, 0.15, 0.1])
    days = draws.integers(0, 3650, lat.size)
    numbers = np.arange(lat.size)
    with (FOLDER / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "lat", "lon", "author", "licence", "captured_at"])
        for part in np.array_split(numbers, -(-numbers.size // 64)):
            pictures = city.photos(x[part], y[part], lat[part], lon[part], part, SEED, SIDE)
            for n, picture in zip(part, pictures, strict=True):
                (FOLDER / "photos" / f"synthetic{n:04d}.jpg").write_bytes(_jpeg(picture))
                writer.writerow(_row(n, lat[n], lon[n], f"synthetic author {author[n]:02d}", licence[n], days[n]))
        for copy, n in enumerate(_copied(numbers)):  # somebody else uploads them again, smaller
            shown = Image.open(FOLDER / "photos" / f"synthetic{n:04d}.jpg").resize((120, 120))
            (FOLDER / "photos" / f"synthetic{numbers.size + copy:04d}.jpg").write_bytes(_jpeg(np.asarray(shown)))
            writer.writerow(_row(numbers.size + copy, lat[n], lon[n], "synthetic copyist", "cc-by-2.0", days[n]))


def _row(n: int, lat: float, lon: float, author: str, licence: str, days: int) -> list[str]:
    at = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=int(days))
    return [f"synthetic{n:04d}", repr(float(lat)), repr(float(lon)), author, str(licence), at.isoformat()]


def _copied(numbers: NDArray[np.int64]) -> Iterator[int]:
    return map(int, numbers[::40])


def _middle(path: Path) -> tuple[float, float]:
    """Latitude and longitude of a raster's middle."""
    with rasterio.open(path) as raster:
        x, y = raster.transform * (raster.width / 2, raster.height / 2)
        (lon,), (lat,) = transform(raster.crs, "EPSG:4326", [x], [y])
    return lat, lon


def _damage() -> None:
    """After the photos were catalogued, some files are replaced by another and some are lost."""
    names = sorted((FOLDER / "photos").glob("*.jpg"))
    for name in names[5:PHOTOS:60]:
        shutil.copy(names[0], name)
        names[names.index(name) + 1].unlink()


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=88)
    return stream.getvalue()


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(run())
