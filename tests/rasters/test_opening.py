"""What a raster is opened as: with what lies beside it, never as a pointer to elsewhere, and as it was catalogued."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fabricated_rasters import cataloged, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from geosieve.rasters.catalog import RasterSource, _Refused, catalog_file
from geosieve.rasters.paths import gdal_path
from geosieve.rasters.sampling import gdal_text, is_valid, open_raster, pixels, read_pixels
from geosieve.runtime.errors import InputError

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
ORIGIN = from_origin(0, 10, 1, 1)


@pytest.mark.skipif(not CASES.exists(), reason="../shared/data is not there")
def test_a_mask_beside_a_raster_hides_its_pixels() -> None:
    file = cataloged(CASES / "msk.tif").file
    row, column = (index.ravel() for index in np.indices((file.height, file.width)))
    values, valid = read_pixels(file, row, column)
    with rasterio.open(CASES / "msk.tif") as dataset:
        np.testing.assert_array_equal(valid, dataset.read_masks(1).ravel() != 0)
    assert not valid[column < file.width // 2].any() and (values[valid] == 5).all() and valid.any()


def test_nodata_crs_and_grid_from_files_beside_a_raster(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", height=1, width=2, count=1, dtype="uint8") as dataset:
        dataset.write(np.array([[1, 2]], np.uint8), 1)
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n0.5\n9.5\n")  # centre of the first pixel
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><SRS>EPSG:4326</SRS><PAMRasterBand band="1"><NoDataValue>2</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    file = cataloged(path).file
    assert file.transform == (1, 0, 0, 0, -1, 10)
    assert read_pixels(file, np.array([0, 0]), np.array([0, 1]))[1].tolist() == [True, False]


def _bare(path: Path, values: np.ndarray, **options: Any) -> Path:
    """A file of `values` (bands, rows, columns) that says neither where it lies nor what is no data."""
    shape = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **{"driver": "GTiff", **shape, **options}) as dataset:
            dataset.write(values)
    return path


def _assert_as_gdal_has_it(path: Path, band: int = 1) -> None:
    """Values and validity of every pixel, found by its centre, are those that rasterio reads of the opened file."""
    file = cataloged(path, crs="EPSG:4326", band=band).file
    row, column = (index.ravel() for index in np.indices((file.height, file.width)))
    with rasterio.open(path) as dataset:
        assert file.transform == tuple(dataset.transform[:6])
        lon, lat = (np.array(axis) for axis in dataset.xy(row, column))
        expected, mask = dataset.read(band).ravel(), dataset.read_masks(band).ravel() != 0
    found_row, found_column, inside = pixels(file, lat, lon)
    assert inside.all()
    values, valid = read_pixels(file, found_row, found_column)
    np.testing.assert_array_equal(valid, mask)
    np.testing.assert_array_equal(values[valid], expected[valid])
    assert valid.any()


@pytest.mark.parametrize(
    ("case", "world"),
    [("rotated", "0.8 0.6 0.6 -0.8 3 4"), ("south-up", "1 0 0 1 0.5 -9.5"), ("east to west", "-1 0 0 -1 9.5 9.5")],
)
@pytest.mark.parametrize("suffix", [".tfw", ".tifw", ".wld"])
def test_a_world_file_of_any_direction(tmp_path: Path, case: str, world: str, suffix: str) -> None:
    path = _bare(tmp_path / "a.tif", np.arange(99, dtype=np.uint8).reshape(1, 9, 11))
    path.with_suffix(suffix).write_text("\n".join(world.split()))
    _assert_as_gdal_has_it(path)


@pytest.mark.parametrize("declared", [None, 7])
def test_nodata_in_aux_xml_is_that_of_its_band_and_comes_before_the_files_own(
    tmp_path: Path, declared: float | None
) -> None:
    values = np.random.default_rng(1).integers(5, 9, (2, 9, 11), np.uint8)
    path = _bare(tmp_path / "a.tif", values, nodata=declared, transform=ORIGIN)
    Path(f"{path}.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="2"><NoDataValue>6</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    for band in (1, 2):
        _assert_as_gdal_has_it(path, band)


@pytest.mark.parametrize("driver", ["GTiff", "ENVI", "HFA"])
def test_a_mask_of_one_band_each_beside_a_raster(tmp_path: Path, driver: str) -> None:
    rng = np.random.default_rng(2)
    place = {"transform": ORIGIN, "crs": "EPSG:4326"}
    path = _bare(tmp_path / "a.img", rng.integers(1, 9, (2, 9, 11), np.uint8), driver=driver, **place)
    masks = (rng.random((2, 9, 11)) < 0.5).astype(np.uint8) * 255
    mask = _bare(tmp_path / "a.img.msk", masks)
    with rasterio.open(mask, "r+") as dataset:
        dataset.update_tags(INTERNAL_MASK_FLAGS_1=0, INTERNAL_MASK_FLAGS_2=0)
    for band in (1, 2):
        _assert_as_gdal_has_it(path, band)


@pytest.mark.parametrize("name", ["innocent.tif", "mosaic.vrt", "a.tif.msk"])
def test_a_vrt_is_refused_before_any_of_its_sources_is_asked(tmp_path: Path, name: str) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((4, 4), np.uint8), ORIGIN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.3)
        port = listener.getsockname()[1]
        (tmp_path / name).write_text(
            '<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:4326</SRS>'
            '<GeoTransform>0,1,0,10,0,-1</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f'<SourceFilename relativeToVRT="0">/vsicurl/http://127.0.0.1:{port}/secret.tif</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )
        opened = path if name.endswith(".msk") else tmp_path / name
        with pytest.raises(_Refused) as refused:
            catalog_file(str(opened), RasterSource(collection="c", uri=str(opened)))
        assert name in refused.value.args[1] and "other files" in refused.value.args[1]
        with pytest.raises(TimeoutError):
            listener.accept()


def _names_a_host(kind: str, port: int) -> str:
    url = f"http://127.0.0.1:{port}"
    if kind == "wms":
        return (
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
            "<UpperLeftX>0</UpperLeftX><UpperLeftY>10</UpperLeftY><LowerRightX>4</LowerRightX><LowerRightY>6"
            "</LowerRightY><TileLevel>0</TileLevel><SizeX>4</SizeX><SizeY>4</SizeY></DataWindow><BlockSizeX>4"
            "</BlockSizeX><BlockSizeY>4</BlockSizeY><BandsCount>1</BandsCount></GDAL_WMS>"
        )
    vrt = (
        '<VRTDataset rasterXSize="4" rasterYSize="4"><Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata>'
        '<Metadata domain="HFA"><MDI key="HFA_DEPENDENT_FILE">a.tif</MDI></Metadata><VRTRasterBand dataType="Byte" '
        f'band="1"><SimpleSource><SourceFilename>/vsicurl/{url}/a.tif</SourceFilename></SimpleSource></VRTRasterBand>'
        "</VRTDataset>"
    )
    aux = {
        "overviews": f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/{url}/a.tif</MDI></Metadata>',
        "srs": f"<SRS>{url}/srs</SRS>",
        "srs in a file": f"<SRS>/vsicurl/{url}/srs</SRS>",
        "gcps": f'<GCPList Projection="{url}/srs"><GCP Id="" Pixel="0" Line="0" X="1" Y="2"/></GCPList>',
        "entity": "<SRS>&x;</SRS>",
    }
    if kind in aux:
        return f'<!DOCTYPE a [<!ENTITY x SYSTEM "{url}/x">]><PAMDataset>{aux[kind]}</PAMDataset>'
    return f"EHFA_HEADER_TAG{vrt}" if kind == "aux" else vrt


@pytest.mark.parametrize(
    ("name", "kind", "refused"),
    [
        *(("a.tif.msk", "vrt", True), ("a.tif.MSK", "vrt", True), ("a.tif.msk", "wms", True)),
        *(("a.tif.ovr", "vrt", False), ("a.tif.ovr", "wms", False), ("a.aux", "aux", False)),
        *(("a.tif.aux.xml", kind, False) for kind in ("overviews", "srs", "srs in a file", "gcps", "entity")),
    ],
)
def test_nothing_beside_a_raster_leads_to_another_host(tmp_path: Path, name: str, kind: str, refused: bool) -> None:
    path = write_raster(tmp_path / "a.tif", np.full((4, 4), 7, np.uint8), ORIGIN)
    with socket.create_server(("127.0.0.1", 0)) as listener, rasterio.Env(GDAL_HTTP_TIMEOUT=1):
        listener.settimeout(0.1)
        (tmp_path / name).write_text(_names_a_host(kind, listener.getsockname()[1]))
        (tmp_path / "a.tif.msk.aux.xml").write_text(  # makes a mask that cannot say so itself count as one
            '<PAMDataset><Metadata><MDI key="INTERNAL_MASK_FLAGS_1">2</MDI></Metadata></PAMDataset>'
        )
        if refused:
            with pytest.raises(_Refused, match="not_a_raster") as refusal:
                cataloged(path)
            assert name in refusal.value.args[1]
        else:
            zero = np.array([0])
            source = {"crs": "EPSG:4326"} if kind in ("srs", "srs in a file", "gcps") else {}
            assert read_pixels(cataloged(path, **source).file, zero, zero)[0].tolist() == [7]
        with pytest.raises(TimeoutError):
            listener.accept()


def test_while_a_raster_is_open_nothing_else_of_the_network_is(tmp_path: Path) -> None:
    """HDF5's virtual datasets name files, /vsicurl/… among them, that GDAL opens when pixels are read."""
    path = write_raster(tmp_path / "a.tif", np.ones((4, 4), np.uint8), ORIGIN)
    with socket.create_server(("127.0.0.1", 0)) as listener, open_raster(str(path)), rasterio.Env(GDAL_HTTP_TIMEOUT=1):
        listener.settimeout(0.1)
        with pytest.raises(RasterioIOError):
            rasterio.open(f"/vsicurl/http://127.0.0.1:{listener.getsockname()[1]}/a.tif")
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("uri", ["/vsicurl/http://h/a.tif", "file:/vsizip/a.zip/a.tif", "http://h/a.tif", "zip+s3://b"])
def test_names_that_lead_elsewhere_are_not_opened(uri: str) -> None:
    with pytest.raises(InputError):
        gdal_path(uri)


