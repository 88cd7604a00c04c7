"""Real files of many kinds, point by point against rasterio: strips, tiles, UTM, Albers, masks, alpha, Clarke 1866."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from fabricated_rasters import cataloged
from rasterio.warp import transform

from geosieve.rasters.sampling import pixels, read_pixels

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = [
    "rasters/KG_simplified_uint8.tif",
    "rasters/MCD12C1.A2019001.006.tif",
    "rasters/gpw_v4_population_density_rev11_2020_15_min.tif",
    "rasters/worldpop/abw_ppp_2020_UNadj_constrained.tif",
    "rasters/esa_cci_lc_tile/C3S-LC-L4-LCCS-Map-300m-P1Y-2018-v2.1.1-N79W180-lccs_class.tif",
    "satellite/riotiler_mosaic_cog1.tif",
    "satellite/riotiler_mosaic_cog2.tif",
    "satellite/solaris_sample_geotiff.tif",
    "satellite/solaris_sample_geotiff_custom_proj.tif",
    "satellite/apls_RGB-PanSharpen_AOI_2_Vegas_img0.tif",
]


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")
@pytest.mark.parametrize("name", FILES)
def test_values_and_validity_equal_rasterios(name: str) -> None:
    path = DATA / name
    described = cataloged(path)
    west, south, east, north = shapely.from_wkb(described.footprint).bounds
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(south, north, 2000), rng.uniform(west, east, 2000)
    row, column, inside = pixels(described.file, lat, lon)
    values, valid = read_pixels(described.file, row, column)
    with rasterio.open(path) as dataset:
        x, y = (np.array(v) for v in transform("EPSG:4326", dataset.crs, lon.tolist(), lat.tolist()))
        bounds = dataset.bounds
        here = (x >= bounds.left) & (x < bounds.right) & (y > bounds.bottom) & (y <= bounds.top)
        masked = [v[0] for v in dataset.sample(zip(x, y, strict=True), indexes=1, masked=True)]
    assert here.sum() > 500
    np.testing.assert_array_equal(inside, here)
    expected = np.array([not np.ma.is_masked(v) for v in masked])
    np.testing.assert_array_equal(valid[here], expected[here])
    found = np.array([0 if np.ma.is_masked(v) else v for v in masked], values.dtype)
    np.testing.assert_array_equal(np.where(valid, values, 0)[here], found[here])
