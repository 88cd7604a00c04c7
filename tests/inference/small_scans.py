"""A world of bands and sides, and a small archive of pictures whose colours say in which of them they were taken."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from box_partitions import box_partition
from fabricated_archives import tar_of, zip_of
from fabricated_images import image

BANDS = {f"band{k}": (-180.0, -90.0 + 18 * k, 180.0, -72.0 + 18 * k) for k in range(10)}
SIDES = {f"side{k}": (-180.0 + 60 * k, -90.0, -120.0 + 60 * k, 90.0) for k in range(6)}
COLOURS = [(16 * k + 3, 16 * ((7 * k) % 16) + 5, k) for k in range(12)]

Colour = tuple[int, int, int]


def picture(red: int, green: int, blue: int = 0, **options: Any) -> bytes:
    """A PNG of one colour, so that no level is lost."""
    return image(kind="PNG", color=(red, green, blue), size=(9, 7), **options)


def overlay_config(root: Path, rasters: str) -> dict[str, Any]:
    """Configuration of `build_overlay`, without its output. Its polygons are written to `root`."""
    partitions = [box_partition(root, "bands", BANDS), box_partition(root, "sides", SIDES)]
    return {"name": "world", "rasters": {"root": rasters}, "resolution_arcsec": 7200, "partitions": partitions}


def member(hashes: Mapping[str, str], partition: str, channel: int, **options: Any) -> dict[str, Any]:
    """A predictor that tells the regions of a partition from one channel. `options`: of `colour_predictors.Colours`."""
    regions = {"bands": len(BANDS), "sides": len(SIDES)}[partition]
    arguments = {"partition": partition, "digest": hashes[partition], "regions": regions, "channel": channel}
    return {
        "implementation": "colour_predictors:Colours",
        "options": {**arguments, **options},
        "partition": partition,
    }


def packed() -> tuple[dict[str, bytes], dict[str, Colour]]:
    """Files by name: three photos, four in a zip, three in a tar and two in a compressed tar; and colours by id."""
    name = [f"{k:02d}.png" for k in range(len(COLOURS))]
    content = [picture(*colour) for colour in COLOURS]
    files = {name[k]: content[k] for k in range(3)}
    files["a.zip"] = zip_of({name[k]: content[k] for k in range(3, 7)})
    files["b.tar"] = tar_of({name[k]: content[k] for k in range(7, 10)})
    files["c.tar.gz"] = gzip.compress(tar_of({name[k]: content[k] for k in range(10, 12)}))
    ids = [*name[:3], *(f"a.zip/{n}" for n in name[3:7]), *(f"b.tar/{n}" for n in name[7:10])]
    return files, dict(zip([*ids, *(f"c.tar.gz/{n}" for n in name[10:])], COLOURS, strict=True))
