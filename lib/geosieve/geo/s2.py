"""S2 cell ids for arrays of points, as signed int64.

A cell id (S2 geometry library, s2cell_id.h) has 3 bits for the cube face, 2 bits per level for the position on the
face's Hilbert curve, one set bit, and zeros. As signed numbers, ids of faces 4 and 5 are negative and sort first;
`positions` gives the order of S2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.geo.ranges import ranges
from geosieve.geo.sphere import Floats, checked_lat, checked_lon, normalize_lon, require

MAX_LEVEL = 30

Ints = NDArray[np.int64]

WIDEST = 0.05
"""Radius of the largest circle of `cells_of_circles`, radians. It meets only faces whose middle is not far."""

_SIZE = 1 << MAX_LEVEL  # leaf cells along a face edge
_CHUNK = 16_384  # points per chunk, so that temporaries and tables stay in the second-level cache
_STEP = 6  # levels per table lookup: five lookups for thirty levels
_LOW = (1 << _STEP) - 1
_DIGITS = (1 << 2 * _STEP) - 1
_ORIENTATION = 3 << 2 * _STEP
_SWAP, _INVERT = 1, 2  # bits of the orientation of a piece of the curve: axes exchanged, both axes reversed
_ROUNDING = 1e-12  # radians, 6 micrometres
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8).astype(np.uint32)


def _hilbert_tables() -> tuple[Ints, Ints]:
    """Two lookup tables that follow the Hilbert curve down by `_STEP` levels.

    The first maps (orientation, i, j) to (orientation at the end, position on the curve), the second maps (orientation,
    position) to (orientation at the end, i, j). i and j have `_STEP` bits each, a position has `2 * _STEP`.
    """
    start, position = np.divmod(np.arange(4 << 2 * _STEP), _DIGITS + 1)
    orientation, i, j = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for shift in range(2 * _STEP - 2, -1, -2):
        quarter = (position >> shift) & 3
        # In its basic orientation, the curve visits the quarters (i, j) = (0,0), (0,1), (1,1), (1,0).
        first, second = quarter >> 1, (quarter >> 1) ^ (quarter & 1)
        swapped, inverted = (orientation & _SWAP).astype(bool), orientation // _INVERT
        i = (i << 1) | (np.where(swapped, second, first) ^ inverted)
        j = (j << 1) | (np.where(swapped, first, second) ^ inverted)
        # It is swapped within the first quarter, and swapped and inverted within the last.
        orientation ^= np.array([_SWAP, 0, 0, _SWAP | _INVERT])[quarter]
    ij = (i << _STEP) | j
    encode = np.empty_like(position)
    encode[(start << 2 * _STEP) | ij] = (orientation << 2 * _STEP) | position
    return encode, (orientation << 2 * _STEP) | ij


_ENCODE, _DECODE = _hilbert_tables()


def cell_ids(lat: ArrayLike, lon: ArrayLike, level: int = MAX_LEVEL) -> Ints:
    """Return the ids of the cells of one level that contain the points.

    Coordinates are in degrees and their shapes broadcast; longitudes are wrapped first, so that 180 and -180 give the
    same cell. ValueError if a coordinate is not finite, a latitude is outside [-90, 90], or the level is not 0 to 30.

    The projection is S2's quadratic one, with the operations in the order of the reference library. The ids are equal
    to its ids bit for bit if numpy's float64 sine and cosine equal those of the C library, which a test checks.
    """
    _lowest_bit(level)
    lat, lon = checked_lat(lat), checked_lon(lon)
    result = np.empty(np.broadcast(lat, lon).shape, dtype=np.int64)
    chunks = np.nditer(
        [lat, lon, result],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["readonly"], ["writeonly"]],
        buffersize=_CHUNK,
    )
    with chunks:
        for lat_chunk, lon_chunk, ids in chunks:
            ids[...] = _encode(*_project(lat_chunk, lon_chunk), level)
    return result


def cells_of_circles(lat: ArrayLike, lon: ArrayLike, radius: ArrayLike, level: int) -> tuple[Ints, Ints]:
    """Return the cells of one level that circles on the sphere touch, as (index of the circle, id of the cell).

    `lat`, `lon`, `radius`, shape (m,): centres in degrees, radii in radians. Both results have shape (n,). On each face
    of the cube, the box around a circle in (u, v) decides. So no cell that a circle touches is left out, and a cell
    beside a corner of the box may be given, too. ValueError for bad coordinates or levels, and if a radius is not in
    [0, 0.05].
    """
    _lowest_bit(level)
    radius = np.asarray(radius, dtype=np.float64)
    require((radius >= 0) & (radius <= WIDEST), radius, f"the radius of a circle is in [0, {WIDEST}] radians")
    phi, theta = np.radians(checked_lat(lat)), np.radians(checked_lon(lon))
    x, y, z = np.cos(theta) * np.cos(phi), np.sin(theta) * np.cos(phi), np.sin(phi)
    square = np.sin(radius * (1 + 1e-9) + _ROUNDING) ** 2
    cells, of, ids = 1 << level, [], []
    for face in range(6):
        # The inverse of `_unproject`, up to a factor.
        main, first, second = ((x, y, z), (y, -x, z), (z, -x, -y))[face % 3]
        main, first, second = (value if face < 3 else -value for value in (main, first, second))
        near = np.flatnonzero(main > 0.5)  # a point of a face has 0.577 at least
        main, sin2 = main[near], square[near]
        low: list[Ints] = []
        high: list[Ints] = []
        for side in (first[near], second[near]):
            # Where planes through the origin touch the circle: (side - u main)² = (1 + u²) sin² radius.
            root = np.sqrt(sin2 * (side**2 + main**2 - sin2))
            for ends, u in ((low, side * main - root), (high, side * main + root)):
                ends.append(np.floor(_s_of(u / (main**2 - sin2)) * cells).astype(np.int64))
        meets = (np.maximum(*low) < cells) & (np.minimum(*high) >= 0)
        i, j = (np.clip(end[meets], 0, cells - 1) for end in low)
        rows, columns = (np.clip(end[meets], 0, cells - 1) - start + 1 for end, start in zip(high, (i, j), strict=True))
        counts = rows * columns
        row, column = np.divmod(ranges(0, counts), np.repeat(columns, counts))
        up = MAX_LEVEL - level
        i, j = (np.repeat(i, counts) + row) << up, (np.repeat(j, counts) + column) << up
        of.append(np.repeat(near[meets], counts))
        ids.append(_encode(np.full_like(i, face), i, j, level))
    return np.concatenate(of), np.concatenate(ids)


def leaves(ids: ArrayLike) -> tuple[Ints, Ints]:
    """Return the first and the last leaf cell, of level 30, in each cell, same shape. ValueError if an id is invalid.

    As signed numbers, the leaf cells of a cell are in one range, and ranges of two cells overlap only if one contains
    the other.
    """
    ids = _checked(ids)
    rest = (ids & -ids) - 1
    return ids - rest, ids + rest


def centres(ids: ArrayLike) -> tuple[Floats, Floats]:
    """Return (lat, lon), degrees, of the centres of cells, taken in S2's (s, t) coordinates.

    `ids` may have any shape and mixed levels; longitudes are in [-180, 180). ValueError if an id is invalid.
    """
    ids = _checked(ids)
    all_lat, all_lon = np.empty(ids.shape), np.empty(ids.shape)
    chunks = np.nditer(
        [ids, all_lat, all_lon],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["writeonly"], ["writeonly"]],
        buffersize=_CHUNK,
    )
    with chunks:
        for chunk, lat, lon in chunks:
            face, i, j, size = _squares(chunk)
            x, y, z = _unproject(face, _face_u(2 * i + size), _face_u(2 * j + size))
            lat[...] = np.degrees(np.arctan2(z + 0.0, np.hypot(x, y)))
            lon[...] = np.degrees(np.arctan2(y + 0.0, x + 0.0))  # + 0.0: a zero has no sign, so that a pole is at 0
            lon[lon == 180.0] = -180.0
    return all_lat, all_lon


def corners(ids: ArrayLike) -> Floats:
    """Return the four corners of each cell, in order around it, as unit vectors (x, y, z), shape (n, 4, 3).

    The edges between the corners are great circles. `ids`, shape (n,), may have mixed levels. ValueError if an id is
    invalid.
    """
    face, i, j, size = _squares(_checked(ids))
    vectors = [
        np.stack(_unproject(face, _face_u(2 * (i + size * di)), _face_u(2 * (j + size * dj))), axis=-1)
        for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    stacked = np.stack(vectors, axis=1)
    return np.asarray(stacked / np.linalg.norm(stacked, axis=-1, keepdims=True))


def levels(ids: ArrayLike) -> Ints:
    """Return the level, 0 to 30, of every id, same shape. ValueError if an id is invalid."""
    return _levels(_checked(ids))


def parents(ids: ArrayLike, level: int) -> Ints:
    """Return the cells of `level` that contain these cells. ValueError if an id is invalid or its cell coarser."""
    lowest = _lowest_bit(level)
    ids = _checked(ids)
    require(_levels(ids) >= level, ids, f"a cell coarser than level {level} has no parent there")
    return np.asarray((ids & -lowest) | lowest)


def positions(ids: ArrayLike) -> Ints:
    """Return every cell's index in S2 order, 0 to 6 * 4^level - 1 at its level. ValueError if an id is invalid."""
    ids = _checked(ids)
    shift = np.asarray(61 - 2 * _levels(ids)).astype(np.uint64)
    return np.asarray(ids.view(np.uint64) >> shift).astype(np.int64)  # unsigned, because faces 4 and 5 set the sign bit


