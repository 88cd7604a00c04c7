"""What is where in a synthetic scene: the material of each pixel, from which both the picture and its classes follow.

The camera stands 1.6 m above a plane. y runs down and x to the right, both from -1 to 1 over the picture. A point of
the plane z metres ahead and X metres to the right is seen at x = f X / z, y = horizon + 1.6 f / z, where f is the focal
length. Trees and buildings stand in three rows across the view; each row is divided into slots with one object each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from demo.scenes import maps
from demo.scenes.cues import DRIVING_SIDE, MARKING_COLOUR, SNOW, Drawn, built_up
from demo.scenes.hashing import Draws
from demo.scenes.maps import ARID, POLAR, TEMPERATE, TROPICAL, Facts
from geosieve.geo.arrays import F4, F8, I8, Array, Mask

U1 = NDArray[np.uint8]

LEAST_SIDE = 64
"""In smaller pictures the parts of vehicles would be narrower than a pixel."""

_HEIGHT_M = 1.6  # of the camera
_ROAD_M = 3.5  # half the width of a road
_ROWS_M = (70.0, 35.0, 16.0)  # distances of the rows of objects
_SLOTS = (14, 8, 4)  # in each row

# Share of slots with plants, by land cover.
_PLANT_COVER = np.array([0, .9, .9, .9, .9, .9, .5, .25, .6, .3, .08, .25, .12, .3, .3, 0, .02])  # fmt: skip


class Class(IntEnum):
    """Classes of pixels. GROUND is bare or has low plants and crops; OCCLUDER is what hides the scene at an edge."""

    SKY, RELIEF, GROUND, VEGETATION, WATER, SNOW, ROAD, MARKING, BUILDING, VEHICLE, OCCLUDER = range(11)


class Part(IntEnum):
    """Materials of objects. The first five are also kinds of objects: four plants, and buildings by their walls."""

    CONIFER, BROADLEAF, PALM, SHRUB, WALL, OTHER_WALL, ROOF, WINDOW, TRUNK = range(9)


_PLANTS = (Part.CONIFER, Part.BROADLEAF, Part.PALM, Part.SHRUB, Part.TRUNK)


class Material(IntEnum):
    """Materials of pixels. From OBJECTS on there are all of `Part` for each row of objects, the farthest row first."""

    SKY, RELIEF, PEAK, GROUND, FIELD, SNOW, WATER, ROAD, EDGE_LINE, CENTRE_LINE = range(10)
    BODY, GLASS, WHEEL, LAMP, OCCLUDER, OBJECTS = range(10, 16)


MATERIALS = Material.OBJECTS + len(Part) * len(_ROWS_M)

CLASS_OF = np.array(
    [
        *(Class.SKY, Class.RELIEF, Class.RELIEF, Class.GROUND, Class.GROUND, Class.SNOW, Class.WATER, Class.ROAD),
        *(Class.MARKING, Class.MARKING, *4 * [Class.VEHICLE], Class.OCCLUDER),
        *len(_ROWS_M) * [Class.VEGETATION if part in _PLANTS else Class.BUILDING for part in Part],
    ],
    np.uint8,
)
"""The class of each material."""

ON_PLANE = np.isin(np.arange(MATERIALS), np.arange(Material.GROUND, Material.BODY))
"""Whether a material lies on the plane, where haze depends on the row of the picture."""


@dataclass(frozen=True)
class Layout:
    """Materials of scenes, and what their colours depend on."""

    material: U1  # (n, side, side)
    axis: F4  # x of columns and y of rows, (side,)
    below: F4  # how far each row is below the horizon, (n, side)
    distance_m: F4  # of the plane in each row, (n, side)
    rows_m: F4  # distances of the rows of objects, (n, 3)
    oncoming: Mask  # whether the vehicle is seen from its front, (n,)


@dataclass(frozen=True)
class _View:
    """The camera and the road of scenes."""

    focal: F4  # (n, 1)
    horizon: F4  # (n, 1)
    axis: F4  # x of columns and y of rows, (side,)
    below: F4  # (n, side)
    distance_m: F4  # (n, side)
    across_m: F4  # X of pixels on the plane, (n, side, side)
    road: tuple[F4, F4, F4]  # polynomial of X of the road's middle in z, each (n, 1)
    has_road: Mask  # (n, 1)
    water: tuple[F4, F4, F4]  # where a X + b z > c is water, each (n, 1); X from the road where there is one

    def road_m(self, distance_m: F4) -> F4:
        """X of the middle of the road at distances, 0 where there is no road. Shapes (n, 1) or (n, side)."""
        start, slope, curve = self.road
        return start + distance_m * (slope + curve * distance_m)


def layout(facts: Facts, drawn: Drawn, draws: Draws, side: int) -> Layout:
    """Lay out scenes of side × side pixels."""
    view = _view(facts, drawn, draws, side)
    material = np.zeros((len(facts), side, side), np.uint8)
    _paint_relief(material, facts, draws, view)
    _paint_plane(material, facts, drawn, draws, view)
    rows_m = np.array(_ROWS_M, np.float32) * (0.75 + 0.5 * draws.uniform("rows", len(_ROWS_M)))
    _paint_forest(material, facts, draws, view)
    for row in range(len(_ROWS_M)):
        _paint_objects(material, facts, draws, view, row, rows_m[:, row, None])
    oncoming = draws.uniform("oncoming") < 0.35
    _paint_vehicle(material, drawn, draws, view, oncoming)
    _paint_occluder(material, draws, view)
    return Layout(material, view.axis, view.below, view.distance_m, rows_m, oncoming)


def _view(facts: Facts, drawn: Drawn, draws: Draws, side: int) -> _View:
    def between(name: str, low: float, high: float) -> F4:
        return draws.between(name, low, high)[:, None]

    axis = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    focal, horizon = between("focal", 0.9, 1.8), between("pitch", -0.35, 0.15)
    below = axis - horizon
    distance = np.where(below > 0, _HEIGHT_M * focal / np.maximum(below, 1e-3), np.float32(1e4))
    has_road = drawn.road[:, None]
    start, slope, curve = (
        np.where(has_road, between(f"road {name}", -most, most), np.float32(0))
        for name, most in (("start", 2.0), ("slope", 0.08), ("curve", 0.002))
    )
    # The sea is beside a road, or else ahead. The nearest it comes leaves ground at the lower edge of the picture.
    is_seen = (draws.uniform("water") < _water(facts))[:, None]
    where = draws.uniform("water side")[:, None]
    beside = np.where(where < 0.5, np.float32(-1), np.float32(1))
    a = np.where(has_road, beside, 0.8 * where - 0.4).astype(np.float32)
    b = np.where(has_road, np.float32(0), np.float32(1))
    c = np.where(is_seen, between("shore", 8, 30), np.float32(1e9))
    across = distance[:, :, None] * (axis / focal)[:, None, :]
    return _View(focal, horizon, axis, below, distance, across, (start, slope, curve), has_road, (a, b, c))


def _water(facts: Facts) -> F8:
    """Probability that water is in view."""
    near = np.select([facts.shore_km < 5, facts.shore_km < 12], [0.5, 0.15], 0.02)
    return np.where(facts.cover == maps.WATER, 0.9, near)


def _paint_relief(material: U1, facts: Facts, draws: Draws, view: _View) -> None:
    """Paint hills and mountains behind the plane, and snow on the highest."""
    height = np.zeros_like(view.below)
    phase = 2 * np.pi * draws.uniform("ridge", 5)
    for k in range(5):
        height += np.sin(view.axis * np.float32(1.3 * 1.9**k) / view.focal + phase[:, k, None]) / np.float32(1.6**k)
    steep = (0.02 + 0.28 * facts.relief**2 * (facts.cover != maps.WATER)).astype(np.float32)[:, None]
    height = steep * view.focal * np.maximum(height + 1, 0)
    above = -view.below[:, :, None]
    np.copyto(material, np.uint8(Material.RELIEF), where=above < height[:, None, :])
    line = np.where((facts.relief > 0.5) & (np.abs(facts.lat) > 25), np.float32(0.18), np.float32(9))[:, None]
    line = (line * view.focal + 0.15 * height)[:, None, :]  # snow begins lower on lower slopes, so the line is uneven
    np.copyto(material, np.uint8(Material.PEAK), where=(above > line) & (above < height[:, None, :]))


def _paint_plane(material: U1, facts: Facts, drawn: Drawn, draws: Draws, view: _View) -> None:
    """Paint ground, fields, snow, water and the road."""
    is_plane = view.below > 0
    plane, far = is_plane[:, :, None], view.distance_m[:, :, None]
    material[is_plane] = Material.GROUND
    pattern = _pattern(facts, draws, view)
    np.copyto(material, np.uint8(Material.FIELD), where=plane & (pattern > 0.2))
    snow = np.where(drawn.shown[SNOW] == 1, draws.between("snow cover", 0.3, 1.3), np.float32(-9))
    np.copyto(material, np.uint8(Material.SNOW), where=plane & (pattern < snow[:, None, None]))
    across = view.across_m - view.road_m(view.distance_m)[:, :, None]  # X from the road's middle
    a, b, c = view.water
    shore = c - b * view.distance_m
    np.copyto(material, np.uint8(Material.WATER), where=plane & (a[:, :, None] * across > shore[:, :, None]))
    from_middle = np.abs(across)
    road = plane & view.has_road[:, :, None] & (from_middle < _ROAD_M)
    np.copyto(material, np.uint8(Material.ROAD), where=road)
    # A line is wider than paint is, and in the distance as wide as a pixel, so that it is seen.
    pixel_m = 2 * far / (view.focal[:, :, None] * view.axis.size)
    half_m = np.maximum(np.float32(0.1), 0.5 * pixel_m)
    lined = drawn.shown[MARKING_COLOUR] > 0
    edge = road & (lined & (draws.uniform("edge lines") < 0.5))[:, None, None]
    np.copyto(material, np.uint8(Material.EDGE_LINE), where=edge & (np.abs(from_middle - (_ROAD_M - 0.4)) < half_m))
    dash = (view.distance_m / 4 + draws.uniform("dash")[:, None]) % 1 < draws.between("dashes", 0.5, 1.3)[:, None]
    centre = road & (dash & lined[:, None])[:, :, None]
    np.copyto(material, np.uint8(Material.CENTRE_LINE), where=centre & (from_middle < half_m))


def _pattern(facts: Facts, draws: Draws, view: _View) -> F4:
    """A pattern on the plane from about -1 to 1, (n, side, side): parallel rows on fields, else irregular patches."""
    is_field = np.isin(facts.cover, (maps.CROPS, maps.CROP_MOSAIC))
    turn = draws.between("field turn", -0.6, 0.6)
    number = np.where(is_field, draws.between("field rows", 1.0, 3.0), draws.between("patches", 0.25, 0.8))
    along, across = (number * np.sin(turn)).astype(np.float32), (number * np.cos(turn)).astype(np.float32)
    phase = 2 * np.pi * draws.uniform("field phase", 2)
    z, x = view.distance_m, view.across_m
    pattern = np.sin(across[:, None, None] * x + (along[:, None] * z + phase[:, :1])[:, :, None])
    other = np.where(is_field, np.float32(0), np.float32(0.9))
    patches = np.sin((0.6 * along)[:, None, None] * x - (0.7 * across[:, None] * z + phase[:, 1:])[:, :, None])
    pattern += other[:, None, None] * patches
    pattern *= np.minimum(1, 40 / z)[:, :, None]  # finer than pixels at the horizon
    return pattern


def _paint_forest(material: U1, facts: Facts, draws: Draws, view: _View) -> None:
    """Paint the edge of a forest across the view of some scenes where plants are many, in the colours of row 0."""
    is_forest = draws.uniform("forest") < _PLANT_COVER[facts.cover] * (facts.climate != ARID) * (1 - built_up(facts))
    scale = view.focal / (_ROWS_M[0] * draws.between("forest distance", 1.0, 1.8)[:, None])
    tree = ((view.axis + 1) * np.float32(32)).astype(np.int64)  # one of 64 tops
    top = draws.between("forest height", 8, 14)[:, None] + 4 * np.take(draws.uniform("forest tops", 64), tree, axis=1)
    base = view.horizon + _HEIGHT_M * scale
    y = view.axis[None, :, None]
    kind = np.argmax(_species(facts), axis=1).astype(np.uint8)[:, None, None] + np.uint8(Material.OBJECTS)
    within = is_forest[:, None, None] & (y >= (base - top * scale)[:, None, :]) & (y < base[:, :, None])
    np.copyto(material, kind, where=within & (material != Material.WATER) & (material != Material.ROAD))


def _paint_objects(material: U1, facts: Facts, draws: Draws, view: _View, row: int, distance_m: F4) -> None:
    """Paint a row of trees and buildings, `distance_m` (n, 1) away."""
    slots = _SLOTS[row]
    place = (view.axis + 1) / 2 * slots + draws.uniform(f"slots {row}")[:, None]
    slot = place.astype(np.int64)
    u = 2 * (place - slot) - 1  # position in the slot, from -1 to 1
    scale = view.focal / distance_m  # of the picture per metre
    half_m = 1 / (slots * scale)  # half the width of a slot
    middle = (np.arange(slots + 1) + np.float32(0.5) - draws.uniform(f"slots {row}")[:, None]) / slots * 2 - 1
    across = (middle / scale).astype(np.float32) - view.road_m(distance_m)
    a, b, c = view.water
    is_free = ~(view.has_road & (np.abs(across) < _ROAD_M + 1.5 + half_m)) & (a * across < c - b * distance_m - half_m)

    def drawn(name: str) -> F4:
        return draws.uniform(f"{name} {row}", slots + 1)

    kind, size = _kinds(facts, drawn("kind"), drawn("species"), row), drawn("size")
    kind[~is_free] = -1
    height = _heights_m(facts, kind, size)

    def take(values: Array) -> Array:
        return np.take_along_axis(values, slot, axis=1)

    kind, height = take(kind), take(height) * scale
    wide = take(0.65 + 0.35 * drawn("width")) * np.where(kind == Part.CONIFER, np.float32(0.75), np.float32(1))
    base = view.horizon + _HEIGHT_M * scale
    parts = Material.OBJECTS + len(Part) * row
    y = view.axis[None, :, None]

    def paint(part: int | U1, top: F4, bottom: F4, where: Mask) -> None:
        value = np.asarray(parts + part, np.uint8)
        within = (y >= np.where(where, top, np.float32(9))[:, None, :]) & (y < bottom[:, None, :])
        np.copyto(material, value[:, None, :] if value.ndim else value, where=within)

    is_plant = (kind >= 0) & (kind < Part.WALL)
    from_middle = np.abs(u)
    paint(Part.TRUNK, base - 0.8 * height, base, is_plant & (from_middle < np.where(kind == Part.PALM, 0.1, 0.12)))
    paint(kind.astype(np.uint8), *_crown(kind, u / wide, base, height), is_plant & (from_middle < wide))
    is_building = kind == Part.WALL
    wall = np.where(take(drawn("wall")) < 0.5, Part.WALL, Part.OTHER_WALL).astype(np.uint8)
    paint(wall, base - height, np.broadcast_to(base, u.shape), is_building)
    gable = np.where(height < 9 * scale, scale * 2.2 * (1 - from_middle), np.float32(0))
    paint(Part.ROOF, base - height - gable, base - height, is_building)
    floors = ((base - view.axis) / (3 * scale)) % 1  # (n, side), of rows of the picture
    is_pane = ((floors > 0.35) & (floors < 0.8))[:, :, None] & (is_building & ((u * 2.5) % 1 > 0.45))[:, None, :]
    is_pane &= (y > (base - height)[:, None, :]) & (y < base[:, :, None])
    np.copyto(material, np.uint8(parts + Part.WINDOW), where=is_pane)


def _kinds(facts: Facts, which: F4, species: F4, row: int) -> I8:
    """Kinds of objects in slots, a `Part` or -1 for none, shape (n, slots). `which`, `species`: random numbers."""
    building = built_up(facts)[:, None] ** 1.5 * (1.0, 0.85, 0.6)[row]
    cover = _PLANT_COVER[facts.cover]
    plant = (1 - building) * (cover * np.array([1, 1, 0.75, 1, 0.4])[facts.climate - 1])[:, None]
    found = (species[:, :, None] >= np.cumsum(_species(facts), axis=1)[:, None, :3]).sum(axis=2)
    return np.where(which < building, Part.WALL, np.where(which < building + plant, found, -1))


def _species(facts: Facts) -> F8:
    """Shares of conifers, broadleaved trees, palms and shrubs among plants, shape (n, 4)."""
    shares = np.array([[0, 0.55, 0.4, 0.05], [0.1, 0.1, 0.15, 0.65], [0.25, 0.65, 0, 0.1], [0.65, 0.3, 0, 0.05],
                       [0.25, 0, 0, 0.75]])[facts.climate - 1]  # fmt: skip
    shares[(facts.climate == TROPICAL) & (facts.cover >= 8) & (facts.cover <= 10)] = (0, 0.6, 0.05, 0.35)
    shares[(facts.climate == ARID) & (np.abs(facts.lat) > 37)] = (0.2, 0.1, 0, 0.7)
    shares[(facts.climate == TEMPERATE) & (np.abs(facts.lat) < 38)] = (0.2, 0.5, 0.2, 0.1)
    shares[np.isin(facts.cover, (1, 3))] = (0.95, 0.05, 0, 0)
    shares[(facts.cover == 4) & (facts.climate >= TEMPERATE)] = (0.05, 0.95, 0, 0)
    return shares


def _heights_m(facts: Facts, kind: I8, size: F4) -> F4:
    """Heights of objects, metres, shape (n, slots). `size`: random numbers."""
    tallest = 4 + 90 * built_up(facts)[:, None] ** 8
    building = 3 * np.ceil(1 + tallest / 3 * size**2)
    lowest, range_m = np.array([9, 7, 6, 0.7, 0]), np.array([13, 9, 8, 1.3, 0])
    plant = (lowest[kind] + range_m[kind] * size) * np.where(facts.climate == POLAR, 0.3, 1)[:, None]
    return np.where(kind == Part.WALL, building, plant).astype(np.float32)


def _crown(kind: I8, u: F4, base: F4, height: F4) -> tuple[F4, F4]:
    """Upper and lower edge of crowns, y, shape (n, side). `u`: position in the crown, from -1 to 1."""
    from_middle, dome = np.abs(u), np.sqrt(np.maximum(1 - u * u, 0))
    top = [height * (1 - from_middle), height * (0.65 + 0.35 * dome), height * (1 - 0.3 * u * u), height * dome]
    bottom = [0.12 * height, height * (0.6 - 0.25 * dome), height * (0.86 - 0.4 * u * u), 0 * height]
    where = [kind == part for part in (Part.CONIFER, Part.BROADLEAF, Part.PALM)]
    return base - np.select(where, top[:3], top[3]), base - np.select(where, bottom[:3], bottom[3])


def _paint_vehicle(material: U1, drawn: Drawn, draws: Draws, view: _View, oncoming: Mask) -> None:
    """Paint the vehicle of each scene that has one.

    It is inside the picture and nothing hides it: at 8 to 14 focal lengths it is at |x| < 0.8, and occluders begin at
    0.81.
    """
    shown = drawn.shown[DRIVING_SIDE]
    reach = draws.between("vehicle", 8, 14)[:, None]
    distance = reach * view.focal
    # Who leaves is on the side of the traffic, and who comes is on the other.
    lane = np.where((shown == 1) ^ oncoming, np.float32(-1.75), np.float32(1.75))[:, None]
    p = np.abs(view.axis * reach - (lane + view.road_m(distance)))  # metres from its middle
    q = (view.horizon - view.axis) * reach + _HEIGHT_M  # metres above the ground
    q = q / draws.between("tall", 1, 1.6)[:, None]
    q[shown == 0] = -9
    for part, columns, rows in (
        (Material.BODY, p < 0.95, (q > 0.25) & (q < 0.95)),
        (Material.BODY, p < 0.78, (q >= 0.95) & (q < 1.5)),
        (Material.GLASS, p < 0.64, (q > 1.0) & (q < 1.35)),
        (Material.WHEEL, (p > 0.5) & (p < 0.9), (q > 0) & (q < 0.3)),
        (Material.LAMP, (p > 0.5) & (p < 0.95), (q > 0.55) & (q < 0.9)),
    ):
        np.copyto(material, np.uint8(part), where=rows[:, :, None] & columns[:, None, :])


def _paint_occluder(material: U1, draws: Draws, view: _View) -> None:
    """Paint what hides a part of some scenes: something beside or below the camera, with a wavy edge."""
    which = draws.uniform("occluder")
    wave = 0.04 * np.sin(view.axis * draws.between("wave", 2, 12)[:, None] + 6 * draws.uniform("wave phase")[:, None])
    edge = draws.between("edge", 0.85, 0.95)[:, None] + wave.astype(np.float32)
    beside = np.where(which < 0.2, np.float32(1), np.float32(-1))[:, None, None]
    is_beside = (which < 0.4)[:, None, None] & (beside * view.axis[None, None, :] > edge[:, :, None])
    is_below = ((which >= 0.4) & (which < 0.5))[:, None, None] & (view.axis[None, :, None] > edge[:, None, :])
    np.copyto(material, np.uint8(Material.OCCLUDER), where=is_beside | is_below)
