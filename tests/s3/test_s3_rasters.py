"""Rasters on S3 as GDAL reads them: a change is noticed, mosaics are read, and what that costs in requests."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import rasterio
import s3_reader
from fabricated_rasters import write_raster
from rasterio.transform import from_origin
from s3_server import Request, S3Server

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
VALUES = np.arange(100, dtype=np.uint8).reshape(10, 10)
ORIGIN = from_origin(0, 10, 1, 1)


class Bucket:
    """A bucket, a process that reads from it, and the requests that this makes."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.server = S3Server()
        keys = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        self.client: Any = boto3.client("s3", endpoint_url=f"http://{self.server.endpoint}", **keys)
        self.client.create_bucket(Bucket="maps")
        store = {"AWS_S3_ENDPOINT": self.server.endpoint, "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE"}
        self._worker = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=s3_reader.start, initargs=(KEYS | store,)
        )

    def close(self) -> None:
        self._worker.shutdown()
        self.server.close()

    def upload(self, path: Path, key: str) -> str:
        self.client.upload_file(str(path), "maps", key)
        return f"s3a://maps/{key}"

    def catalog(self, uri: str, **source: Any) -> tuple[str, list[Request]]:
        return self._asked(s3_reader.catalog, uri, source)

    def read(self, uri: str) -> tuple[Any, list[Request]]:
        return self._asked(s3_reader.read, uri)

    def _asked(self, work: Any, *args: Any) -> tuple[Any, list[Request]]:
        mark = len(self.server.requests)
        done = self._worker.submit(work, *args).result(timeout=60)
        return done, self.server.since(mark)


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    bucket = Bucket()
    yield bucket
    bucket.close()


def test_a_raster_that_changed_on_s3_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    """Same grid, same length, same layout: only the store can tell, and only if it is asked at each opening."""
    path = write_raster(tmp_path / "a.tif", VALUES, ORIGIN, compress=None)
    uri = bucket.upload(path, "changed/a.tif")
    assert bucket.catalog(uri)[0] == "GTiff"
    assert bucket.read(uri)[0] == (VALUES.ravel().tolist(), [True] * 100)
    before = path.stat().st_size
    write_raster(path, VALUES[::-1], ORIGIN, compress=None)
    assert path.stat().st_size == before
    bucket.upload(path, "changed/a.tif")
    assert "changed since it was catalogued" in bucket.read(uri)[0]
    assert bucket.catalog(uri)[0] == "GTiff"
    assert bucket.read(uri)[0] == (VALUES[::-1].ravel().tolist(), [True] * 100)  # and not what GDAL remembers


def test_an_opening_is_one_request(bucket: Bucket, tmp_path: Path) -> None:
    """The one that asks for the file's version brings the header, and of a small file the pixels."""
    uri = bucket.upload(write_raster(tmp_path / "a.tif", VALUES, ORIGIN), "cost/a.tif")
    requests = [bucket.catalog(uri)[1], bucket.read(uri)[1], bucket.read(uri)[1]]
    assert [[(r.method, r.path) for r in made] for made in requests] == [[("GET", "/maps/cost/a.tif")]] * 3


