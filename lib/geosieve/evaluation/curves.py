"""Draw curves of recall with matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from geosieve.geo.arrays import F8

# The palette of Okabe and Ito, which readers with colour blindness can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "none",  # text is not converted to paths
    "svg.hashsalt": "geosieve",  # the same figures give the same bytes
    "font.size": 10,
}


@dataclass(frozen=True)
class Curve:
    """Recall in [0, 1] at ascending values of x, and the ends of its interval if it has one; all (n,)."""

    x: F8
    recall: F8
    low: F8 | None = None
    high: F8 | None = None


def _short(x: float) -> str:
    """A number on an axis: up to the area of the Earth in km², numbers in full would overlap."""
    if x < 1e6:
        return f"{x:,.12g}"
    return f"{x / 1e6:.12g} million" if x < 1e9 else f"{x / 1e9:,.12g} billion"


def draw(curves: Mapping[str, Curve], label: str, title: str = "", steps: bool = False) -> Figure:
    """Draw recall over a logarithmic x axis, with one line per system, in the order of COLOURS.

    `label`: label of the x axis. `steps`: recall jumps at each x; use it if each x is the value of one image.
    """
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(7.5, 4.2))
        # Fixed margins: to fit them to the labels would take as long as all the rest.
        axes = figure.subplots(gridspec_kw={"left": 0.11, "right": 0.97, "bottom": 0.13, "top": 0.92})
        for number, curve in enumerate(curves.values()):
            colour = COLOURS[number % len(COLOURS)]
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
            axes.plot(curve.x, curve.recall, color=colour, drawstyle="steps-post" if steps else "default")
        axes.set(xscale="log", ylim=(0, 1), xlabel=label, ylabel="recall", title=title)
        # Plain numbers, because mathematical notation is switched off: names come from users' files.
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.3)
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG element without metadata, to be placed in an HTML page."""
    text = io.StringIO()
    with rc_context(_SETTINGS):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return re.sub(r"^.*?(?=<svg)", "", text.getvalue(), flags=re.DOTALL)
