"""Drawings of curves can be read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from geosieve.evaluation.curves import Curve, draw


def test_numbers_on_the_axis_of_areas_neither_overlap_nor_leave_the_picture() -> None:
    """From a street to the whole Earth, 510 million km²; the axis goes a little further."""
    figure = draw({"base": Curve(np.array([15.0, 5.1e8]), np.array([0.0, 1.0]))}, "area searched, km²")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = figure.axes[0].xaxis.get_ticklabels()
    left, right = figure.axes[0].get_xlim()
    boxes = [label.get_window_extent() for label in shown if left <= label.get_position()[0] <= right]
    assert len(boxes) >= 8
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert boxes[0].x0 >= 0 and boxes[-1].x1 <= figure.bbox.x1
