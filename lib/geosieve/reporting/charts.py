"""Curves as small SVG elements whose colours come from the page's style sheet, for light and dark screens."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from geosieve.evaluation.curves import Curve
from geosieve.geo.arrays import F8

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 320, 52, 14, 12, 44


def chart(curve: Curve, label: str, name: str, ticks: Sequence[tuple[float, str]], log: bool, diagonal: bool) -> str:
    """A curve of shares with the band from `low` to `high`.

    `label`: of the x axis. `name`: what the picture is, for those who do not see it. `ticks`: values of x and what is
    written there. `log`: x is logarithmic. `diagonal`: a line of equality.
    """
    low, high = float(curve.x[0]), float(curve.x[-1])

    def across(x: F8) -> F8:
        share = np.log(x / low) / np.log(high / low) if log else (x - low) / (high - low)
        return np.asarray(_LEFT + share * (_WIDTH - _LEFT - _RIGHT))

    def up(share: F8) -> F8:
        return np.asarray(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM))

    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = float(up(np.array(share)))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for x, text in ticks:
        at = float(across(np.array(x)))
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(label)}</text>')
    if curve.low is not None and curve.high is not None:
        around = [*_points(across(curve.x), up(curve.high)), *reversed(_points(across(curve.x), up(curve.low)))]
        parts.append(f'<polygon class="band" points="{" ".join(around)}"/>')
    if diagonal:
        ends = _points(across(np.array([low, high])), up(np.array([low, high])))
        parts.append(f'<polyline class="equal" points="{" ".join(ends)}"/>')
    parts.append(f'<polyline class="curve" points="{" ".join(_points(across(curve.x), up(curve.recall)))}"/>')
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg class="chart" role="img" aria-label="{escape(name)}" {size}>{"".join(parts)}</svg>'


def _points(x: F8, y: F8) -> list[str]:
    return [f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
