"""S2 cell ids for arrays of points, as signed int64.

A cell id (S2 geometry library, s2cell_id.h) is 3 bits of cube face, 2 bits a level of the Hilbert curve on
that face, one set bit, and zeros. Signed ids order faces 4 and 5 first; `positions` keeps the S2 order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.geo.sphere import Floats, checked_lat, checked_lon, normalize_lon, require

MAX_LEVEL = 30

Ints = NDArray[np.int64]

_SIZE = 1 << MAX_LEVEL  # leaf cells along a face edge
_CHUNK = 16_384  # points: temporaries and tables then stay in the second-level cache
_STEP = 6  # levels of the curve per table lookup: five lookups for thirty levels
_LOW = (1 << _STEP) - 1
_DIGITS = (1 << 2 * _STEP) - 1
_ORIENTATION = 3 << 2 * _STEP
_SWAP, _INVERT = 1, 2  # how a piece of the curve lies: axes exchanged, both axes reversed
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8).astype(np.uint32)


def _hilbert_tables() -> tuple[Ints, Ints]:
    """Tables that follow the curve `_STEP` levels down, and back.

    Keys hold the orientation, then `_STEP` bits of i and of j (first table) or `2 * _STEP` bits of curve
    position (second table); values hold the orientation at the end and the other description.
    """
    start, position = np.divmod(np.arange(4 << 2 * _STEP), _DIGITS + 1)
    orientation, i, j = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for shift in range(2 * _STEP - 2, -1, -2):
        quarter = (position >> shift) & 3
        # The curve visits the quarters (0,0), (0,1), (1,1), (1,0) of (i, j) when it is not turned ...
        first, second = quarter >> 1, (quarter >> 1) ^ (quarter & 1)
        swapped, inverted = (orientation & _SWAP).astype(bool), orientation // _INVERT
        i = (i << 1) | (np.where(swapped, second, first) ^ inverted)
        j = (j << 1) | (np.where(swapped, first, second) ^ inverted)
        # ... and is swapped in the first quarter, swapped and inverted in the last.
        orientation ^= np.array([_SWAP, 0, 0, _SWAP | _INVERT])[quarter]
    ij = (i << _STEP) | j
    encode = np.empty_like(position)
    encode[(start << 2 * _STEP) | ij] = (orientation << 2 * _STEP) | position
    return encode, (orientation << 2 * _STEP) | ij


_ENCODE, _DECODE = _hilbert_tables()


def cell_ids(lat: ArrayLike, lon: ArrayLike, level: int = MAX_LEVEL) -> Ints:
    """Return the ids of the cells of one level that contain the points.

    Degrees, shapes broadcast; longitudes wrap first, so that 180 and -180 give one cell. ValueError at a
    coordinate that is not finite, a latitude outside [-90, 90], or a level outside 0..30. S2's quadratic
    projection in the operations and order of its reference: equal to it bit for bit while numpy's float64
    sine and cosine are the C library's, which a test checks.
    """
    lowest = _lowest_bit(level)
    steps = range(MAX_LEVEL - _STEP, MAX_LEVEL - _STEP - level, -_STEP)
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
            face, i, j = _project(lat_chunk, lon_chunk)
            entry = _first_orientation(face)
            position = np.zeros_like(face)
            for shift in steps:
                entry = _ENCODE[(entry & _ORIENTATION) | (((i >> shift) & _LOW) << _STEP) | ((j >> shift) & _LOW)]
                position = (position << 2 * _STEP) | (entry & _DIGITS)
            unused = 2 * (MAX_LEVEL - _STEP * len(steps))
            ids[...] = ((face << 61) | (position << (unused + 1)) & -lowest) | lowest
    return result


def centres(ids: ArrayLike) -> tuple[Floats, Floats]:
    """Return (lat, lon), degrees, of the cells' centres in S2's (s, t) coordinates.

    Any shape, levels may differ; longitudes are in [-180, 180). ValueError at an invalid id.
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
            lat[...], lon[...] = np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))
    return all_lat, all_lon