def test_a_raster_that_changed_after_it_was_catalogued_is_refused(tmp_path: Path) -> None:
    grid = np.arange(100, dtype=np.uint8).reshape(10, 10)
    path = write_raster(tmp_path / "a.tif", grid, ORIGIN, compress=None)
    file = cataloged(path).file
    one = np.array([0])
    assert read_pixels(file, one, one)[0].tolist() == [0]
    before = path.stat()
    changes = {
        "type": lambda: write_raster(path, grid.astype(np.int16), ORIGIN, compress=None),
        "grid": lambda: write_raster(path, grid, from_origin(1, 10, 1, 1), compress=None),
        "pixels in place": lambda: path.write_bytes(path.read_bytes().replace(bytes(range(40, 60)), bytes(20))),
        "mask": lambda: write_raster(tmp_path / "a.tif.msk", grid, ORIGIN, crs=None),
    }
    for change in changes.values():
        path.write_bytes(path.read_bytes())
        change()
        with pytest.raises(InputError, match="changed since it was catalogued") as refused:
            read_pixels(file, one, one)
        assert str(path) in refused.value.where
        write_raster(path, grid, ORIGIN, compress=None)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "a.tif.msk").unlink(missing_ok=True)
        assert read_pixels(file, one, one)[0].tolist() == [0]