def from_positions(index: ArrayLike, level: int) -> Ints:
    """Return the cells of one level with these indices, the inverse of `positions`. ValueError if there is none."""
    lowest = _lowest_bit(level)
    index = _integers(index)
    require((index >= 0) & (index < 6 * 4**level), index, f"level {level} has {6 * 4**level} cells from 0 on")
    return np.asarray((index << (61 - 2 * level)) | lowest)


def tokens(ids: ArrayLike) -> NDArray[np.str_]:
    """Return S2 tokens: the 16 hexadecimal digits of an id without trailing zeros. ValueError if an id is invalid."""
    ids = _checked(ids)
    digits = (ids[..., np.newaxis] >> np.arange(60, -1, -4)) & 15
    # Trailing zeros become NULs, which numpy drops from the end of strings.
    used = np.maximum.accumulate(digits[..., ::-1], axis=-1)[..., ::-1] > 0
    return np.where(used, _HEX[digits], np.uint32(0)).view("U16")[..., 0]


def from_tokens(tokens: ArrayLike) -> Ints:
    """Return the ids of S2 tokens, in either case, with or without trailing zeros. ValueError for other texts."""
    text = np.asarray(tokens)
    if text.size and text.dtype.kind not in "UO":
        # Tokens that were read as numbers are lost: 89e1 became 890.0.
        raise ValueError(f"tokens have type {text.dtype}: read them as strings")
    text = np.ascontiguousarray(text.astype(str)).reshape(text.shape)
    codes = text[..., np.newaxis].view(np.uint32).astype(np.int64)
    letter = (codes | 32) - ord("a")  # | 32 makes letters lower case
    decimal = codes - ord("0")
    is_letter, is_decimal = (letter >= 0) & (letter < 6), (decimal >= 0) & (decimal < 10)
    # NULs at the end are padding and count as zeros; a NUL before a digit is an error.
    padding = np.cumsum(codes[..., ::-1], axis=-1)[..., ::-1] == 0
    fits = padding | ((is_letter | is_decimal) & (np.arange(codes.shape[-1]) < 16))
    digits = np.where(is_letter, letter + 10, np.where(is_decimal, decimal, 0))[..., :16]
    ids = np.bitwise_or.reduce(digits << np.arange(60, 60 - 4 * digits.shape[-1], -4), axis=-1)
    require(fits.all(axis=-1) & is_valid(ids), text, "not the token of an S2 cell")
    return np.asarray(ids)