def corners(ids: ArrayLike) -> Floats:
    """Return the cells' corners as unit vectors (x, y, z), shape (n, 4, 3), around each cell; the edges between
    them are great circles. Ids of shape (n,), levels may differ; ValueError at an invalid one."""
    face, i, j, size = _squares(_checked(ids))
    vectors = [
        np.stack(_unproject(face, _face_u(2 * (i + size * di)), _face_u(2 * (j + size * dj))), axis=-1)
        for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    stacked = np.stack(vectors, axis=1)
    return np.asarray(stacked / np.linalg.norm(stacked, axis=-1, keepdims=True))


def levels(ids: ArrayLike) -> Ints:
    """Return the level, 0..30, of every id; ValueError at an invalid one."""
    return _levels(_checked(ids))


def parents(ids: ArrayLike, level: int) -> Ints:
    """Return the cells of `level` that contain these cells; ValueError at an invalid or a coarser one."""
    lowest = _lowest_bit(level)
    ids = _checked(ids)
    require(_levels(ids) >= level, ids, f"a cell coarser than level {level} has no parent there")
    return np.asarray((ids & -lowest) | lowest)


def positions(ids: ArrayLike) -> Ints:
    """Return every cell's index among the 6 * 4^level of its level, in S2 order; ValueError if invalid."""
    ids = _checked(ids)
    shift = np.asarray(61 - 2 * _levels(ids)).astype(np.uint64)
    return np.asarray(ids.view(np.uint64) >> shift).astype(np.int64)  # unsigned: faces 4 and 5 set the sign bit


def from_positions(index: ArrayLike, level: int) -> Ints:
    """Return the cells of one level at these indices, the inverse of positions; ValueError outside them."""
    lowest = _lowest_bit(level)
    index = _integers(index)
    require((index >= 0) & (index < 6 * 4**level), index, f"level {level} has {6 * 4**level} cells from 0 on")
    return np.asarray((index << (61 - 2 * level)) | lowest)


def tokens(ids: ArrayLike) -> NDArray[np.str_]:
    """Return S2 tokens: 16 hexadecimal digits without the trailing zeros; ValueError at an invalid id."""
    ids = _checked(ids)
    digits = (ids[..., np.newaxis] >> np.arange(60, -1, -4)) & 15
    # numpy drops a string's trailing NULs, so these take the place of the zeros after the last digit.
    used = np.maximum.accumulate(digits[..., ::-1], axis=-1)[..., ::-1] > 0
    return np.where(used, _HEX[digits], np.uint32(0)).view("U16")[..., 0]


def from_tokens(tokens: ArrayLike) -> Ints:
    """Return the ids of S2 tokens, either case, with or without trailing zeros; ValueError at other text."""
    text = np.asarray(tokens)
    if text.size and text.dtype.kind not in "UO":
        # A column of tokens that was read as numbers has already lost some: 89e1 became 890.0.
        raise ValueError(f"tokens have type {text.dtype}: read them as strings")
    text = np.ascontiguousarray(text.astype(str)).reshape(text.shape)
    codes = text[..., np.newaxis].view(np.uint32).astype(np.int64)
    letter = (codes | 32) - ord("a")  # bit 32 is what lower case adds to a letter
    decimal = codes - ord("0")
    is_letter, is_decimal = (letter >= 0) & (letter < 6), (decimal >= 0) & (decimal < 10)
    # Padding at the end counts as zeros; a NUL with a digit behind it is not padding.
    padding = np.cumsum(codes[..., ::-1], axis=-1)[..., ::-1] == 0
    fits = padding | ((is_letter | is_decimal) & (np.arange(codes.shape[-1]) < 16))
    digits = np.where(is_letter, letter + 10, np.where(is_decimal, decimal, 0))[..., :16]
    ids = np.bitwise_or.reduce(digits << np.arange(60, 60 - 4 * digits.shape[-1], -4), axis=-1)
    require(fits.all(axis=-1) & is_valid(ids), text, "not the token of an S2 cell")
    return np.asarray(ids)


def is_valid(ids: ArrayLike) -> NDArray[np.bool_]:
    """Tell which int64 values are ids of cells: a face below 6 and the last set bit at an even place."""
    ids = _integers(ids)
    return np.asarray((_face(ids) < 6) & ((ids & np.negative(ids) & 0x1555555555555555) != 0))


def _integers(values: ArrayLike) -> Ints:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"S2 ids have type {array.dtype}: only integers hold all 64 bits of an id")
    return array.astype(np.int64, copy=False)


