"""Pictures of ranked regions: Recall-vs-Area curves, and one image's regions on a map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # jobs have no display

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from geosieve.overlay.atoms import AtomGrid
from geosieve.overlay.conformal import mass_at
from geosieve.overlay.ranking import Ranking

F8 = NDArray[np.float64]

_LEVELS = (0.5, 0.8, 0.95)
_WIDTH = 1440  # columns of the map


def draw_curves(areas: Mapping[str, F8], path: Path, title: str) -> None:
    """Share of images whose truth is reached within an area, by system; `areas` in km², (images,)."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, reached in areas.items():
        ordered = np.sort(reached[np.isfinite(reached)])
        axes.step(ordered, np.arange(1, ordered.size + 1) / reached.size, where="post", label=name)
    axes.set(xscale="log", ylim=(0, 1), xlabel="area searched, km²", ylabel="recall", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_regions(ranking: Ranking, grid: AtomGrid, path: Path, truth: tuple[float, float], title: str) -> None:
    """The first image's regions of 50, 80 and 95 % probability, and its true (lat, lon), on a map of where they are."""
    needed = np.empty(ranking.overlay.n_atoms)
    needed[ranking.atom[0]] = mass_at(ranking)[0]
    south, north, west, east = _window(ranking, needed, truth)
    lat = np.linspace(north, south, _WIDTH // 2)[:, None]
    lon = np.linspace(west, east, _WIDTH)[None, :]
    mass = needed[grid.locate(lat, lon)]
    level = np.searchsorted(_LEVELS, mass.ravel(), side="left").reshape(mass.shape)
    figure, axes = plt.subplots(figsize=(11, 5.2), layout="constrained")
    colours = ["#0072B2", "#56B4E9", "#CBE6F7", "#F2F2F2"]  # the last for the rest of the Earth
    palette = matplotlib.colors.ListedColormap(colours)
    axes.imshow(level, cmap=palette, vmin=-0.5, vmax=3.5, extent=(west, east, south, north), interpolation="nearest")
    of_atom = np.searchsorted(_LEVELS, needed, side="left")
    for number, (colour, share) in enumerate(zip(colours, _LEVELS, strict=False)):
        # A dot as well: many atoms are smaller than a pixel of the picture.
        mine = of_atom == number
        lon, lat = ranking.overlay.lon[mine], ranking.overlay.lat[mine]
        axes.plot(lon, lat, "o", color=colour, markersize=4, label=f"{share:.0%} of the probability")
    axes.plot(truth[1], truth[0], "x", color="#D55E00", markersize=9, markeredgewidth=2, label="true position")
    axes.set(xlabel="longitude", ylabel="latitude", title=title, aspect="auto")
    axes.legend(loc="lower left", fontsize="small", framealpha=0.9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _window(ranking: Ranking, needed: F8, truth: tuple[float, float]) -> tuple[float, float, float, float]:
    """(south, north, west, east) around the centroids of the regions shown and the truth, degrees."""
    shown = needed <= _LEVELS[-1]
    bounds = []
    for of, at, limit in ((ranking.overlay.lat, truth[0], 90.0), (ranking.overlay.lon, truth[1], 180.0)):
        low, high = min(at, float(of[shown].min())), max(at, float(of[shown].max()))
        margin = 1.0 + 0.05 * (high - low)
        bounds += [max(-limit, low - margin), min(limit, high + margin)]
    south, north, west, east = bounds
    return south, north, west, east
