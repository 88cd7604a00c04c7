"""Negative label codes: why a point has no label."""

from __future__ import annotations

OUTSIDE = -1
"""The point lies outside everything that the partition covers."""
NODATA = -2
"""A map covers the point but has no valid value there."""
UNMAPPED = -3
"""The point has a value that the partition assigns to no label."""
