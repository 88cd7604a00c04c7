"""Draw maps of labelled positions."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # jobs have no display

import matplotlib.pyplot as plt
import pyarrow.parquet as pq

# The palette of Okabe and Ito, which readers with colour blindness can distinguish.
_COLOURS = ["#009E73", "#E69F00", "#56B4E9", "#0072B2", "#CC79A7", "#D55E00", "#F0E442", "#000000"]
_NO_LABEL = "#BBBBBB"


def draw_label_map(leaf: str, names: list[str], column: str, path: Path) -> None:
    """Draw the positions in a leaf of `labels`, coloured by the regions of one partition, and save the map to `path`.

    `leaf`: a local folder. `names`: names of the regions in the order of their indices, at most eight. `column`: the
    partition. Positions without a region are grey. ValueError if there are more regions than colours.
    """
    if len(names) > len(_COLOURS):
        raise ValueError(f"{len(names)} regions cannot be told apart by {len(_COLOURS)} colours")
    table = pq.read_table(leaf.removeprefix("file:"), columns=["lat", "lon", column], partitioning=None)
    lat, lon, region = (table[name].to_numpy() for name in ("lat", "lon", column))
    figure, axes = plt.subplots(figsize=(11, 4.9), layout="constrained")
    for index, (name, colour) in enumerate([("no region", _NO_LABEL), *zip(names, _COLOURS, strict=False)], start=-1):
        of = region < 0 if index < 0 else region == index
        axes.plot(lon[of], lat[of], ".", color=colour, markersize=1.5, markeredgewidth=0)
        axes.plot([], [], "s", color=colour, label=f"{name} ({of.sum():,})")
    axes.set(xlim=(-180, 180), ylim=(-60, 85), xlabel="longitude", ylabel="latitude", aspect="equal")
    axes.set_title(f"{len(lat):,} photographs by {column}")
    axes.legend(loc="lower left", fontsize="small", framealpha=0.9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
