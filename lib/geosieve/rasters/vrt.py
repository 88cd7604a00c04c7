"""VRTs that the configuration admits: each is checked and rewritten before GDAL opens it.

A VRT makes GDAL open every file that it names, so GDAL never receives the original. The VRT is parsed here, without
entities. Only elements that combine pixels of files are allowed, and the files must lie in the configured folders. GDAL
receives a new VRT with absolute paths, whose files may be opened by `SOURCE_DRIVERS` only.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET
from xml.parsers import expat

from rasterio.errors import RasterioIOError

from geosieve.rasters import vsi
from geosieve.rasters.paths import gdal_path
from geosieve.runtime.errors import InputError

# Formats whose files cannot name others. HDF5 (and netCDF upon it) can: external data, virtual datasets.
SOURCE_DRIVERS = ("GTiff", "HFA", "ENVI", "EHdr", "AAIGrid", "JP2OpenJPEG", "PNG", "JPEG", "GRIB", "SRTMHGT", "DTED")

_MOST_BYTES = 1 << 24  # about 30,000 files
_DEEPEST = 4  # VRTs of VRTs

_SOURCE = {"SourceFilename", "SourceBand", "SrcRect", "DstRect"}
_COMPUTED = {"NODATA", "UseMaskBand", "ScaleOffset", "ScaleRatio", "LUT", "SrcMin", "SrcMax", "DstMin", "DstMax"}
_KEPT = {
    "VRTDataset": {"SRS", "GeoTransform", "VRTRasterBand", "MaskBand", "BlockXSize", "BlockYSize"},
    "VRTRasterBand": {"NoDataValue", "HideNoDataValue", "ColorInterp", "Offset", "Scale"}
    | {"SimpleSource", "ComplexSource", "MaskBand"},
    "MaskBand": {"VRTRasterBand"},
    "SimpleSource": _SOURCE,
    "ComplexSource": _SOURCE | _COMPUTED,
}
# What changes neither values nor their place. What a source's file is like, GDAL finds out from the file.
_LEFT_OUT = {
    *("Metadata", "Description", "UnitType", "CategoryNames", "ColorTable", "Histograms", "GDALRasterAttributeTable"),
    *("SourceProperties", "OverviewList"),
}
_ATTRIBUTES = {
    "VRTDataset": {"rasterXSize", "rasterYSize"},
    "SRS": {"dataAxisToSRSAxisMapping", "coordinateEpoch"},
    "VRTRasterBand": {"dataType", "band", "blockXSize", "blockYSize"},
    "SimpleSource": {"resampling"},
    "ComplexSource": {"resampling"},
    "SourceFilename": {"relativeToVRT", "shared"},
    "SrcRect": {"xOff", "yOff", "xSize", "ySize"},
    "DstRect": {"xOff", "yOff", "xSize", "ySize"},
}
_WITH_TEXT = {"SRS", "GeoTransform"} | _COMPUTED | {"SourceBand", "BlockXSize", "BlockYSize"} | _KEPT["VRTRasterBand"]


def resolve(uri: str, folders: Sequence[str] | None) -> str | None:
    """Return the rewritten VRT (XML with absolute paths) of a file; None if the file is not a VRT.

    folders: where the files that it names may lie; None if that was checked before. Raises RasterioIOError if the VRT
    is not admitted, RetryableError or InputError if its store is down or refuses access. Nested VRTs are resolved in
    the same way. GDAL opens none of the files that the VRT names here.
    """
    path = gdal_path(uri)
    if not is_vrt(path):
        return None
    if folders is not None and not folders:
        raise refusal(path)
    allowed = None if folders is None else [_real(gdal_path(folder.rstrip("/") or "/")) for folder in folders]
    return _resolved(path, allowed, 0)


def is_vrt(path: str) -> bool:
    """Whether a file is a VRT: by its name, or locally by its content (on S3 that would be one more request a file)."""
    if path.lower().endswith(".vrt"):
        return True
    return not path.startswith("/vsi") and os.path.isfile(path) and b"<VRTDataset" in vsi.read(path, 4096)


def refusal(path: str) -> RasterioIOError:
    """The error for a VRT that the configuration does not admit."""
    return RasterioIOError(
        f"{path} is a VRT, which names other files: name their folders in rasters.vrt_sources, or copy it with "
        "gdal_translate"
    )


def files(text: str) -> Iterator[str]:
    """Paths of the files that a resolved VRT names, directly or through nested VRTs."""
    for name in ET.fromstring(text).iter("SourceFilename"):  # noqa: S314, it was written here
        source = name.text or ""
        if source.startswith("<"):
            yield from files(source)
        else:
            yield source.removeprefix("vrt://").rpartition("?if=")[0]


def digest(text: str, band: int) -> str:
    """SHA-256 that changes if a VRT or its files change after cataloguing.

    It covers the resolved text, and the sizes and times of the files and their masks (on S3: their ETags).
    """
    stored = [(path, vsi.state(path)) for path in sorted(set(files(text)))]
    return hashlib.sha256(json.dumps(["VRT", band, text, stored]).encode()).hexdigest()


def _resolved(path: str, allowed: Sequence[str] | None, depth: int) -> str:
    if depth == _DEEPEST:
        raise RasterioIOError(f"{path}: VRTs name VRTs more than {_DEEPEST} deep")
    for mask in (f"{path}.msk", f"{path}.MSK"):
        if os.path.exists(mask):
            raise RasterioIOError(f"{mask} is the mask of a VRT, which is not read: put it into the VRT")
    root = _parsed(path)
    if root.tag != "VRTDataset":
        raise RasterioIOError(f"{path}: its root is {root.tag}, not VRTDataset")
    copy = _copied(path, root)
    for name in copy.iter("SourceFilename"):
        source = _located(path, name.text or "", name.get("relativeToVRT") == "1")
        if allowed is not None:
            real = _real(source)
            if not any(real.startswith(folder.rstrip("/") + "/") for folder in allowed):
                raise RasterioIOError(f"{path} names {source}, which is in none of rasters.vrt_sources")
        name.attrib.clear()
        name.set("relativeToVRT", "0")
        if is_vrt(source):
            name.text = _resolved(source, allowed, depth + 1)
        else:
            name.text = f"vrt://{source}?if={','.join(SOURCE_DRIVERS)}"
    return ET.tostring(copy, encoding="unicode")


def _parsed(path: str) -> ET.Element:
    content = vsi.read(path, _MOST_BYTES)
    if len(content) == _MOST_BYTES:
        raise RasterioIOError(f"{path}: a VRT of {_MOST_BYTES >> 20} MiB or more")
    try:
        guard = expat.ParserCreate()
        guard.StartDoctypeDeclHandler = _no_doctype  # entities are declared there
        guard.Parse(content, True)
        return ET.fromstring(content)  # noqa: S314, without a document type there are no entities
    except (expat.ExpatError, ET.ParseError, LookupError, ValueError) as error:
        raise RasterioIOError(f"{path} is no VRT that can be parsed: {error}") from None


def _no_doctype(*_: object) -> None:
    raise ValueError("a document type is declared")


def _copied(path: str, element: ET.Element) -> ET.Element:
    """Copy an element with its allowed content. RasterioIOError names an attribute or child that is not allowed."""
    unknown = set(element.attrib) - _ATTRIBUTES.get(element.tag, set())
    if unknown:
        told = ", ".join(f'{name}="{element.get(name)}"' for name in sorted(unknown))
        raise RasterioIOError(f"{path}: {element.tag} with {told[:200]} is not read from a VRT")
    copy = ET.Element(element.tag, element.attrib)
    copy.text = element.text if element.tag in _WITH_TEXT or element.tag == "SourceFilename" else None
    for child in element:
        if child.tag in _LEFT_OUT:
            continue
        if child.tag not in _KEPT.get(element.tag, set()):
            raise RasterioIOError(f"{path}: {child.tag} in {element.tag} is not read from a VRT")
        copy.append(_copied(path, child))
    return copy


def _located(path: str, name: str, relative: bool) -> str:
    """The absolute path of a file that a VRT names. RasterioIOError if it is not a path (URL, subdataset, XML)."""
    if relative and not name.startswith("/"):
        name = posixpath.join(posixpath.dirname(path), name)
    located = posixpath.normpath(name)
    if located.startswith("/vsis3/"):
        located = gdal_path(f"s3a://{located[len('/vsis3/') :]}")
    elif not located.startswith("/"):
        raise RasterioIOError(f"{path} names {name[:200]!r}, which is no path")
    else:
        try:
            located = gdal_path(located)
        except InputError as error:
            raise RasterioIOError(f"{path} names {name[:200]!r}: {error}") from None
    if "?" in located or "\0" in located:
        raise RasterioIOError(f"{path} names {name[:200]!r}: a file named in a VRT may have no question mark")
    return located


def _real(path: str) -> str:
    return posixpath.normpath(path) if path.startswith("/vsi") else os.path.realpath(path)
