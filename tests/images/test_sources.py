"""Ready-made source configurations fit the layouts that were published."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ingesting import Ingest

from geosieve.images.sources import IngestConfig
from geosieve.runtime.config import load, validate
from geosieve.runtime.errors import EXIT_DONE, ConfigError

CONF = Path(__file__).parents[2] / "conf" / "ingest_images"

MP16 = "IMG_ID,AUTHOR,LAT,LON,S3_Label,S16_Label,S365_Label,Prob_indoor,Prob_natural,Prob_urban"
OSV5M = (
    "id,latitude,longitude,thumb_original_url,country,sequence,captured_at,lon_bin,lat_bin,cell,region,sub-region,city,"
    "land_cover,road_index,drive_side,climate,soil,dist_sea,quadtree_10_5000,quadtree_10_25000,quadtree_10_1000,"
    "quadtree_10_50000,quadtree_10_12500,quadtree_10_500,quadtree_10_2500,unique_region,unique_sub-region,unique_city,"
    "unique_country,creator_username,creator_id"
)
OSV5M_ROW = (
    '3859149887465501,-43.8047,-176.6140,,NZ,0a1b,1430000000000,8,0,"(0, 8)",Chatham Islands,,Waitangi,4,4.66,1,15,3,'
    "0.0069,0,0,0,0,0,0,0,Chatham Islands_NZ,,Waitangi_NZ,NZ,roadroid,111336221091714.0"
)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_source_loads(path: Path) -> None:
    assert load(IngestConfig, path).source.name


def ingest_row(ingest: Ingest, config: str, header: str, row: str) -> object:
    columns = yaml.safe_load((CONF / config).read_text())["source"]["columns"]
    path = ingest.root / "list.csv"
    path.write_text(f"{header}\n{row}\n")
    code, report = ingest(path, columns=columns)
    assert code == EXIT_DONE, report["error"]
    (image,) = ingest.images().values()
    return image


def test_mp16_as_published(ingest: Ingest) -> None:
    image = ingest_row(
        ingest, "mp16.yaml", MP16, "f9/c0/123.jpg,19355699@N00,-16.663606,145.563537,1,8,150,0.1,0.7,0.2"
    )
    assert (image.image_id, image.author) == ("f9/c0/123.jpg", "19355699@N00")
    assert (image.lat, image.lon, image.captured_at) == (-16.663606, 145.563537, None)


def test_osv5m_as_published(ingest: Ingest) -> None:
    image = ingest_row(ingest, "osv5m.yaml", OSV5M, OSV5M_ROW)
    assert (image.image_id, image.author, image.sequence) == ("3859149887465501", "roadroid", "0a1b")
    assert (image.lat, image.lon, image.uri) == (-43.8047, -176.6140, None)
    assert image.captured_at.timestamp() == 1430000000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "photos", "columns": {}}, "valid keys: fingerprint, format, limits, name, uri"),
        ({"format": "csv"}, "columns: Field required"),
        ({"format": "xlsx"}, "'csv', 'parquet', 'msgpack', 'photos'"),
        ({"format": "photos", "name": "a/b"}, "name"),
        ({"format": "photos", "uri": ""}, "uri"),
    ],
)
def test_a_wrong_source_is_explained(change: dict[str, object], said: str) -> None:
    content = {"source": {"name": "a", "uri": "b", **change}, "output": "c"}
    with pytest.raises(ConfigError, match=said):
        validate(IngestConfig, content, where="test")
