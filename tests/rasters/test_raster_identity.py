"""What identifies a CRS: what it does, in whatever words it is written."""

from __future__ import annotations

import json

import pytest
from pyproj import CRS

from geosieve.rasters.identity import crs_facts
from geosieve.runtime.identity import content_digest

_FORMS = ("WKT1_GDAL", "WKT1_ESRI", "WKT2_2015", "WKT2_2019")
_ROTATED = "+proj=ob_tran +o_proj=longlat +o_lat_p=40 +o_lon_p=10 +lon_0=20 +datum=WGS84"


def digest(text: str) -> str:
    return content_digest("crs", 1, crs_facts(text))


@pytest.mark.parametrize("name", ["EPSG:4326", "EPSG:32618", "EPSG:3857", "EPSG:3413", "EPSG:4807", "EPSG:27700"])
def test_a_crs_has_one_hash_however_it_is_written(name: str) -> None:
    crs = CRS.from_user_input(name)
    assert len({digest(crs.to_wkt(form)) for form in _FORMS}) == 1


def test_the_names_of_a_crs_do_not_count() -> None:
    crs = CRS.from_epsg(32618).to_json_dict()
    renamed = {**crs, "name": "My own grid", "id": {"authority": "ME", "code": 1}, "scope": "other"}
    assert digest(CRS.from_json(json.dumps(renamed)).to_wkt()) == digest(CRS.from_epsg(32618).to_wkt())
    assert digest(CRS.from_user_input("OGC:CRS84").to_wkt()) == digest(CRS.from_epsg(4326).to_wkt())
    assert digest(CRS.from_user_input("EPSG:32618+5773").to_wkt()) == digest(CRS.from_epsg(32618).to_wkt())


def test_every_parameter_of_a_crs_counts() -> None:
    texts = ["EPSG:4326", "EPSG:4258", "EPSG:32618", "EPSG:32718", "EPSG:32619", "EPSG:26918", "EPSG:3413", "EPSG:3031"]
    texts += ["EPSG:2263", "EPSG:4807", "EPSG:4275", "+proj=longlat +R=6371000", "+proj=sinu +R=6371007.181"]
    texts += ["+proj=sinu +R=6371007.181 +lon_0=10", "+proj=sinu +R=6371007.181 +units=km", _ROTATED]
    texts += [_ROTATED.replace("=40", "=41"), "+proj=longlat +ellps=airy +towgs84=446.448,-125.157,542.06"]
    texts += ["+proj=longlat +ellps=airy +towgs84=446.448,-125.157,542.07", "+proj=longlat +ellps=airy"]
    hashes = [digest(CRS.from_user_input(text).to_wkt()) for text in texts]
    assert len(set(hashes)) == len(texts)