def test_messages_carry_gdals_own_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_raster(tmp_path / "a.tif", rng.integers(0, 255, (99, 99), np.uint8), ORIGIN, blockysize=99)
    file = cataloged(path).file
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[2000:3000] = bytes(1000)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError) as refused:
        read_pixels(file, np.array([98]), np.array([98]))
    assert "previous exception" not in str(refused.value) and "a.tif" in str(refused.value)
    assert "zip" in str(refused.value).lower() or "decod" in str(refused.value).lower()
    inner, outer = ValueError("ZIPDecode: broken"), ValueError("Read failed. See previous exception for details.")
    outer.__cause__ = inner
    assert gdal_text(outer) == "Read failed: ZIPDecode: broken"


@given(
    dtype=st.sampled_from(["float32", "float64", "int16", "uint8"]),
    nodata=st.sampled_from([-9999.0, -3.4028234663852886e38, 0.0, 0.1, 1e-30, 255.0, float("nan")]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_a_declared_value_hides_what_gdals_mask_hides(dtype: str, nodata: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind != "f" and not (float(nodata).is_integer() and np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max):
        return
    near = nodata * (1 + rng.uniform(-2e-6, 2e-6, 50)) if kind.kind == "f" else np.full(9, nodata)
    with np.errstate(over="ignore"):
        values = np.r_[near, rng.integers(0, 200, 50)].astype(dtype)[None]
    with MemoryFile() as memory:
        profile = {"driver": "GTiff", "height": 1, "width": values.size, "count": 1, "dtype": dtype, "nodata": nodata}
        with memory.open(**profile, transform=ORIGIN, crs="EPSG:4326") as dataset:
            dataset.write(values, 1)
        with memory.open() as dataset:
            expected = (dataset.read_masks(1) != 0) & ~np.isnan(values.astype(float))
            np.testing.assert_array_equal(is_valid(values, dataset.nodata), expected)
