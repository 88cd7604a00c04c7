"""Colours of the materials of synthetic scenes, by climate, land cover, season, country and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.scenes import maps
from demo.scenes.cues import MARKING_COLOUR, SNOW, Drawn, built_up
from demo.scenes.hashing import Draws
from demo.scenes.layout import MATERIALS, Layout, Material, Part
from demo.scenes.maps import ARID, COLD, TEMPERATE, TROPICAL, Facts
from geosieve.geo.arrays import F4, Array

# All colours are red, green and blue from 0 to 1. These arrays are by climate group, from tropical to polar. How green
# plants are is by season, too, from winter to autumn.
_GREEN = np.array([[0.85, 0.85, 0.9, 0.85], [0.2, 0.25, 0.1, 0.1], [0.5, 0.8, 0.65, 0.5], [0.1, 0.55, 0.9, 0.3],
                   [0.1, 0.15, 0.5, 0.2]])  # fmt: skip
_SOIL = np.array([[0.6, 0.33, 0.2], [0.84, 0.68, 0.45], [0.47, 0.37, 0.26], [0.36, 0.31, 0.25], [0.5, 0.48, 0.45]])
_CLEAR = np.array([0.55, 0.9, 0.5, 0.5, 0.45])  # share of days with few clouds

# Share of bare soil, by land cover.
_BARE = np.array([.5, .2, .2, .2, .2, .2, .45, .7, .25, .25, .15, .1, .35, .4, .3, 0, 1])  # fmt: skip

_LEAVES = np.array([[0.4, 0.34, 0.28], [0.3, 0.5, 0.15], [0.2, 0.38, 0.12], [0.72, 0.42, 0.12]])  # winter to autumn

# Each country has two colours of walls and one of roofs. Which ones, is invented.
_WALLS = np.array([[0.9, 0.88, 0.83], [0.62, 0.3, 0.22], [0.85, 0.7, 0.42], [0.5, 0.38, 0.28], [0.72, 0.72, 0.7],
                   [0.6, 0.72, 0.8], [0.9, 0.62, 0.5], [0.7, 0.6, 0.48]])  # fmt: skip
_ROOFS = np.array([[0.62, 0.28, 0.17], [0.3, 0.32, 0.35], [0.55, 0.55, 0.55], [0.42, 0.3, 0.22]])

_PAINTS = np.array(  # of vehicles
    [[0.8, 0.8, 0.82], [0.15, 0.15, 0.17], [0.55, 0.57, 0.6], [0.6, 0.1, 0.1], [0.12, 0.2, 0.5], [0.75, 0.7, 0.55]]
)


def _rgb(red: float, green: float, blue: float) -> F4:
    return np.array([red, green, blue], np.float32)


_WHITE = _rgb(0.93, 0.95, 0.98)  # snow


@dataclass(frozen=True)
class Light:
    """The light of scenes; arrays (n,), colours (n, 3)."""

    day: F4  # from 0 at night to 1
    height: F4  # of the sun above the horizon, sine
    colour: F4  # of what is lit
    haze: F4  # colour of the sky at the horizon and of what is far away
    zenith: F4  # colour of the sky above
    overcast: F4  # share of clouds, 0 to 1
    sight_m: F4  # distance at which haze takes 63 % of a colour


def light_of(facts: Facts, drawn: Drawn, draws: Draws) -> Light:
    """The light of scenes, by latitude, date, hour and clouds."""
    lat = np.radians(facts.lat)
    tilt = np.radians(-23.44) * np.cos(2 * np.pi * (drawn.day + 10) / 365)  # declination of the sun
    height = np.sin(lat) * np.sin(tilt) + np.cos(lat) * np.cos(tilt) * np.cos(np.pi * (drawn.hour - 12) / 12)
    day = np.clip((height + 0.15) / 0.3, 0.1, 1)
    overcast = np.where(draws.uniform("sky") < _CLEAR[facts.climate - 1], 0.35, 1) * draws.uniform("clouds")
    warm = np.clip(1 - np.abs(height - 0.05) / 0.25, 0, 1) * (1 - overcast)
    colour = day[:, None] * (_rgb(1, 0.98, 0.94) - warm[:, None] * _rgb(0, 0.12, 0.28)) + 0.03
    grey = day[:, None] * _rgb(0.74, 0.76, 0.79)
    blue = _mixed(_rgb(0.02, 0.03, 0.08), _rgb(0.25, 0.48, 0.86), day)
    haze = _mixed(_mixed(_rgb(0.05, 0.06, 0.12), _rgb(0.72, 0.82, 0.92), day), _rgb(0.95, 0.68, 0.45), 0.7 * warm)
    dust = 0.35 * (facts.climate == ARID) * draws.uniform("dust")
    haze = _mixed(_mixed(haze, grey, overcast), day[:, None] * _rgb(0.85, 0.74, 0.58), dust)
    sight = 150 * 40 ** draws.uniform("sight")
    arrays = (day, height, colour, haze, _mixed(blue, grey, overcast), overcast, sight)
    return Light(*(np.asarray(values, np.float32) for values in arrays))


def _mixed(one: F4, other: F4, share: Array | float) -> F4:
    """Colours, shape (n, 3), that hold `share` (n,) of the other, or one share for all."""
    return np.asarray(one + (other - one) * np.atleast_1d(share)[:, None], np.float32)


def palette(facts: Facts, drawn: Drawn, draws: Draws, scene: Layout, light: Light) -> F4:
    """Colours of materials in the scenes' light, shape (n, MATERIALS, 3), from 0 to 1. The plane's are without haze."""
    green = _GREEN[facts.climate - 1, drawn.season] + draws.between("green", -0.15, 0.15)
    colours = np.zeros((len(facts), MATERIALS, 3), np.float32)
    _fill_land(colours, facts, drawn, draws, green)
    _fill_road(colours, facts, drawn, draws)
    colours *= light.colour[:, None, :]
    objects = _object_colours(facts, drawn, draws, green) * light.colour[:, None, :]
    objects[:, Part.WINDOW] = _mixed(objects[:, Part.WINDOW], _rgb(1, 0.85, 0.5), 0.5 * (1 - light.day))
    for row in range(scene.rows_m.shape[1]):
        haze = 1 - np.exp(-scene.rows_m[:, row] / light.sight_m)
        start = Material.OBJECTS + row * len(Part)
        hazy = objects + (light.haze[:, None, :] - objects) * haze[:, None, None]
        colours[:, start : start + len(Part)] = hazy
    lamp = np.where(scene.oncoming[:, None], _rgb(1, 0.98, 0.85), _rgb(0.9, 0.06, 0.04))
    colours[:, Material.LAMP] = lamp * np.maximum(light.colour, 0.7)  # lamps shine at night
    for material in (Material.RELIEF, Material.PEAK):
        haze = 1 - np.exp(-0.6 * np.minimum(1200 / light.sight_m, 4) - 0.25)
        colours[:, material] = _mixed(colours[:, material], light.haze, haze)
    return colours


def _fill_land(colours: F4, facts: Facts, drawn: Drawn, draws: Draws, green: F4) -> None:
    """Fill the colours of land and water in white light."""
    is_snowy, is_ice = drawn.shown[SNOW] == 1, facts.cover == maps.ICE
    bare = _BARE[facts.cover] + 0.25 * (facts.climate == ARID) + draws.between("bare", -0.15, 0.15)
    soil = _SOIL[facts.climate - 1] + draws.between("soil", -0.06, 0.06)[:, None]
    fresh = _mixed(_rgb(0.36, 0.5, 0.17), _rgb(0.2, 0.42, 0.12), facts.climate == TROPICAL)
    ground = _mixed(_mixed(_rgb(0.66, 0.58, 0.34), fresh, green), soil, np.clip(bare, 0, 1))
    ground = _mixed(ground, _rgb(0.5, 0.49, 0.47), 0.85 * np.clip((built_up(facts) - 0.6) / 0.3, 0, 1))
    crops = _mixed(_rgb(0.8, 0.68, 0.3), _rgb(0.3, 0.52, 0.12), green)
    is_field = np.isin(facts.cover, (maps.CROPS, maps.CROP_MOSAIC))
    field = _mixed(_mixed(ground, soil, 0.35), crops, 0.9 * is_field)
    colours[:, Material.GROUND] = _mixed(ground, _rgb(0.8, 0.88, 0.94), 0.9 * is_ice)
    colours[:, Material.FIELD] = _mixed(field, _rgb(0.8, 0.88, 0.94), 0.9 * is_ice)
    colours[:, Material.SNOW] = colours[:, Material.PEAK] = _WHITE
    is_wooded = (facts.cover > 0) & (facts.cover < 9) & (facts.climate != ARID)
    hills = _mixed(ground, _rgb(0.16, 0.28, 0.14), np.where(is_wooded, 0.7, 0.2))
    colours[:, Material.RELIEF] = _mixed(hills, _WHITE, 0.8 * (is_snowy | is_ice))
    warm = (np.abs(facts.lat) < 30) * draws.between("sea", 0.4, 1)
    sea = _mixed(_rgb(0.13, 0.27, 0.38), _rgb(0.1, 0.5, 0.58), warm)
    colours[:, Material.WATER] = _mixed(sea, _rgb(0.75, 0.82, 0.88), 0.8 * (is_snowy & (facts.climate >= COLD)))


def _fill_road(colours: F4, facts: Facts, drawn: Drawn, draws: Draws) -> None:
    """Fill the colours of the road, the vehicle and the occluder in white light."""
    line = drawn.shown[MARKING_COLOUR]
    asphalt = draws.between("asphalt", 0.25, 0.45)[:, None] * _rgb(1, 1, 1.02)
    is_unpaved = (line == 0) & (draws.uniform("unpaved") < np.where(facts.people_km2 > 200, 0.1, 0.6))
    road = _mixed(asphalt, 0.9 * _SOIL[facts.climate - 1], is_unpaved)
    colours[:, Material.ROAD] = _mixed(road, _WHITE, 0.45 * (drawn.shown[SNOW] == 1))
    colours[:, Material.EDGE_LINE] = _rgb(0.9, 0.9, 0.88)
    colours[:, Material.CENTRE_LINE] = _mixed(_rgb(0.93, 0.93, 0.92), _rgb(0.95, 0.7, 0.05), line == 2)
    colours[:, Material.BODY] = _PAINTS[(draws.uniform("paint") * len(_PAINTS)).astype(np.int64)]
    colours[:, Material.GLASS] = _rgb(0.1, 0.13, 0.16)
    colours[:, Material.WHEEL] = 0.05
    colours[:, Material.OCCLUDER] = draws.uniform("hidden", 3) * 0.4


def _object_colours(facts: Facts, drawn: Drawn, draws: Draws, green: F4) -> F4:
    """Colours of parts of objects in white light, shape (n, len(Part), 3)."""
    colours = np.empty((len(facts), len(Part), 3), np.float32)
    colours[:, Part.CONIFER] = _rgb(0.09, 0.21, 0.13)
    evergreen = (facts.climate == TROPICAL) | ((facts.climate == TEMPERATE) & (np.abs(facts.lat) < 33))
    leaves = _mixed(_LEAVES[drawn.season], _rgb(0.13, 0.37, 0.1), evergreen)
    colours[:, Part.BROADLEAF] = _mixed(leaves, _rgb(0.42, 0.42, 0.22), 0.5 * (facts.climate == ARID))
    colours[:, Part.PALM] = _rgb(0.24, 0.45, 0.14)
    colours[:, Part.SHRUB] = _mixed(_rgb(0.5, 0.46, 0.3), _rgb(0.28, 0.4, 0.15), np.clip(green, 0, 1))
    colours[:, Part.TRUNK] = _rgb(0.3, 0.23, 0.16)
    # Walls and roofs have the colours of the country, which are invented, or in tall quarters those of concrete.
    letters = facts.country.astype("U2").view(np.uint32).reshape(-1, 2).astype(np.int64)
    of_country = Draws(7, 26 * letters[:, 0] + letters[:, 1])
    chosen = (of_country.uniform("walls", 2) * len(_WALLS)).astype(np.int64)
    tall = np.clip(facts.people_km2 / 8000, 0, 0.6)
    jitter = draws.between("walls", 0.88, 1.08)[:, None]
    colours[:, Part.WALL] = _mixed(_WALLS[chosen[:, 0]], _rgb(0.62, 0.62, 0.62), tall) * jitter
    colours[:, Part.OTHER_WALL] = _mixed(_WALLS[chosen[:, 1]], _rgb(0.4, 0.48, 0.55), tall) * jitter
    colours[:, Part.ROOF] = _ROOFS[(of_country.uniform("roofs") * len(_ROOFS)).astype(np.int64)]
    colours[:, Part.WINDOW] = _rgb(0.17, 0.22, 0.28)
    is_snowy = drawn.shown[SNOW] == 1
    for part, share in ((Part.CONIFER, 0.4), (Part.BROADLEAF, 0.3), (Part.SHRUB, 0.6), (Part.ROOF, 0.85)):
        colours[:, part] = _mixed(colours[:, part], _WHITE, share * is_snowy)
    return colours
