"""Draw synthetic scenes: the pictures, and the class of each pixel. Both come from the same layout.

A scene is given by its facts, the seed and its id: the pixels are the same whatever else is drawn with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from demo.scenes.colours import Light, light_of, palette
from demo.scenes.cues import Drawn, draw_cues
from demo.scenes.hashing import Draws
from demo.scenes.layout import CLASS_OF, LEAST_SIDE, MATERIALS, ON_PLANE, Layout, Material, Part, layout
from demo.scenes.maps import Facts
from geosieve.geo.arrays import F4, I8

U1 = NDArray[np.uint8]

_CHUNK = 64  # scenes at a time, so that their arrays stay in the processor's cache


def draw(facts: Facts, seed: int, ids: I8, side: int = 96) -> U1:
    """Draw synthetic scenes at positions, RGB, shape (n, side, side, 3).

    `facts`: of `maps.read`, one position per scene. `ids`: a number for each scene, shape (n,), which together with the
    seed gives its random numbers. ValueError if there are not as many ids as positions, or side is below `LEAST_SIDE`.
    """
    pictures = np.empty((len(facts), side, side, 3), np.uint8)
    _each(facts, seed, ids, side, lambda rows, *scene: _paint(pictures[rows], *scene))
    return pictures


def semantic(facts: Facts, seed: int, ids: I8, side: int = 96) -> U1:
    """Return the `Class` of each pixel of the scenes that `draw` draws, shape (n, side, side). Arguments as there."""
    classes = np.empty((len(facts), side, side), np.uint8)

    def fill(rows: slice, facts: Facts, drawn: Drawn, draws: Draws, scene: Layout) -> None:
        classes[rows] = CLASS_OF[scene.material]

    _each(facts, seed, ids, side, fill)
    return classes


def drawn_cues(facts: Facts, seed: int, ids: I8) -> Drawn:
    """Return what is drawn of each cue in the scenes that `draw` draws. Arguments as there."""
    return draw_cues(facts, Draws(seed, ids))


def _each(facts: Facts, seed: int, ids: I8, side: int, use: Callable[..., None]) -> None:
    """Call `use` with (rows, facts, drawn, draws, layout) of one chunk of scenes after the other."""
    ids = np.asarray(ids, np.int64)
    if ids.shape != (len(facts),):
        raise ValueError(f"ids of shape {ids.shape} for {len(facts)} positions: each scene needs one id")
    if side < LEAST_SIDE:
        raise ValueError(f"side {side}: a scene needs at least {LEAST_SIDE} pixels, or vehicles are not seen")
    for start in range(0, ids.size, _CHUNK):
        rows = slice(start, start + _CHUNK)
        draws = Draws(seed, ids[rows])
        drawn = draw_cues(facts[rows], draws)
        use(rows, facts[rows], drawn, draws, layout(facts[rows], drawn, draws, side))


_ROUGH = np.full(MATERIALS, 0.08, np.float32)
_ROUGH[[Material.SKY, Material.GLASS, Material.BODY, Material.LAMP, Material.CENTRE_LINE, Material.EDGE_LINE]] = 0
_ROUGH[[Material.GROUND, Material.FIELD]] = 0.2
_ROUGH[Material.OBJECTS :] = np.tile(np.where(np.isin(np.arange(len(Part)), np.arange(4)), 0.4, 0.05), 3)


def _paint(pictures: U1, facts: Facts, drawn: Drawn, draws: Draws, scene: Layout) -> None:
    """Fill `pictures`, (n, side, side, 3), with scenes."""
    n, side = scene.below.shape
    light = light_of(facts, drawn, draws)
    colours = palette(facts, drawn, draws, scene, light)
    random = draws.pixel_bytes(side)
    is_sky = scene.material == Material.SKY
    haze = (1 - np.exp(-scene.distance_m / light.sight_m[:, None]))[:, :, None] * ON_PLANE[scene.material]
    texture = (random[:, 3].astype(np.float32) - 127.5) * (_ROUGH[scene.material] / np.float32(127.5)) + 1
    index = scene.material + (np.arange(n) * MATERIALS)[:, None, None]
    fade = np.exp(np.minimum(scene.below, 0) * np.float32(2.2))  # of the horizon's colour with height
    cloud, glow = _clouds(draws, light, scene), _glow(draws, light, scene)
    white = light.day[:, None] * draws.between("cloud", 0.8, 1.05)[:, None]
    cloudy = (0.5 * light.haze + 0.45 * white).astype(np.float32)
    # Exposure makes up for a part of the darkness; white balance is off by some percent.
    gain = draws.between("exposure", 0.72, 1.08) * (0.55 + 0.45 * light.day) / np.maximum(light.day, 0.1) ** 0.8
    balance = 1 + 0.16 * (draws.uniform("balance", 3) - 0.5)
    noise = 255 * draws.between("noise", 0.004, 0.03)[:, None, None]
    for channel in range(3):
        colour = np.take(colours[:, :, channel].reshape(-1), index)
        colour += haze * (light.haze[:, channel, None, None] - colour)
        colour *= texture
        zenith = light.zenith[:, channel, None]
        row = zenith + (light.haze[:, channel, None] - zenith) * fade
        sky = row[:, :, None] + cloud * (cloudy[:, channel, None] - row)[:, :, None]
        sky += glow * (light.colour[:, channel] * (1.0, 0.9, 0.65)[channel])[:, None, None].astype(np.float32)
        np.copyto(colour, sky, where=is_sky)
        colour *= (255 * gain * balance[:, channel])[:, None, None].astype(np.float32)
        colour += (random[:, channel].astype(np.float32) - 127.5) * (noise / 74)
        pictures[..., channel] = np.clip(colour, 0, 255)


def _clouds(draws: Draws, light: Light, scene: Layout) -> F4:
    """Opacity of clouds, shape (n, side, side): four waves, each a sum of products of rows and columns."""
    height = np.log1p(6 * np.maximum(-scene.below, 0)) * 4
    random = draws.uniform("cloud waves", 12)
    total = np.zeros(scene.material.shape, np.float32)
    for k in range(4):
        turns = 6.3 * random[:, 3 * k : 3 * k + 2, None]
        number = np.float32(2.5 * 1.9**k) * (0.6 + 0.8 * random[:, 3 * k + 2, None])
        across = scene.axis * number + turns[:, 0]
        up = height * np.float32(1.9 * 1.9**k) + turns[:, 1]
        weight = np.float32(0.7**k)
        total += (weight * np.sin(up))[:, :, None] * np.cos(across)[:, None, :]
        total += (weight * np.cos(up))[:, :, None] * np.sin(across)[:, None, :]
    return np.clip((total - 1.4) * 0.6 + 2.2 * light.overcast[:, None, None], 0, 0.85)


def _glow(draws: Draws, light: Light, scene: Layout) -> F4:
    """Brightness of the sky around the sun, shape (n, side, side)."""
    across = scene.axis - 4 * draws.between("heading", -1, 1)[:, None]
    up = -scene.below - 1.4 * light.height[:, None]
    strength = (1 - light.overcast)[:, None] * (light.height > -0.05)[:, None]
    return (strength * np.exp(-12 * up * up))[:, :, None] * np.exp(-12 * across * across)[:, None, :]
