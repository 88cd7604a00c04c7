"""VRTs: one that is wanted has GDAL's values; one that leads elsewhere is a reject, and nobody was asked."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from fabricated_rasters import cataloged, write_raster
from rasterio.transform import from_origin

from geosieve.rasters import vrt
from geosieve.rasters.catalog import RasterSource, _Refused, catalog_file
from geosieve.rasters.sampling import read_pixels
from geosieve.runtime.errors import InputError

HEAD = '<SRS dataAxisToSRSAxisMapping="2,1">EPSG:4326</SRS><GeoTransform>0,1,0,10,0,-1</GeoTransform>'


def mosaic(path: Path, sources: list[str], nodata: str = "", head: str = HEAD, width: int = 40) -> Path:
    """A VRT of 30 rows as gdalbuildvrt writes it, from the text of its sources."""
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="30">{head}<Metadata><MDI key="AREA_OR_POINT">Area</MDI>'
        f'</Metadata><VRTRasterBand dataType="Byte" band="1">{nodata}<ColorInterp>Gray</ColorInterp>'
        f'{"".join(sources)}</VRTRasterBand><OverviewList resampling="nearest">2 4</OverviewList></VRTDataset>'
    )
    return path


def tile(name: str, column: int, relative: int = 1, kind: str = "SimpleSource", more: str = "") -> str:
    """A source of 30 × 20 pixels that starts at a column."""
    return (
        f'<{kind}><SourceFilename relativeToVRT="{relative}">{escape(name)}</SourceFilename><SourceBand>1</SourceBand>'
        '<SourceProperties RasterXSize="20" RasterYSize="30" DataType="Byte" BlockXSize="20" BlockYSize="30" />'
        '<SrcRect xOff="0" yOff="0" xSize="20" ySize="30" />'
        f'<DstRect xOff="{column}" yOff="0" xSize="20" ySize="30" />{more}</{kind}>'
    )


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A folder with two neighbouring tiles, whose 0 means no data."""
    rng = np.random.default_rng(0)
    (tmp_path / "tiles").mkdir()
    for number in (0, 1):
        values = rng.integers(0, 5, (30, 20), np.uint8)
        write_raster(tmp_path / "tiles" / f"é &{number}.tif", values, from_origin(20 * number, 10, 1, 1), nodata=0)
    return tmp_path / "tiles"


def assert_as_gdal_has_it(path: Path, folders: list[str]) -> None:
    file = cataloged(path, vrt_sources=folders).file
    row, column = (index.ravel() for index in np.indices((file.height, file.width)))
    values, valid = read_pixels(file, row, column)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(valid, dataset.read_masks(1).ravel() != 0)
        np.testing.assert_array_equal(values[valid], dataset.read(1).ravel()[valid])
        assert file.transform == tuple(dataset.transform[:6]) and file.driver == "VRT"
    assert valid.any() and not valid.all()


NODATA = "<NoDataValue>0</NoDataValue>"


@pytest.mark.parametrize("relative", [0, 1])
@pytest.mark.parametrize("kind", ["SimpleSource", "ComplexSource"])
def test_a_wanted_mosaic_has_gdals_values(tmp_path: Path, tiles: Path, kind: str, relative: int) -> None:
    more = "<NODATA>0</NODATA><LUT>1:10,2:20,3:30,4:40</LUT>" if kind == "ComplexSource" else ""
    names = [f"tiles/é &{number}.tif" if relative else f"{tiles}/é &{number}.tif" for number in (0, 1)]
    sources = [tile(name, 20 * number, relative, kind, more) for number, name in enumerate(names)]
    assert_as_gdal_has_it(mosaic(tmp_path / "a.vrt", sources, NODATA), [str(tiles)])
    assert_as_gdal_has_it(mosaic(tmp_path / "named.tif", sources, NODATA), [f"file:{tiles}/"])


def test_a_mosaic_of_mosaics_and_its_mask_have_gdals_values(tmp_path: Path, tiles: Path) -> None:
    for number in (0, 1):
        mosaic(tiles / f"{number}.vrt", [tile(f"é &{number}.tif", 0)], NODATA, width=20)
    sources = [tile(f"tiles/{number}.vrt", 20 * number) for number in (0, 1)]
    assert_as_gdal_has_it(mosaic(tmp_path / "a.vrt", sources, NODATA), [str(tiles)])
    masks = "".join(tile(f"tiles/é &{n}.tif", 20 * n).replace("Band>1<", "Band>mask,1<") for n in (0, 1))
    mask = f'<MaskBand><VRTRasterBand dataType="Byte">{masks}</VRTRasterBand></MaskBand>'
    assert_as_gdal_has_it(mosaic(tmp_path / "masked.vrt", sources, "", HEAD + mask), [str(tiles)])


