"""`prepare_strips` as it is run: what is written, what is refused, and that the number of tasks changes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from fabricated_strips import texture, write_strip
from pyproj import Geod
from pyspark.sql import SparkSession
from rasterio.transform import Affine
from rio_cogeo.cogeo import cog_validate
from workspace import Workspace

from geosieve.overhead.strips import reader
from geosieve.overhead.strips.config import StripsConfig
from geosieve.overhead.strips.prepare import prepare_strips

DATA = Path(__file__).parents[3] / "shared" / "data" / "satellite"
UTM33 = (Affine(1, 0, 5e5, 0, -1, 5e6), "EPSG:32633")


class Strips(Workspace):
    jobs = {"prepare_strips": (StripsConfig, prepare_strips)}

    def prepare(self, uri: Path | str, run_id: str = "r1", *options: str, **source: Any) -> tuple[int, dict[str, Any]]:
        config = {"strips": {"name": "test", "uri": str(uri), **source}}
        return self.run("prepare_strips", config, run_id, *options)

    def read(self, table: str, run_id: str = "r1") -> pd.DataFrame:
        leaf = {"strips": "strips/source=test", "rejects": "rejects/job=prepare_strips/part=test"}[table]
        return pq.read_table(self.tables / leaf / f"run_id={run_id}", partitioning=None).to_pandas()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, spark: SparkSession) -> Strips:
    """A folder of strips of many kinds, good and bad, prepared once."""
    root = tmp_path_factory.mktemp("strips")
    folder = root / "in"
    write_strip(folder / "a/eight.tif", texture(8, 700, 900), *UTM33, tiled=True, blockxsize=128, blockysize=128)
    write_strip(
        folder / "grey.tif", texture(1, 300, 200, "uint8", 255), Affine(2e-5, 0, -70, 0, -2e-5, -33), "EPSG:4326"
    )
    holes = texture(4, 300, 300, "float64")
    holes[:, :100, :150] = np.nan
    write_strip(folder / "b/holes.tif", holes, *UTM33)
    write_strip(folder / "one_colour.tif", np.full((3, 50, 50), 77, np.uint16), *UTM33)
    nothing = np.zeros((3, 50, 50), np.uint16)
    write_strip(folder / "nothing.tif", nothing, *UTM33, nodata=0)
    cut = write_strip(folder / "cut.tif", texture(3, 600, 600), *UTM33)
    cut.write_bytes(cut.read_bytes()[:400_000])
    write_strip(folder / "no_crs.tif", texture(3, 50, 50), UTM33[0], None)
    write_strip(folder / "polar.tif", texture(3, 50, 50), Affine(1e-4, 0, 10, 0, -1e-4, 87), "EPSG:4326")
    write_strip(folder / "two.tif", texture(2, 50, 50), *UTM33)
    write_strip(folder / "complex.tif", np.zeros((3, 50, 50), np.complex64), *UTM33)
    (folder / "text.tif").write_text("no picture")
    (folder / "b/grid.vrt").write_text("<VRTDataset/>")  # not taken from a folder
    made = Strips(root)
    facts = [{"pattern": "eight*", "sensor": "WV3", "captured_at": "2015-10-22T18:36:00Z", "off_nadir_deg": 4.5}]
    code, report = made.prepare(folder, resolution_m=0.7, facts=facts)
    assert code == 0, report["error"]
    return made


def test_bad_strips_are_refused_with_their_class_and_the_others_are_prepared(mixed: Strips) -> None:
    rejects = mixed.read("rejects").set_index("id")
    assert rejects["error_class"].to_dict() == {
        **{"nothing": "empty", "cut": "truncated", "no_crs": "missing_crs", "polar": "outside_utm"},
        **{"two": "unknown_bands", "complex": "unsupported_type", "text": "not_a_raster"},
    }
    assert sorted(mixed.read("strips")["strip_id"]) == ["a/eight", "b/holes", "grey", "one_colour"]


def test_files_are_cloud_optimised_geotiffs_as_their_rows_say(mixed: Strips) -> None:
    for row in mixed.read("strips").itertuples():
        assert row.uri.startswith("file:/")  # absolute, whatever the output is called in the configuration
        path = Path(row.uri.removeprefix("file:"))
        assert path.is_relative_to(mixed.tables / "_strips/test/r1")
        assert cog_validate(path, quiet=True)[0]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row.content_sha256
        assert path.stat().st_size == row.bytes
        with rasterio.open(path) as file:
            assert (file.count, file.dtypes, file.crs.to_epsg()) == (3, ("uint8",) * 3, row.epsg)
            assert (file.width, file.height) == (row.width, row.height)
            assert tuple(file.transform)[:6] == pytest.approx(tuple(row.transform.values()), abs=1e-9)
            assert file.res == pytest.approx((0.7, 0.7)) and row.resolution_m == 0.7
            assert (file.dataset_mask() == 0).mean() == pytest.approx(row.empty_share, abs=1e-12)
    left = [path.name for path in (mixed.tables / "_strips").rglob("*") if path.is_file()]
    assert sorted(left) == ["eight.tif", "grey.tif", "holes.tif", "one_colour.tif"]  # no tiles, no parts of files


def test_levels_are_numpys_percentiles_of_the_whole_strip(mixed: Strips) -> None:
    levels = mixed.read("strips").set_index("strip_id")["levels"]
    for name, bands in (("a/eight", (5, 3, 2)), ("b/holes", (3, 2, 1)), ("grey", (1, 1, 1))):
        with rasterio.open(mixed.root / f"in/{name}.tif") as file:
            for band, found in zip(bands, levels[name], strict=True):
                values = file.read(band).astype(np.float64)
                black, white = np.percentile(values[np.isfinite(values)], [2, 98])
                assert found == {"band": band, "black": black, "white": white}


def test_holes_stay_empty_and_one_colour_is_grey(mixed: Strips) -> None:
    rows = mixed.read("strips").set_index("strip_id")
    assert rows.empty_share["b/holes"] == pytest.approx(100 * 150 / 300**2, abs=0.01)
    with rasterio.open(rows.uri["one_colour"].removeprefix("file:")) as file:
        assert set(np.unique(file.read()[:, file.dataset_mask() != 0])) == {128}


def test_facts_zone_and_footprint_stand_in_the_row(mixed: Strips) -> None:
    rows = mixed.read("strips").set_index("strip_id")
    eight, grey = rows.loc["a/eight"], rows.loc["grey"]
    assert (eight.utm_zone, grey.utm_zone, grey.epsg) == ("33N", "19S", 32719)
    assert (eight.sensor, eight.off_nadir_deg) == ("WV3", 4.5) and grey.sensor is None
    assert pd.Timestamp(eight.captured_at).tz_localize(None) == pd.Timestamp("2015-10-22 18:36")
    outline = shapely.from_wkb(eight.footprint)
    assert shapely.area(outline) > 0 and outline.bounds == tuple(eight.bbox.values())
    area = abs(Geod(ellps="WGS84").geometry_area_perimeter(outline)[0])
    assert area == pytest.approx(700 * 900, rel=0.02)
    assert eight.native_resolution_m == pytest.approx(1.0) and eight.source_uri.endswith("in/a/eight.tif")


def test_the_number_of_tasks_changes_no_byte(mixed: Strips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PART_PIXELS", 1 << 14)
    code, report = mixed.prepare(mixed.root / "in", "r2", resolution_m=0.7)
    assert code == 0, report["error"]
    assert mixed.read("rejects", "r2")["error_class"].tolist() == mixed.read("rejects")["error_class"].tolist()
    before, after = (mixed.read("strips", run).set_index("strip_id").sort_index() for run in ("r1", "r2"))
    assert after.content_sha256.to_dict() == before.content_sha256.to_dict()
    assert [list(v) for v in after.levels] == [list(v) for v in before.levels]


def test_a_committed_run_does_nothing_and_a_dry_run_writes_nothing(mixed: Strips) -> None:
    before = sorted(mixed.tables.rglob("*"))
    assert mixed.prepare(mixed.root / "in", resolution_m=0.7, facts=[])[0] == 78  # another configuration
    code, report = mixed.prepare(mixed.root / "in", "r9", "--dry-run", "--verbose")
    assert (code, report["status"], report["details"]["inputs"]["strips"]) == (0, "dry_run", 11)
    assert sorted(mixed.tables.rglob("*")) == before


def test_a_folder_without_a_usable_strip_is_bad_input(tmp_path: Path, spark: SparkSession) -> None:
    write_strip(tmp_path / "in/no_crs.tif", texture(3, 50, 50), UTM33[0], None)
    made = Strips(tmp_path)
    code, report = made.prepare(tmp_path / "in")
    assert code == 65 and "none of 1 strips can be used" in report["error"]
    assert not list(tmp_path.rglob("_SUCCESS"))


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")
def test_real_strips_and_a_vrt_of_tiles_named_as_such(tmp_path: Path, spark: SparkSession) -> None:
    made = Strips(tmp_path)
    partner = {"replace": "_ms", "by": "_pan"}
    code, report = made.prepare(f"{DATA}/solaris_[mp]*.tif", "sharp", panchromatic=partner, resolution_m=0.5)
    assert code == 0, report["error"]
    rows = made.read("strips", "sharp")
    assert sorted(rows.strip_id) == ["solaris_ms1", "solaris_ms2", "solaris_ms3"]
    assert all(
        uri.endswith("_pan" + name[-1] + ".tif") for uri, name in zip(rows.panchromatic_uri, rows.strip_id, strict=True)
    )
    source = f'<SourceFilename relativeToVRT="0">{DATA}/solaris_ms1.tif</SourceFilename>'
    bands = "".join(
        f'<VRTRasterBand dataType="Float64" band="{b}"><SimpleSource>{source}<SourceBand>{b}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for b in (1, 2, 3, 4)
    )
    with rasterio.open(DATA / "solaris_ms1.tif") as file:
        place = ", ".join(map(repr, file.transform.to_gdal()))
    text = f"<SRS>EPSG:32631</SRS><GeoTransform>{place}</GeoTransform>{bands}</VRTDataset>"
    vrt = tmp_path / "mosaic.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="300" rasterYSize="300">{text}')
    assert made.prepare(vrt, "refused")[0] == 65
    assert made.prepare(vrt, "vrt", vrt_sources=[str(DATA)])[0] == 0
    assert made.prepare(DATA / "solaris_ms1.tif", "tif")[0] == 0
    hashes = {run: made.read("strips", run).content_sha256.tolist() for run in ("vrt", "tif")}
    assert hashes["vrt"] == hashes["tif"]
