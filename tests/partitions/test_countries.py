"""Natural Earth countries through the Sedona join, against shapely alone and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from given_tables import GivenTables
from pyspark.sql import SparkSession

from geosieve.geo.codes import OUTSIDE
from geosieve.partitions.base import parse_definition
from geosieve.rasters.candidates import join_outlines, occupied_cells
from geosieve.runtime.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")

CITIES = {
    (48.8566, 2.3522): "France",
    (-1.2864, 36.8172): "Kenya",
    (43.94, 12.46): "San Marino",  # a hole in Italy
    (-29.31, 27.48): "Lesotho",  # a hole in South Africa
    (66.5, -172.0): "Russia",  # Chukotka, east of the antimeridian
    (-16.8, 179.99): "Fiji",
    (-16.8, -179.99): "Fiji",
    (64.15, -21.94): "Iceland",  # in the complement of Russia, if its ring is not cut
    (71.2, 179.5): "Russia",  # Wrangel Island, on both sides of ±180
    (71.2, -179.5): "Russia",
    (-85.0, 0.0): "Antarctica",
    (-90.0, 0.0): "Antarctica",
    (0.0, -30.0): None,  # the Atlantic
}


URI = str(DATA / "vector" / "countries-50m.json")
FACTS = {"kind": "polygons", "uri": URI, "layer": "countries", "name_column": "name"}


def test_rings_that_are_not_cut_at_180_are_refused_by_name_where_edges_are_planar() -> None:
    definition = parse_definition({"name": "countries", **FACTS}, "test")
    with pytest.raises(InputError, match=r"3 shapes .*: Russia .*, Fiji .*, Antarctica .*edges: shortest"):
        definition.build(GivenTables())


def test_countries_of_known_places_and_of_im2gps3k(spark: SparkSession) -> None:
    definition = parse_definition({"name": "countries", **FACTS, "edges": "shortest"}, "test")
    countries = definition.build(GivenTables())
    photos = pd.read_csv(DATA / "coords" / "im2gps3k_2997.csv")
    lat = np.concatenate([[place[0] for place in CITIES], photos["latitude"]])
    lon = np.concatenate([[place[1] for place in CITIES], photos["longitude"]])
    points = spark.createDataFrame(pd.DataFrame({"lat": lat, "lon": lon}))
    index = join_outlines(spark, occupied_cells(points), {"countries": countries.outlines()})["countries"]
    region = countries.assigner().assign(lat, lon, index.candidates(lat, lon))

    names = {r["region"]: r["name"] for r in countries.regions(np.empty(0, np.int64)).to_pylist()}
    assert [names.get(r) for r in region[: len(CITIES)].tolist()] == list(CITIES.values())

    expected = np.full(lat.size, OUTSIDE)
    for number, wkb in sorted(countries.outlines().items(), reverse=True):
        expected[shapely.intersects_xy(shapely.from_wkb(wkb), lon, lat)] = number
    np.testing.assert_array_equal(region, expected)
    assert (region != OUTSIDE).mean() > 0.8
