"""What a label below zero says of a point."""

from __future__ import annotations

OUTSIDE = -1
"""Label of a point that nothing of the partition covers."""
NODATA = -2
"""Label of a point that a map covers but has no valid value for."""
UNMAPPED = -3
"""Label of a point whose value the partition does not name."""