def test_content_is_that_of_the_pixels(tmp_path: Path, tiles: Path) -> None:
    path = mosaic(tmp_path / "a.vrt", [tile(f"tiles/é &{n}.tif", 20 * n) for n in (0, 1)], NODATA)
    with rasterio.open(path) as dataset:
        copy = write_raster(tmp_path / "copy.tif", dataset.read(1), dataset.transform, nodata=0)
    row = catalog_file(str(path), RasterSource(collection="c", uri=str(path), vrt_sources=[str(tiles)]))
    assert row["content_sha256"] == catalog_file(str(copy), RasterSource(collection="c", uri="u"))["content_sha256"]


@pytest.mark.parametrize("change", ["its text", "a file", "a file's mask", "a file is gone"])
def test_a_mosaic_that_changed_is_refused_before_it_is_opened(tmp_path: Path, tiles: Path, change: str) -> None:
    path = mosaic(tmp_path / "a.vrt", [tile(f"tiles/é &{n}.tif", 20 * n) for n in (0, 1)], NODATA)
    file = cataloged(path, vrt_sources=[str(tiles)]).file
    zero = np.array([0])
    read_pixels(file, zero, zero)
    first = tiles / "é &0.tif"
    with socket.create_server(("127.0.0.1", 0)) as listener, rasterio.Env(GDAL_HTTP_TIMEOUT=1):
        listener.settimeout(0.1)
        elsewhere = f"/vsicurl/http://127.0.0.1:{listener.getsockname()[1]}/a.tif"
        if change == "its text":
            path.write_text(path.read_text().replace("tiles/é &amp;0.tif", "tiles/é &amp;1.tif"))
        elif change == "a file":
            os.utime(first, (0, 0))
        elif change == "a file's mask":
            mosaic(tiles / "é &0.tif.msk", [tile(elsewhere, 0, relative=0)])
        else:
            first.unlink()
        with pytest.raises(InputError, match="changed since it was catalogued"):
            read_pixels(file, zero, zero)
        path.write_text(path.read_text().replace("tiles/é &amp;1.tif", elsewhere))
        with pytest.raises(InputError):
            read_pixels(file, zero, zero)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A host that nobody may ask; the test fails if somebody did."""
    with socket.create_server(("127.0.0.1", 0)) as listener, rasterio.Env(GDAL_HTTP_TIMEOUT=1):
        listener.settimeout(0.2)
        yield listener
        with pytest.raises(TimeoutError):
            listener.accept()


PYTHON = (
    "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionType>f</PixelFunctionType><PixelFunctionCode>"
    "def f(*a): open('/tmp/x', 'w')</PixelFunctionCode>"
)
BOMB = (
    '<!DOCTYPE b [<!ENTITY a0 "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    + "]>"
)

# What a VRT says (URL: the host that listens; OUT: a raster outside of the folder that is named), what is told of it
HOSTILE = {
    "http": (tile("URL/a.tif", 0, relative=0), "no path"),
    "http, relative": (tile("URL/a.tif", 0), "vrt_sources"),
    "curl": (tile("/vsicurl/URL/a.tif", 0, relative=0), "vsicurl"),
    "curl, relative": (tile("/vsicurl/URL/a.tif", 0), "vsicurl"),
    "curl by parents": (tile("/tiles/../vsicurl/URL/a.tif", 0, relative=0), "vsicurl"),
    "another store": (tile("/vsis3/bucket/a.tif", 0, relative=0), "vrt_sources"),
    "zip": (tile("/vsizip/a.zip/a.tif", 0, relative=0), "vsizip"),
    "no raster": (tile("tiles/text", 0), "not recognized"),
    "not there": (tile("tiles/none.tif", 0), "none.tif"),
    "outside": (tile("OUT", 0, relative=0), "in none of rasters.vrt_sources"),
    "outside by parents": (tile("tiles/../out/a.tif", 0), "in none of rasters.vrt_sources"),
    "outside by a link": (tile("tiles/link.tif", 0), "in none of rasters.vrt_sources"),
    "a folder that starts alike": (tile("tiles2/a.tif", 0), "in none of rasters.vrt_sources"),
    "nested, outside": (tile("tiles/escapes.vrt", 0), "in none of rasters.vrt_sources"),
    "nested in itself": (tile("tiles/self.vrt", 0), "deep"),
    "nested as text": (tile("<VRTDataset/>", 0, relative=0), "no path"),
    "subdataset": (tile('NETCDF:"/vsicurl/URL/a.nc":x', 0, relative=0), "no path"),
    "subdataset, relative": (tile("HDF5:tiles/a.h5://x", 0), "vrt_sources"),
    "a vrt:// name": (tile("vrt:///vsicurl/URL/a.tif", 0, relative=0), "no path"),
    "options of vrt://": (tile("tiles/é &0.tif?if=VRT", 0), "question mark"),
    "options of the source": (tile("tiles/é &0.tif", 0, more="<OpenOptions/>"), "OpenOptions"),
    "relative to nothing": (tile("tiles/é &0.tif", 0, relative=0), "no path"),
    "raw bytes": ('</VRTRasterBand><VRTRasterBand dataType="Byte" band="2" subClass="VRTRawRasterBand"><SourceFilename>'
                  "/etc/passwd</SourceFilename>", "subClass"),
    "python": ('</VRTRasterBand><VRTRasterBand dataType="Byte" band="2" subClass="VRTDerivedRasterBand">' + PYTHON,
               "subClass"),
    "python without a class": (PYTHON, "PixelFunction"),
    "an overview": ('<Overview><SourceFilename relativeToVRT="0">/vsicurl/URL/o.tif</SourceFilename></Overview>',
                    "Overview"),
    "metadata of overviews": ('<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/URL/o.tif</MDI>'
                              "</Metadata>" + tile("tiles/é &0.tif", 0), None),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_leads_elsewhere_is_a_reject(tmp_path: Path, tiles: Path, listener: socket.socket, name: str) -> None:
    content, told = HOSTILE[name]
    out = tmp_path / "out"
    for folder in (out, tmp_path / "tiles2"):
        folder.mkdir()
        write_raster(folder / "a.tif", np.ones((30, 20), np.uint8), from_origin(0, 10, 1, 1))
    (tiles / "text").write_text("root:x:0:0:root:/root:/bin/bash\n" * 20)
    (tiles / "link.tif").symlink_to(out / "a.tif")
    mosaic(tiles / "escapes.vrt", [tile("../out/a.tif", 0)])
    mosaic(tiles / "self.vrt", [tile("self.vrt", 0)])
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    path = mosaic(tmp_path / "a.vrt", [content.replace("URL", url).replace("OUT", f"{out}/a.tif")], width=20)
    if told is None:
        cataloged(path, vrt_sources=[str(tiles)])  # left out
        return
    with pytest.raises(_Refused) as refused:
        cataloged(path, vrt_sources=[str(tiles)])
    error_class, message = refused.value.args
    assert error_class == "not_a_raster" and told in message, message


WARPED = (
    '<VRTDataset rasterXSize="20" rasterYSize="30" subClass="VRTWarpedDataset"><GDALWarpOptions><SourceDataset '
    'relativeToVRT="0">/vsicurl/URL/a.tif</SourceDataset></GDALWarpOptions></VRTDataset>'
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (WARPED, "subClass"),
        (WARPED.replace(' subClass="VRTWarpedDataset"', ""), "GDALWarpOptions"),
        (f'{BOMB}<VRTDataset rasterXSize="1" rasterYSize="1"><SRS>&a9;</SRS></VRTDataset>', "document type"),
        ('<!DOCTYPE b [<!ENTITY a SYSTEM "URL/a">]><VRTDataset><SRS>&a;</SRS></VRTDataset>', "document type"),
        ('<!DOCTYPE b SYSTEM "URL/a.dtd"><VRTDataset/>', "document type"),
        ("<VRTDataset>" * 100_000, "no VRT that can be parsed"),
        ("<a><VRTDataset/></a>", "its root is a"),
        ("<VRTDataset><vrtrasterband/></VRTDataset>", "vrtrasterband"),
        (f"<!--{' ' * (1 << 24)}--><VRTDataset/>", "16 MiB"),
        ('<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>URL/srs</SRS></VRTDataset>', ""),
        ('<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>/vsicurl/URL/srs</SRS></VRTDataset>', ""),
    ],
)  # fmt: skip
def test_xml_is_hostile_until_it_proves_to_be_a_mosaic(
    tmp_path: Path, listener: socket.socket, text: str, told: str
) -> None:
    path = tmp_path / "a.vrt"
    path.write_text(text.replace("URL", f"http://127.0.0.1:{listener.getsockname()[1]}"))
    with pytest.raises(_Refused) as refused:
        cataloged(path, vrt_sources=[str(tmp_path)])
    assert told in refused.value.args[1]


def test_an_hdf5_file_is_no_source(tmp_path: Path, tiles: Path) -> None:
    """Its virtual datasets and external data name files themselves."""
    rasterio.shutil.copy(tiles / "é &0.tif", tiles / "a.nc", driver="netCDF", FORMAT="NC4")
    path = mosaic(tmp_path / "a.vrt", [tile("tiles/a.nc", 0)], width=20)
    with pytest.raises(_Refused, match=r"a\.nc, which is netCDF"):
        cataloged(path, vrt_sources=[str(tiles)])


def test_one_that_is_not_wanted_says_how_to_name_it(tmp_path: Path, tiles: Path) -> None:
    path = mosaic(tmp_path / "a.vrt", [tile("tiles/é &0.tif", 0)], width=20)
    with pytest.raises(_Refused, match=r"rasters\.vrt_sources"):
        cataloged(path)
    assert vrt.resolve(str(tiles / "é &0.tif"), [str(tiles)]) is None
