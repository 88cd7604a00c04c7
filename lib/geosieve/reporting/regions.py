"""Draw ranked regions: Recall-vs-Area curves, and a map with the regions of one image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

from geosieve.geo.arrays import F8

matplotlib.use("Agg")  # jobs have no display

import matplotlib.pyplot as plt
import numpy as np

from geosieve.ensemble.ranking import Ranking
from geosieve.evaluation.curves import Curve, draw
from geosieve.geo.sphere import normalize_lon
from geosieve.overlay.atoms import AtomGrid

_LEVELS = (0.5, 0.8, 0.95)
_WIDTH = 1440  # pixel columns of the map


def draw_curves(areas: Mapping[str, F8], path: Path, title: str) -> None:
    """Draw the share of images whose truth is reached within an area, one curve per system, and save it to `path`.

    `areas`: for each system, the area at which the truth of each image is reached, km², (images,); not finite if never.
    """
    curves = {}
    for system, area in areas.items():
        ordered = np.sort(area[np.isfinite(area)])
        curves[system] = Curve(ordered, np.arange(1, ordered.size + 1) / area.size)
    figure = draw(curves, "area searched, km²", title, steps=True)
    figure.axes[0].legend(figure.axes[0].lines, list(curves))
    figure.savefig(path, dpi=110)


def draw_regions(ranking: Ranking, grid: AtomGrid, path: Path, truth: tuple[float, float], title: str) -> None:
    """Draw the regions with 50, 80 and 95 % of the first image's probability, and save the map to `path`.

    The map shows only the part of the Earth around these regions and the true position `truth`, (lat, lon) in degrees.
    InputError if `grid` belongs to another overlay than the ranking.
    """
    grid.check(ranking.overlay)
    # Each region takes atoms until it reaches its share, so it contains at least this much of the probability.
    of_atom = np.full(ranking.overlay.n_atoms, len(_LEVELS))
    for number in reversed(range(len(_LEVELS))):
        of_atom[ranking.atom[0, : ranking.within_mass(_LEVELS[number])[0]]] = number
    # Longitudes continue beyond ±180, so that regions on both sides of the antimeridian lie side by side.
    centre = truth[1] + normalize_lon(ranking.overlay.lon - truth[1])
    shown = of_atom < len(_LEVELS)
    south, north = _bounds(np.append(ranking.overlay.lat[shown], truth[0]))
    west, east = _bounds(np.append(centre[shown], truth[1]))
    south, north = max(south, -90.0), min(north, 90.0)
    lat = np.linspace(north, south, _WIDTH // 2)[:, None]
    lon = np.linspace(west, east, _WIDTH)[None, :]
    level = of_atom[grid.drawn(lat, normalize_lon(lon))]
    figure, axes = plt.subplots(figsize=(11, 5.2), layout="constrained")
    colours = ["#0072B2", "#56B4E9", "#CBE6F7", "#F2F2F2"]  # the last for the rest of the Earth
    palette = matplotlib.colors.ListedColormap(colours)
    axes.imshow(level, cmap=palette, vmin=-0.5, vmax=3.5, extent=(west, east, south, north), interpolation="nearest")
    for number, (colour, share) in enumerate(zip(colours, _LEVELS, strict=False)):
        # Also draw a dot for each atom, because many atoms are smaller than a pixel of the picture.
        mine = of_atom == number
        label = f"{share:.0%} of the probability"
        axes.plot(centre[mine], ranking.overlay.lat[mine], "o", color=colour, markersize=4, label=label)
    axes.plot(truth[1], truth[0], "x", color="#D55E00", markersize=9, markeredgewidth=2, label="true position")
    axes.set(xlabel="longitude", ylabel="latitude", title=title, aspect="auto")
    axes.xaxis.set_major_formatter(lambda x, _: f"{float(normalize_lon(x)):g}")
    axes.legend(loc="lower left", fontsize="small", framealpha=0.9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bounds(degrees: F8) -> tuple[float, float]:
    """The least interval that holds the values, with a margin."""
    low, high = float(degrees.min()), float(degrees.max())
    margin = 1.0 + 0.05 * (high - low)
    return low - margin, high + margin
