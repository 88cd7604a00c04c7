"""A box or polygon as ranges of S2 cells, for the queries in deploy/sql: `python -m geosieve.sql.place` prints them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geosieve.geo import s2
from geosieve.geo.arrays import I8
from geosieve.geo.cover import Boxes, covered
from geosieve.geo.sphere import EARTH_RADIUS_KM
from geosieve.runtime.errors import InputError

MOST_RANGES = 200
_MOST_CELLS = 4_000
_FINEST = 14
_SPHERE_KM2 = 4 * np.pi * EARTH_RADIUS_KM**2


def box(south: float, west: float, north: float, east: float) -> shapely.Geometry:
    """A box between parallels and meridians, degrees; across ±180 if west is greater than east.

    InputError if south is above north, or a coordinate is none.
    """
    if not (-90 <= south <= north <= 90 and -180 <= west <= 180 and -180 <= east <= 180):
        raise InputError(f"{south} {west} {north} {east} is no box", hint="in degrees: south west north east")
    sides = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    return shapely.union_all([shapely.box(w, south, e, north) for w, e in sides])


def read_geojson(path: Path) -> shapely.Geometry:
    """The polygons of a GeoJSON file, of longitudes and latitudes. InputError if it is none, or has no polygon."""
    try:
        found = shapely.from_geojson(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, shapely.errors.ShapelyError) as error:
        raise InputError(f"it cannot be read as GeoJSON: {error}", where=str(path)) from error
    parts = [part for part in shapely.get_parts(found, return_index=False) if part.geom_type.endswith("Polygon")]
    if not parts or not all(shapely.is_valid(parts)):
        raise InputError("it has no polygon, or one that crosses itself", where=str(path))
    whole = shapely.union_all(parts)
    west, south, east, north = whole.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise InputError(
            f"its coordinates reach from {west}, {south} to {east}, {north}",
            where=str(path),
            hint="longitude, latitude in degrees; a polygon across ±180 is cut there",
        )
    return whole


def ranges_of(place: shapely.Geometry, level: int) -> tuple[I8, I8]:
    """The first and last leaf cells of ranges that cover a place, by cells of one level; signed, ascending, (n,) each.

    Edges are straight lines in longitude and latitude. Cells that touch no part of the place are at most an eighth of a
    cell's width away from it.
    """
    return _merged(_cells(place, level)[0])


def best_ranges(place: shapely.Geometry) -> tuple[I8, I8]:
    """The ranges of the finest cells of which there are not too many; those of level 1 if there always are."""
    cells, area = _cells(place, 1)
    found = _merged(cells)
    for level in range(2, _FINEST + 1):
        if area / _SPHERE_KM2 * 6 * 4**level > _MOST_CELLS:
            break
        finer = ranges_of(place, level)
        if finer[0].size > MOST_RANGES:
            break
        found = finer
    return found


def _cells(place: shapely.Geometry, level: int) -> tuple[I8, float]:
    """The cells that cover a place, and the area that was looked at, km²."""
    shapely.prepare(place)
    west, south, east, north = place.bounds

    def meets(boxes: Boxes) -> NDArray[np.bool_]:
        return np.asarray(shapely.intersects(place, shapely.box(boxes.west, boxes.south, boxes.east, boxes.north)))

    south, west, north, east = (np.array([of]) for of in (south, west, north, east))
    whole = Boxes(south, west, north, east, np.zeros(1, dtype=np.int64))
    _, cells, area = covered(whole, level, meets)
    return cells, float(area.sum())


def _merged(cells: I8) -> tuple[I8, I8]:
    first, last = (np.sort(ends) for ends in s2.leaves(cells))
    # Ids of leaf cells are odd, so neighbours differ by 2.
    starts = np.append(True, first[1:] - 2 > last[:-1])
    return first[starts], last[np.append(starts[1:], True)]


def values(place: shapely.Geometry, bounds: tuple[float, ...], level: int | None = None) -> str:
    """The parts `place` and `ranges` of touches_place.sql. `bounds`: south, west, north, east."""
    first, last = best_ranges(place) if level is None else ranges_of(place, level)
    pairs = ",\n    ".join(f"({a}, {b})" for a, b in zip(first.tolist(), last.tolist(), strict=True))
    return (
        f"place (south, west, north, east) AS (VALUES ({', '.join(repr(float(of)) for of in bounds)})),\n"
        f"ranges (first_leaf, last_leaf) AS (VALUES\n    {pairs}\n),"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the place as SQL, to put into a query."""
    parser = argparse.ArgumentParser(prog="geosieve.sql.place", description=(__doc__ or "").splitlines()[0])
    given = parser.add_mutually_exclusive_group(required=True)
    degrees: Any = float
    given.add_argument("--box", nargs=4, type=degrees, metavar=("SOUTH", "WEST", "NORTH", "EAST"))
    given.add_argument("--polygon", type=Path, metavar="GEOJSON", help="a file; edges are straight in lon and lat")
    parser.add_argument("--level", type=int, choices=range(1, _FINEST + 1), help="of the cells; else by their number")
    options = parser.parse_args(arguments)
    try:
        if options.box:
            place, bounds = box(*options.box), tuple(options.box)
        else:
            place = read_geojson(options.polygon)
            west, south, east, north = place.bounds
            bounds = (south, west, north, east)
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(values(place, bounds, options.level))
    return 0


if __name__ == "__main__":
    sys.exit(main())
