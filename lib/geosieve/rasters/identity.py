"""Identity of a raster file: the facts that determine its value at a point, independent of format and location."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pyproj import CRS

from geosieve.rasters.files import RasterFile


def file_facts(file: RasterFile) -> dict[str, Any]:
    """Grid, CRS and pixel checksum of a raster file. Path, format, compression and block layout do not matter."""
    return {
        "size": [file.height, file.width],
        "transform": file.transform,
        "crs": crs_facts(file.crs_wkt),
        "pixels": file.content_sha256,
    }


@lru_cache(maxsize=64)
def crs_facts(crs_wkt: str) -> dict[str, Any]:
    """A CRS by what it does: its datum, ellipsoid, prime meridian, projection with parameters, and units.

    The same facts come from WKT 1, WKT 2 and PROJ strings of one CRS. Its name, authority codes, area of use and the
    order of its axes do not enter: x is always the easting. Lengths are in metres, angles in radians.
    """
    crs = CRS.from_wkt(crs_wkt)
    shift = crs.coordinate_operation.towgs84 if crs.is_bound and crs.coordinate_operation else []
    crs = crs.source_crs if crs.is_bound and crs.source_crs else crs
    crs = crs.sub_crs_list[0] if crs.sub_crs_list else crs  # of a compound one the horizontal part
    geodetic = crs.geodetic_crs
    if geodetic is None or geodetic.ellipsoid is None or geodetic.prime_meridian is None:
        raise ValueError("a CRS without an ellipsoid says nothing about places on the Earth")
    meridian, operation = geodetic.prime_meridian, crs.coordinate_operation
    return {
        "datum": _datum(geodetic.datum.name if geodetic.datum else ""),
        "semi_major_m": geodetic.ellipsoid.semi_major_metre,
        "inverse_flattening": geodetic.ellipsoid.inverse_flattening,
        "prime_meridian": float(meridian.longitude) * float(meridian.unit_conversion_factor),
        "to_wgs84": shift,
        "units": [axis.unit_conversion_factor for axis in crs.axis_info[:2]],
        "method": operation.method_name.casefold() if operation else None,
        "parameters": {p.name.casefold(): float(p.value) * float(p.unit_conversion_factor) for p in operation.params}
        if operation
        else {},
    }


def _datum(name: str) -> str:
    """A datum's name without what versions of PROJ write differently: ensembles, case, punctuation, unknown ones."""
    plain = re.sub(r"[^a-z0-9]+", "", name.casefold().removesuffix("ensemble"))
    return "unknown" if plain.startswith(("unknown", "unnamed", "notspecified")) else plain
