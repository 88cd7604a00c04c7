"""Recognise geodetic datums by the names that EXIF writers use, and transform positions to WGS-84."""

from __future__ import annotations

import math
import re
from functools import cache

from pyproj import Transformer

_WGS84 = re.compile(r"(GCS|D)?WGS(19)?84.*|WORLDGEODETICSYSTEM(OF)?1984|EPSG4326|CRS84")

_EPSG = {  # EPSG code of the geographic CRS, by the name in upper case without punctuation
    **dict.fromkeys(("TOKYO", "TOKYOMEAN", "TOKYODATUM", "TKY", "JAPAN", "TOKYO97"), 4301),
    **dict.fromkeys(("JGD2000", "JGD00"), 4612),
    **dict.fromkeys(("JGD2011", "JGD11"), 6668),
    **dict.fromkeys(("NAD27", "NORTHAMERICAN1927", "NORTHAMERICANDATUM1927"), 4267),
    **dict.fromkeys(("NAD83", "NORTHAMERICAN1983", "NORTHAMERICANDATUM1983"), 4269),
    **dict.fromkeys(("ED50", "EUROPEAN1950", "EUROPEANDATUM1950"), 4230),
    **dict.fromkeys(("ETRS89", "ETRF89"), 4258),
    **dict.fromkeys(("OSGB36", "OSGB", "OSGB1936", "ORDNANCESURVEYGB36"), 4277),
    **dict.fromkeys(("PULKOVO1942", "PULKOVO42", "SK42", "S42"), 4284),
    **dict.fromkeys(("PULKOVO1995", "PULKOVO95", "SK95"), 4200),
    **dict.fromkeys(("SAD69", "SOUTHAMERICAN1969"), 4618),
    **dict.fromkeys(("SIRGAS2000", "SIRGAS"), 4674),
    **dict.fromkeys(("AGD66", "AUSTRALIANGEODETIC1966"), 4202),
    **dict.fromkeys(("AGD84", "AUSTRALIANGEODETIC1984"), 4203),
    **dict.fromkeys(("GDA94",), 4283),
    **dict.fromkeys(("GDA2020",), 7844),
    **dict.fromkeys(("NZGD49", "GEODETICDATUM1949", "GEODETICDATUM49"), 4272),
    **dict.fromkeys(("NZGD2000",), 4167),
    **dict.fromkeys(("CH1903",), 4149),
    **dict.fromkeys(("POTSDAM", "DHDN", "POTSDAMDATUM"), 4314),
    **dict.fromkeys(("AMERSFOORT", "RD"), 4289),
    **dict.fromkeys(("MONTEMARIO", "ROME1940"), 4265),
    **dict.fromkeys(("INDIAN1975",), 4240),
    **dict.fromkeys(("KOREAN1985", "KOREANDATUM1985"), 4162),
    **dict.fromkeys(("BEIJING1954", "BEIJING54"), 4214),
    **dict.fromkeys(("XIAN1980", "XIAN80"), 4610),
    **dict.fromkeys(("WGS72", "WGS1972"), 4322),
    **dict.fromkeys(("PZ90",), 4740),
    **dict.fromkeys(("PZ9011",), 9475),
    **dict.fromkeys(("ITRF97",), 8996),
    **dict.fromkeys(("ITRF2000", "ITRF00"), 8997),
    **dict.fromkeys(("ITRF2005",), 8998),
    **dict.fromkeys(("ITRF2008",), 8999),
    **dict.fromkeys(("ITRF2014",), 9000),
    **dict.fromkeys(("ITRF2020",), 9990),
    **dict.fromkeys(("PSAD56", "PROVISIONALSOUTHAMERICAN1956"), 4248),
    **dict.fromkeys(("TWD97",), 3824),
    **dict.fromkeys(("HONGKONG1980", "HK80"), 4611),
    **dict.fromkeys(("NTF",), 4275),
    **dict.fromkeys(("RGF93",), 4171),
}


def is_wgs84(datum: str) -> bool:
    """Whether a name means WGS-84, in any spelling, with or without a realisation such as G1762."""
    return _WGS84.fullmatch(_key(datum)) is not None


def to_wgs84(lat: float, lon: float, datum: str) -> tuple[float, float]:
    """Transform a position (lat, lon), degrees, from a named datum to WGS-84, with PROJ.

    PROJ takes its best transformation among those whose grid files, if any, are installed. ValueError if the datum is
    unknown, because the position could then be off by a kilometre, or if PROJ cannot transform it.
    """
    code = _EPSG.get(_key(datum))
    if code is None:
        raise ValueError(f"datum {datum[:40]!r} is neither WGS-84 nor one that can be transformed to it")
    lat, lon = _transformer(code).transform(lat, lon)
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise ValueError(f"PROJ cannot transform this position from datum {datum[:40]!r}")
    return lat, lon


@cache
def _transformer(code: int) -> Transformer:
    return Transformer.from_crs(code, 4326, allow_ballpark=False)  # both have the axis order latitude, longitude


def _key(datum: str) -> str:
    """A datum's name in upper case, letters and digits only."""
    return re.sub(r"[^A-Z0-9]", "", datum.upper())
