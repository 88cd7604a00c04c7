"""Cues of the synthetic scenes, drawn with known probabilities, and the error of the best decision from each.

A cue is what one glance at a scene can show: on which side a vehicle drives, whether snow lies, which colour the centre
line has. Each tells something of its position, its label: whether people drive on the left, whether the climate is
cold, whether centre lines are yellow. No predictor that sees only the cue, and knows how positions are distributed, has
a smaller error than `bayes_error`. A predictor that sees the whole scene may have, because other things in it tell of
the position too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.scenes.hashing import Draws
from demo.scenes.maps import COLD, CROP_MOSAIC, CROPS, ICE, URBAN, WATER, Facts
from geosieve.geo.arrays import F4, F8, I8, Mask

DRIVING_SIDE = "driving side"
SNOW = "snow"
MARKING_COLOUR = "marking colour"
CUES = {
    DRIVING_SIDE: ("no vehicle", "drives on the left", "drives on the right"),
    SNOW: ("no snow", "snow"),
    MARKING_COLOUR: ("no centre line", "white", "yellow"),
}
"""The cues, and what a scene shows of each, in the order of the numbers in `Drawn`."""

WRONG_SIDE = 0.05
"""Probability that a vehicle is on the wrong side, given that there is one: it overtakes or is parked."""

OTHER_COLOUR = 0.1
"""Probability that a centre line has the colour of other countries, given that it is visible."""

# Probability of snow by climate group (tropical to polar) and season (winter, spring, summer, autumn).
_SNOW = np.array(
    [[0, 0, 0, 0], [0.12, 0.02, 0, 0.02], [0.2, 0.04, 0, 0.02], [0.85, 0.35, 0, 0.2], [0.95, 0.8, 0.25, 0.7]]
)
_SNOW_ON_ICE = 0.97


@dataclass(frozen=True)
class Drawn:
    """What was drawn for scenes; each array has shape (n,)."""

    day: F4
    """Day of the year, in [0, 365)."""
    hour: F4
    """Local solar time, hours, in [6.5, 19)."""
    season: I8
    """0 winter, 1 spring, 2 summer, 3 autumn, of the scene's hemisphere."""
    road: Mask
    """Whether there is a road. Vehicles and centre lines are on roads only."""
    shown: dict[str, I8]
    """For each cue, the number of what the scene shows of it, an index into `CUES`."""


def draw_cues(facts: Facts, draws: Draws) -> Drawn:
    """Draw the date and the cues of scenes at positions. All draws are independent, given the position."""
    day = 365 * draws.uniform("day")
    # Winter is December to February in the north, and half a year later in the south.
    season = ((day + 31 + 182.5 * (facts.lat < 0)) % 365 // 91.25).astype(np.int64)
    road = draws.uniform("road") < _road(facts)
    snow = draws.uniform("snow") < np.take_along_axis(_snow(facts), season[:, None], axis=1)[:, 0]
    vehicle = road & (draws.uniform("vehicle") < _vehicle(facts))
    left = facts.left ^ (draws.uniform("wrong side") < WRONG_SIDE)
    line = road & ~snow & (draws.uniform("marked") < _marked(facts))
    yellow = facts.yellow ^ (draws.uniform("other colour") < OTHER_COLOUR)
    shown = {
        DRIVING_SIDE: np.where(vehicle, np.where(left, 1, 2), 0),
        SNOW: snow.astype(np.int64),
        MARKING_COLOUR: np.where(line, np.where(yellow, 2, 1), 0),
    }
    return Drawn(day, draws.between("hour", 6.5, 19), season, road, shown)


def labels(cue: str, facts: Facts) -> I8:
    """What the cue is to tell of each position, 0 or 1: drives on the left, is cold or polar, has yellow lines."""
    truth = {DRIVING_SIDE: facts.left, SNOW: facts.climate >= COLD, MARKING_COLOUR: facts.yellow}
    return truth[cue].astype(np.int64)


def chances(cue: str, facts: Facts) -> F8:
    """Probabilities of what a scene shows of a cue, given its position, shape (n, len(CUES[cue])).

    `draw_cues` draws with exactly these. Every season has the probability 1/4.
    """
    snow = _snow(facts).mean(axis=1)
    if cue == SNOW:
        return np.column_stack([1 - snow, snow])
    if cue == DRIVING_SIDE:
        seen, second, error = _road(facts) * _vehicle(facts), ~facts.left, WRONG_SIDE
    else:
        seen, second, error = _road(facts) * _marked(facts) * (1 - snow), facts.yellow, OTHER_COLOUR
    other = np.abs(second - error)  # the probability of the second kind
    return np.column_stack([1 - seen, seen * (1 - other), seen * other])


def bayes_error(cue: str, facts: Facts) -> float:
    """Error of the best decision of a cue's label from what a scene shows of the cue, for positions drawn from `facts`.

    With label l and shown o it is 1 - Σ_o max_l P(l, o), and P(l, o) is the mean over the positions of
    [label is l] P(o | position). For the driving side, with vehicles equally likely everywhere (v), on the wrong side
    with probability e, and a share p of the positions driving on the left, it is v e + (1 - v) min(p, 1 - p), if e is
    not above min(p, 1 - p).
    """
    label, chance = labels(cue, facts), chances(cue, facts)
    joint = np.stack([chance[label == value].sum(axis=0) for value in (0, 1)]) / len(facts)
    return float(1 - joint.max(axis=0).sum())


def built_up(facts: Facts) -> F8:
    """How densely the place is built up, from 0 to 1 in the centre of a megacity."""
    built = np.clip(np.log10(np.maximum(facts.people_km2, 1)) / 4, 0, 1)
    built = np.where(facts.cover == URBAN, np.maximum(built, 0.6), built)
    return np.where(facts.cover == ICE, 0, built)


def _road(facts: Facts) -> F8:
    """Probability of a road."""
    road = 0.2 + 0.7 * built_up(facts)
    road = np.where(np.isin(facts.cover, (CROPS, CROP_MOSAIC)), np.maximum(road, 0.5), road)
    wild = (facts.cover == ICE) | ((facts.cover == WATER) & (facts.people_km2 < 10))
    return np.where(wild, 0, road)


def _vehicle(facts: Facts) -> F8:
    """Probability of a vehicle, given a road."""
    return 0.2 + 0.6 * built_up(facts)


def _marked(facts: Facts) -> F8:
    """Probability of a centre line, given a road without snow."""
    return 0.3 + 0.5 * built_up(facts)


def _snow(facts: Facts) -> F8:
    """Probability of snow in each season, shape (n, 4)."""
    far = np.clip((np.abs(facts.lat) - 28) / 15, 0, 1)  # temperate and arid climates reach the tropics
    chance = _SNOW[facts.climate - 1] * np.where(facts.climate < COLD, far, 1)[:, None]
    return np.where((facts.cover == ICE)[:, None], _SNOW_ON_ICE, chance)