def is_valid(ids: ArrayLike) -> NDArray[np.bool_]:
    """Return which integers are cell ids: face below 6, and the lowest set bit at an even place, 60 at most."""
    ids = _integers(ids)
    return np.asarray((_face(ids) < 6) & ((ids & np.negative(ids) & 0x1555555555555555) != 0))


def _integers(values: ArrayLike) -> Ints:
    """Values as int64; ValueError if they are not of an integer type."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"S2 ids have type {array.dtype}: only integers hold all 64 bits of an id")
    return array.astype(np.int64, copy=False)


def _checked(ids: ArrayLike) -> Ints:
    """Ids as int64; ValueError if one is invalid."""
    ids = _integers(ids)
    require(is_valid(ids), ids, "not the id of an S2 cell")
    return ids


def _lowest_bit(level: int) -> int:
    """The lowest set bit of all ids of a level; ValueError if S2 has no such level."""
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"level {level}: S2 levels are 0 to {MAX_LEVEL}")
    return 1 << 2 * (MAX_LEVEL - level)


def _levels(ids: Ints) -> Ints:
    _, exponent = np.frexp((ids & -ids).astype(np.float64))  # a power of two, so exact
    return np.asarray(MAX_LEVEL - (exponent - 1) // 2, dtype=np.int64)


def _face(ids: Ints) -> Ints:
    return np.asarray((ids >> 61) & 7)


def _first_orientation(face: Ints) -> Ints:
    """Orientation in which the curve starts on each face, for i and j as `_project` returns them."""
    # S2 swaps the curve on odd faces. `_project` exchanges i and j on faces 3, 4 and 5, which swaps it once more.
    return np.asarray((face % 3 % 2) << 2 * _STEP)


def _project(lat: Floats, lon: Floats) -> tuple[Ints, Ints, Ints]:
    """Return the face of every point and its leaf cell (i, j) there, with i and j exchanged on faces 3, 4 and 5.

    With this exchange, opposite faces share their formulas, so that three formulas are left of S2's six.
    """
    if lon.size and (lon.min() < -180 or lon.max() >= 180):
        lon = normalize_lon(lon)
    phi, theta = np.radians(lat), np.radians(lon)
    cos_phi = np.cos(phi)
    x, y, z = np.cos(theta) * cos_phi, np.sin(theta) * cos_phi, np.sin(phi)
    abs_x, abs_y, abs_z = np.abs(x), np.abs(y), np.abs(z)
    # On the edge between two faces, S2 takes the later axis.
    is_x = abs_x > abs_y
    is_z = abs_z >= np.maximum(abs_x, abs_y)
    is_x &= ~is_z
    main = np.where(is_z, z, np.where(is_x, x, y))
    face = np.where(is_z, 2, np.where(is_x, 0, 1)) + 3 * (main < 0)
    i = _leaf_index(np.where(is_x, y, -x) / main)
    j = _leaf_index(np.where(is_z, -y, z) / main)
    return face, i, j


def _leaf_index(u: Floats) -> Ints:
    """Index of the leaf cell, 0 to 2^30 - 1, at `u` in [-1, 1]."""
    return np.asarray(np.minimum((_s_of(u) * _SIZE).astype(np.int64), _SIZE - 1))


def _s_of(u: Floats) -> Floats:
    """S2's quadratic projection: from u, in [-1, 1] on the face, to s, in [0, 1] there."""
    s = 0.5 * np.sqrt(1 + 3 * np.abs(u))
    return np.asarray(np.where(u < 0, 1 - s, s))