def _checked(ids: ArrayLike) -> Ints:
    ids = _integers(ids)
    require(is_valid(ids), ids, "not the id of an S2 cell")
    return ids


def _lowest_bit(level: int) -> int:
    if not 0 <= level <= MAX_LEVEL:
        raise ValueError(f"level {level}: S2 levels are 0 to {MAX_LEVEL}")
    return 1 << 2 * (MAX_LEVEL - level)


def _levels(ids: Ints) -> Ints:
    _, exponent = np.frexp((ids & -ids).astype(np.float64))  # a power of two, so exact
    return np.asarray(MAX_LEVEL - (exponent - 1) // 2, dtype=np.int64)


def _face(ids: Ints) -> Ints:
    return np.asarray((ids >> 61) & 7)


def _first_orientation(face: Ints) -> Ints:
    """Where the curve starts on faces described by `_project`'s i and j."""
    # S2 swaps the curve on odd faces. Faces 3, 4, 5 come with i and j exchanged, which swaps it once more.
    return np.asarray((face % 3 % 2) << 2 * _STEP)


def _project(lat: Floats, lon: Floats) -> tuple[Ints, Ints, Ints]:
    """Return the face of every point and the leaf cell on it, i and j exchanged on faces 3, 4 and 5.

    Written so, opposite faces share their formulas: of S2's six (u, v) three remain.
    """
    if lon.size and (lon.min() < -180 or lon.max() >= 180):
        lon = normalize_lon(lon)
    phi, theta = np.radians(lat), np.radians(lon)
    cos_phi = np.cos(phi)
    x, y, z = np.cos(theta) * cos_phi, np.sin(theta) * cos_phi, np.sin(phi)
    abs_x, abs_y, abs_z = np.abs(x), np.abs(y), np.abs(z)
    # On the edge of two faces S2 takes the later axis.
    is_x = abs_x > abs_y
    is_z = abs_z >= np.maximum(abs_x, abs_y)
    is_x &= ~is_z
    main = np.where(is_z, z, np.where(is_x, x, y))
    face = np.where(is_z, 2, np.where(is_x, 0, 1)) + 3 * (main < 0)
    i = _leaf_index(np.where(is_x, y, -x) / main)
    j = _leaf_index(np.where(is_z, -y, z) / main)
    return face, i, j


def _leaf_index(u: Floats) -> Ints:
    """Index of the leaf cell at `u` in [-1, 1] by the quadratic projection, 0 to 2^30 - 1."""
    s = 0.5 * np.sqrt(1 + 3 * np.abs(u))
    s = np.where(u < 0, 1 - s, s)
    return np.asarray(np.minimum((s * _SIZE).astype(np.int64), _SIZE - 1))


def _squares(ids: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Face, least (i, j) and size in leaf cells of every cell, i and j exchanged on faces 3, 4 and 5."""
    lowest = ids & -ids
    face, position = _face(ids), (ids - lowest) >> 1
    entry = _first_orientation(face)
    i, j = np.zeros_like(face), np.zeros_like(face)
    for shift in range(2 * (MAX_LEVEL - _STEP), -1, -2 * _STEP):
        entry = _DECODE[(entry & _ORIENTATION) | ((position >> shift) & _DIGITS)]
        i = (i << _STEP) | ((entry >> _STEP) & _LOW)
        j = (j << _STEP) | (entry & _LOW)
    # The curve may enter a cell at any corner: the bits below the cell's level are not the cell's.
    size = np.sqrt(lowest).astype(np.int64)
    return face, i & -size, j & -size, size


def _unproject(face: Ints, u: Floats, v: Floats) -> tuple[Floats, Floats, Floats]:
    """Inverse of `_project`: x, y, z on the cube at (u, v), each in [-1, 1]."""
    axis, main = face % 3, np.where(face < 3, 1.0, -1.0)
    first, second = u * main, v * main
    x = np.where(axis == 0, main, -first)
    y = np.where(axis == 0, first, np.where(axis == 1, main, -second))
    z = np.where(axis == 2, main, second)
    return x, y, z


def _face_u(half_leaves: Ints) -> Floats:
    """u in [-1, 1] at a distance, in halves of leaf cells, from the edge of the face."""
    s = half_leaves / (2 * _SIZE)
    return np.asarray(np.where(s >= 0.5, 4 * s**2 - 1, 1 - 4 * (1 - s) ** 2) / 3)