def _mosaic(names: list[str]) -> str:
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="{int(not name.startswith("/"))}">{name}</SourceFilename>'
        '<SourceBand>1</SourceBand><SrcRect xOff="0" yOff="0" xSize="10" ySize="10"/>'
        f'<DstRect xOff="{10 * number}" yOff="0" xSize="10" ySize="10"/></SimpleSource>'
        for number, name in enumerate(names)
    )
    return (
        f'<VRTDataset rasterXSize="{10 * len(names)}" rasterYSize="10"><SRS>EPSG:4326</SRS><GeoTransform>0,1,0,10,0,-1'
        f'</GeoTransform><VRTRasterBand dataType="Byte" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )


def test_a_mosaic_on_s3_names_files_of_its_store(bucket: Bucket, tmp_path: Path) -> None:
    tiles = [write_raster(tmp_path / f"{n}.tif", VALUES + n, from_origin(10 * n, 10, 1, 1)) for n in (0, 1)]
    for path in tiles:
        bucket.upload(path, f"mosaic/tiles/{path.name}")
    (tmp_path / "a.vrt").write_text(_mosaic(["tiles/0.tif", "/vsis3/maps/mosaic/tiles/1.tif"]))
    uri = bucket.upload(tmp_path / "a.vrt", "mosaic/a.vrt")
    source = {"vrt_sources": ["s3a://maps/mosaic/tiles"]}
    assert bucket.catalog(uri, **source)[0] == "VRT"
    (tmp_path / "local.vrt").write_text(_mosaic(["0.tif", "1.tif"]))
    with rasterio.open(tmp_path / "local.vrt") as dataset:
        expected = dataset.read(1).ravel().tolist()
    read, requests = bucket.read(uri)
    assert read == (expected, [True] * 200)
    # The VRT's size, its content, and each of its files once.
    assert sorted((r.method, r.path) for r in requests) == [
        ("GET", "/maps/mosaic/a.vrt"),
        ("GET", "/maps/mosaic/tiles/0.tif"),
        ("GET", "/maps/mosaic/tiles/1.tif"),
        ("HEAD", "/maps/mosaic/a.vrt"),
    ]
    bucket.upload(write_raster(tiles[1], VALUES, from_origin(10, 10, 1, 1)), "mosaic/tiles/1.tif")
    assert "changed since it was catalogued" in bucket.read(uri)[0]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../secret/a.tif", "in none of rasters.vrt_sources"),
        ("/vsis3/other/a.tif", "in none of rasters.vrt_sources"),
        ("/etc/passwd", "in none of rasters.vrt_sources"),
        ("/vsicurl/http://127.0.0.1:9/a.tif", "vsicurl"),
    ],
)
def test_a_mosaic_on_s3_that_leads_elsewhere_is_a_reject(bucket: Bucket, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "a.vrt").write_text(_mosaic([name]))
    uri = bucket.upload(tmp_path / "a.vrt", "hostile/a.vrt")
    said, requests = bucket.catalog(uri, vrt_sources=["s3a://maps/hostile"])
    assert told in said
    assert {r.path for r in requests} == {"/maps/hostile/a.vrt"}
    assert "rasters.vrt_sources" in bucket.catalog(uri)[0]


@pytest.mark.parametrize(("status", "told"), [(503, "RetryableError: "), (403, "InputError: "), (404, "no such file")])
@pytest.mark.parametrize("name", ["outer.vrt", "inner.vrt"])
def test_a_store_that_is_down_makes_no_reject_of_a_mosaic(
    bucket: Bucket, tmp_path: Path, status: int, told: str, name: str
) -> None:
    """One VRT names another, and the store refuses one of them: only a file that is not there is its own fault."""
    folder = f"down{status}{name[0]}"
    bucket.upload(write_raster(tmp_path / "a.tif", VALUES, ORIGIN), f"{folder}/a.tif")
    for vrt, names in (("outer.vrt", "inner.vrt"), ("inner.vrt", "a.tif")):
        (tmp_path / vrt).write_text(_mosaic([names]))
        bucket.upload(tmp_path / vrt, f"{folder}/{vrt}")
    uri = f"s3a://maps/{folder}/outer.vrt"
    with bucket.server.refusing(status, lambda request: request.path.endswith(f"{folder}/{name}")):
        said, _ = bucket.catalog(uri, vrt_sources=[f"s3a://maps/{folder}"])
    assert said.startswith(told) if told.endswith(": ") else told in said
    assert f"{folder}/{name}" in said
    assert bucket.catalog(uri, vrt_sources=[f"s3a://maps/{folder}"])[0] == "VRT"


def test_what_lies_beside_a_reject_on_s3_is_named(bucket: Bucket, tmp_path: Path) -> None:
    """Locally these would be read; the few names are asked for only where a file is refused."""
    bare = {"height": 10, "width": 10, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **bare) as dataset:
        dataset.write(VALUES, 1)
    with rasterio.open(tmp_path / "b.img", "w", driver="ENVI", crs="EPSG:4326", transform=ORIGIN, **bare) as dataset:
        dataset.write(VALUES, 1)
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n0.5\n9.5\n")
    for name in ("a.tif", "a.tfw", "b.img", "b.hdr"):
        bucket.upload(tmp_path / name, f"beside/{name}")
    said, requests = bucket.catalog("s3a://maps/beside/a.tif", crs="EPSG:4326")
    assert "geotransform" in said and "(a.tfw is not read on S3)" in said
    assert len(requests) <= 12
    assert "(b.hdr is not read on S3)" in bucket.catalog("s3a://maps/beside/b.img")[0]
    for name in ("a.tif", "b.img"):
        assert s3_reader.catalog(str(tmp_path / name), {"crs": "EPSG:4326"}) in ("GTiff", "ENVI")
