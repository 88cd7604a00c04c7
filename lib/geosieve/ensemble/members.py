"""The ensemble: a product of members, with weights and temperatures, over the atoms of an overlay.

Every atom has one score per image: the logarithm of the product over all members of the density p_j / area(m_j), the
probability of the atom's region divided by the region's area (Bianco, Eigen, Gormish, Alg. 1 and 2). All pixels of an
atom share this score, so ranking atoms gives the same result as ranking pixels.

Equal densities may differ in the last digits of their logarithms, because of rounding in the quotients and in the
order of sums. So scores within structure.TIE count as equal wherever scores are compared or ranked. A mask prior avoids
the quotients: it stores one density for all of its regions.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geosieve.ensemble.structure import Structure
from geosieve.geo.arrays import F8, I8
from geosieve.overlay.atoms import Overlay
from geosieve.runtime.errors import InputError
from geosieve.runtime.names import advice

SUM_TOLERANCE = 1e-3
"""How far a sum of probabilities may be from 1, as with float32 softmaxes over 10,000 classes."""
_CELLS_AT_ONCE = 300_000  # images × (cells + profiles): 2.4 MB of doubles, which fit into the cache
_ATOMS_AT_ONCE = 8_000_000  # images × atoms; each takes some 50 bytes if no cell is decided as a whole


@dataclass(frozen=True)
class EnsembleMember:
    """A member of an ensemble: the partition that it predicts, its weight and its temperature.

    Its probabilities p become p^(1/temperature), normalised; its densities are raised to the power `weight`. A prior is
    a member with `fixed` probabilities, (n_regions,), the same for every image. `density`, (n_regions,) per km², may
    give a prior's densities directly, without the rounding of probability / area. ValueError if the weight is negative,
    the temperature not above 0, a fixed probability not finite, or `density` is given without `fixed`.
    """

    name: str
    partition: str
    weight: float = 1.0
    temperature: float = 1.0
    fixed: tuple[float, ...] | None = None
    density: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and self.temperature > 0):
            raise ValueError(f"member {self.name}: weight must be at least 0 and temperature above 0")
        if self.fixed is not None and not np.isfinite(self.fixed).all():
            raise ValueError(f"prior {self.name}: a probability is not finite")
        if self.density is not None and self.fixed is None:
            raise ValueError(f"member {self.name}: only a prior, which has fixed probabilities, has fixed densities")


@dataclass(frozen=True)
class Probabilities:
    """A member's probabilities, shape (images, regions), over the partition with this hash.

    A row with a NaN is a missing prediction. `values` may be in single precision, a memory map, or any object with a
    `shape` whose row slices are arrays. A few rows at a time are read and converted to doubles.
    """

    partition_hash: str
    values: NDArray[np.floating[Any]]


Predictions = Mapping[str, Probabilities]
"""Probabilities by member name. A member without an entry has no prediction for any image."""


@dataclass(frozen=True)
class Factors:
    """Log densities of regions, computed when a slice of images is taken: `factors[0:10]`.

    A slice gives a list with one array (images, 1 + regions) per member. Column 0 is the area outside of the partition
    (-inf), column 1 + k is region k. A missing prediction, or a member of weight 0, is 0 in all columns, so that it
    has no effect. InputError names the first row whose values are not probabilities.
    """

    images: int
    makers: tuple[Callable[[slice], F8], ...]

    def __getitem__(self, rows: slice) -> list[F8]:
        return [maker(rows) for maker in self.makers]


@dataclass(frozen=True)
class Ensemble:
    """Members, each over one of the overlay's partitions.

    ValueError if there are no members or two have the same name; KeyError if the overlay lacks a member's partition.
    """

    overlay: Overlay
    members: tuple[EnsembleMember, ...]

    def __post_init__(self) -> None:
        if not self.members or len({p.name for p in self.members}) < len(self.members):
            raise ValueError("an ensemble has members, and each has a name of its own")
        for member in self.members:
            self.overlay.column(member.partition)

    def missing(self, predictions: Predictions) -> dict[str, int]:
        """Number of images without a prediction (absent, or with a NaN) for each member that is not a prior."""
        images = max((of.values.shape[0] for of in predictions.values()), default=0)

        def without(name: str) -> int:
            """Images that member `name` has no prediction for."""
            if name not in predictions:
                return images
            chunks = (_taken(predictions[name].values, rows) for rows in self.chunks(images))
            return sum(int(np.isnan(values).any(axis=1).sum()) for values in chunks)

        return {p.name: without(p.name) for p in self.members if p.fixed is None}

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """InputError if a name is not that of a member."""
        known = [p.name for p in self.members]
        unknown = sorted(set(names) - set(known))
        if unknown:
            hint = advice(unknown[0], known, "its members")
            raise InputError(f"the ensemble has no member {', '.join(unknown)}", hint=hint)

    def factors(self, predictions: Predictions, images: int = 1, floor: float = 0.0) -> Factors:
        """Log densities of regions by member, to be taken in slices of images. Memory does not grow with the images.

        `images`: number of images, used only if `predictions` is empty. `floor`: smaller probabilities are raised to
        it. InputError if names, hashes or shapes of `predictions` do not fit; their values are not read yet.
        """
        self.refuse_unknown(predictions)
        sizes = {of.values.shape[0] for of in predictions.values()}
        if len(sizes) > 1:
            raise InputError(f"members have different numbers of images: {sorted(sizes)}")
        images = sizes.pop() if sizes else images
        return Factors(images, tuple(self._maker(p, predictions.get(p.name), images, floor) for p in self.members))

    def _maker(
        self, member: EnsembleMember, given: Probabilities | None, images: int, floor: float
    ) -> Callable[[slice], F8]:
        """Function that computes a member's factor for a slice of images."""
        k = self.overlay.column(member.partition)
        partition, area = self.overlay.partitions[k], self.overlay.region_areas_km2[k]
        if member.fixed is not None:
            if given is not None:
                raise InputError(f"member {member.name} is a prior: its probabilities are fixed")
            given = Probabilities(partition.digest, np.array([member.fixed]))
        elif given is None:
            return _repeated(np.zeros((1, 1 + partition.n_regions)), images)
        if given.partition_hash != partition.digest:
            raise InputError(
                f"member {member.name} is over partition {given.partition_hash[:12]}…, the overlay has "
                f"{partition.name} {partition.digest[:12]}…",
                hint="use the member's own partition, or an overlay made of it",
            )
        values = given.values
        if len(values.shape) != 2 or values.shape[1] != partition.n_regions:
            raise InputError(
                f"member {member.name}: probabilities have shape {tuple(values.shape)}, "
                f"not (images, {partition.n_regions})"
            )
        if member.fixed is not None:
            return _repeated(_factor(member, _taken(values, slice(None)), area, floor), images)
        return lambda rows: _factor(member, _taken(values, rows), area, floor, rows.indices(images)[0])

    def chunks(self, images: int) -> Iterator[slice]:
        """Slices of images, small enough that their arrays over cells, profiles and atoms fit into a fixed memory."""
        widest = self.structure.cell_area.size + len(self.structure.profiles)
        step = max(1, min(_CELLS_AT_ONCE // widest, _ATOMS_AT_ONCE // self.overlay.n_atoms))
        return (slice(start, min(start + step, images)) for start in range(0, images, step))

    def scores(self, predictions: Predictions) -> F8:
        """Log density of every atom, (images, atoms), up to a constant per image. InputError as in `factors`."""
        return self.gather(self.factors(predictions)[:])

    def gather(self, factors: list[F8]) -> F8:
        """Score of every atom, the sum of the members' factors at it, (images, atoms)."""
        return np.asarray(sum(f[:, columns] for f, columns in zip(factors, self.columns, strict=True)))

    @cached_property
    def columns(self) -> list[I8]:
        """For each member, the factor's column of every atom, (atoms,): 0 outside of its partition, else 1 + region."""
        return [np.maximum(self.overlay.labels[:, self.overlay.column(p.partition)], -1) + 1 for p in self.members]

    @cached_property
    def structure(self) -> Structure:
        """The atoms grouped by cell and profile."""
        return Structure.of(self.overlay.area_km2, self.columns)

    def area_to_truth_km2(self, predictions: Predictions, truth: ArrayLike) -> F8:
        """Area, km², of all atoms that score at least as much as the true atom, ties included, (images,): Alg. 3.

        `truth`: the atom of each image's true position, (images,). InputError as in `matched`.
        """
        return self._by_chunk(predictions, truth, self.structure.area_above)

    def ranks(self, predictions: Predictions, truth: ArrayLike) -> I8:
        """Number of atoms that score at least as much as the true atom, ties included, (images,)."""
        return self._by_chunk(predictions, truth, self.structure.atoms_above).astype(np.int64)

    def credible_level(self, predictions: Predictions, truth: ArrayLike) -> F8:
        """Probability of all atoms that score at least as much as the true atom, ties included, (images,).

        NaN if no atom has a density above 0.
        """
        return self._by_chunk(predictions, truth, self.structure.mass_above)

    def mass_before(self, predictions: Predictions, truth: ArrayLike) -> F8:
        """Probability of all atoms that score more than the true atom, (images,); NaN as in `credible_level`."""
        return self._by_chunk(predictions, truth, partial(self.structure.mass_above, strictly=True))

    def matched(self, predictions: Predictions, truth: ArrayLike, floor: float = 0.0) -> tuple[Factors, I8]:
        """`factors`, and `truth` as int64. InputError as in `factors`, or if sizes differ or an atom does not exist."""
        atoms = np.asarray(truth, dtype=np.int64)
        factors = self.factors(predictions, atoms.size, floor)
        if factors.images != atoms.size:
            raise InputError(f"predictions are of {factors.images} images, true positions of {atoms.size}")
        if atoms.size and not (atoms.min() >= 0 and atoms.max() < self.overlay.n_atoms):
            raise InputError(f"true atoms must be 0 to {self.overlay.n_atoms - 1}: {atoms.min()} to {atoms.max()}")
        return factors, atoms

    def _by_chunk(self, predictions: Predictions, truth: ArrayLike, measure: Callable[[F8, F8, I8], F8]) -> F8:
        """`measure` of the scores of cells, of profiles, and the true atoms, chunk by chunk, (images,)."""
        factors, truth = self.matched(predictions, truth)
        found = np.empty(truth.size)
        for images in self.chunks(truth.size):
            found[images] = measure(*self.structure.scores(factors[images]), truth[images])
        return found


def _taken(values: NDArray[np.floating[Any]], rows: slice) -> F8:
    """Copy of some rows of a member's values, as doubles."""
    taken = np.array(values[rows], dtype=np.float64)
    pages = getattr(values, "_mmap", None)
    if isinstance(pages, mmap.mmap) and getattr(values, "mode", "") == "r":
        # Otherwise the pages read would count as the process's memory until the system needs them.
        pages.madvise(mmap.MADV_DONTNEED)
    return taken


def _repeated(row: F8, images: int) -> Callable[[slice], F8]:
    """Function that gives the same factor for all images of a slice."""
    return lambda rows: np.broadcast_to(row, (len(range(*rows.indices(images))), row.shape[1]))


def _factor(member: EnsembleMember, values: F8, area: F8, floor: float, first: int = 0) -> F8:
    """Log densities, (images, 1 + regions), from `values`, which is overwritten. `first`: index of the first image."""
    missing = _check(values, member.name, first)
    found = np.empty((len(values), 1 + area.size))
    if member.weight == 0:
        found[:] = 0.0
        return found
    values[missing] = 1.0
    if floor:
        np.maximum(values, floor, out=values)
    found[:, 0] = -np.inf
    with np.errstate(divide="ignore"):
        log_p = np.log(values, out=values)
    if member.temperature != 1:
        log_p /= member.temperature
        top = log_p.max(axis=1, keepdims=True)
        log_p -= top + np.log(np.exp(log_p - top).sum(axis=1, keepdims=True))
    density = np.subtract(log_p, np.log(np.where(area > 0, area, 1.0)), out=found[:, 1:])
    if member.density is not None and member.temperature == 1 and not floor:
        with np.errstate(divide="ignore"):
            density[:] = np.log(member.density)
    if member.weight != 1:
        density *= member.weight
    density[:, np.flatnonzero(area <= 0)] = -np.inf
    found[missing] = 0.0
    return found


def _check(p: F8, name: str, first: int) -> NDArray[np.bool_]:
    """Which rows are missing predictions, (images,).

    InputError if in another row a probability is negative or infinite, or the sum differs from 1 by more than
    SUM_TOLERANCE.
    """
    least, total = p.min(axis=1), p.sum(axis=1)
    missing = np.asarray(np.isnan(least))
    for fault, rows in (
        ("negative or infinite", ~missing & ((least < 0) | ~np.isfinite(total))),
        (f"not 1 in sum (to {SUM_TOLERANCE})", ~missing & (np.abs(total - 1) > SUM_TOLERANCE)),
    ):
        if rows.any():
            row = first + int(np.flatnonzero(rows)[0])
            raise InputError(f"member {name}: probabilities of an image are {fault}", where=f"row {row}")
    return missing


def mask_prior(overlay: Overlay, name: str, partition: str, regions: ArrayLike) -> EnsembleMember:
    """A prior with one constant density in some regions and 0 elsewhere, e.g. an urban prior of the densest buckets.

    `regions`: indices in the partition. With all regions, probability is proportional to area. ValueError if an index
    does not exist or the regions have no area; KeyError if the overlay lacks the partition.
    """
    area, chosen = overlay.region_areas_km2[overlay.column(partition)], np.asarray(regions, dtype=np.int64)
    if (chosen < 0).any() or (chosen >= area.size).any():
        raise ValueError(f"prior {name}: regions of {partition} are 0 to {area.size - 1}")
    inside = np.isin(np.arange(area.size), chosen)
    mask = prior(name, partition, np.where(inside, area, 0.0))
    even = np.where(inside & (area > 0), 1 / area[inside].sum(), 0.0)
    return replace(mask, density=tuple(even.tolist()))


def prior(name: str, partition: str, weights: ArrayLike) -> EnsembleMember:
    """A prior with probabilities proportional to `weights`, (n_regions,), such as population or number of images.

    ValueError if a weight is negative or not finite, or if none is above 0.
    """
    w = np.asarray(weights, dtype=np.float64)
    if not ((w >= 0).all() and np.isfinite(w).all() and w.sum() > 0):
        raise ValueError(f"prior {name}: weights of regions must be numbers from 0 on, and one of them above 0")
    return EnsembleMember(name, partition, fixed=tuple((w / w.sum()).tolist()))


def with_weights(ensemble: Ensemble, weights: Mapping[str, float], temperatures: Mapping[str, float]) -> Ensemble:
    """The ensemble with new weights and temperatures by member name; others keep theirs.

    InputError if a name is not that of a member.
    """
    ensemble.refuse_unknown((*weights, *temperatures))
    changed = tuple(
        replace(
            p,
            weight=float(weights.get(p.name, p.weight)),
            temperature=float(temperatures.get(p.name, p.temperature)),
        )
        for p in ensemble.members
    )
    return Ensemble(ensemble.overlay, changed)