def _encode(face: Ints, i: Ints, j: Ints, level: int) -> Ints:
    """Ids of the cells of a level that contain the leaf cells (i, j); i and j as in `_project`."""
    lowest = _lowest_bit(level)
    steps = range(MAX_LEVEL - _STEP, MAX_LEVEL - _STEP - level, -_STEP)
    entry = _first_orientation(face)
    position = np.zeros_like(face)
    for shift in steps:
        entry = _ENCODE[(entry & _ORIENTATION) | (((i >> shift) & _LOW) << _STEP) | ((j >> shift) & _LOW)]
        position = (position << 2 * _STEP) | (entry & _DIGITS)
    unused = 2 * (MAX_LEVEL - _STEP * len(steps))
    return np.asarray(((face << 61) | (position << (unused + 1)) & -lowest) | lowest)


def _squares(ids: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Face, smallest (i, j) and edge length in leaf cells of every cell; i and j as in `_project`."""
    lowest = ids & -ids
    face, position = _face(ids), (ids - lowest) >> 1
    entry = _first_orientation(face)
    i, j = np.zeros_like(face), np.zeros_like(face)
    for shift in range(2 * (MAX_LEVEL - _STEP), -1, -2 * _STEP):
        entry = _DECODE[(entry & _ORIENTATION) | ((position >> shift) & _DIGITS)]
        i = (i << _STEP) | ((entry >> _STEP) & _LOW)
        j = (j << _STEP) | (entry & _LOW)
    # The curve may enter a cell at any corner, so the bits below the cell's level are cleared.
    size = np.sqrt(lowest).astype(np.int64)
    return face, i & -size, j & -size, size


def _unproject(face: Ints, u: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """Point (x, y, z) on the cube at (u, v) of each face, u and v in [-1, 1]; axes as in `_project`."""
    axis, main = face % 3, np.where(face < 3, 1.0, -1.0)
    first, second = u * main, v * main
    x = np.where(axis == 0, main, -first)
    y = np.where(axis == 0, first, np.where(axis == 1, main, -second))
    z = np.where(axis == 2, main, second)
    return x, y, z


def _face_u(half_leaves: Ints) -> Floats:
    """u in [-1, 1] at a distance from the edge of the face, given in halves of leaf cells."""
    s = half_leaves / (2 * _SIZE)
    return np.asarray(np.where(s >= 0.5, 4 * s**2 - 1, 1 - 4 * (1 - s) ** 2) / 3)
