"""Partitions whose regions are boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Box = tuple[float, float, float, float]
"""West, south, east, north, degrees."""


def box_partition(root: Path, name: str, boxes: Mapping[str, Box]) -> dict[str, Any]:
    """The configuration of a partition of polygons, whose file is written to `root`. Regions are sorted by name."""
    features = [
        {
            "type": "Feature",
            "properties": {"name": region},
            "geometry": {"type": "Polygon", "coordinates": [[[w, s], [e, s], [e, n], [w, n], [w, s]]]},
        }
        for region, (w, s, e, n) in boxes.items()
    ]
    path = root / f"{name}.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return {"name": name, "kind": "polygons", "uri": str(path), "name_column": "name"}
