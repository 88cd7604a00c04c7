"""What looks at pictures: predictor artefacts, or classes of somebody else, loaded once in each Python worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from pyspark import TaskContext

from geosieve.ensemble.members import SUM_TOLERANCE
from geosieve.geo.arrays import F8
from geosieve.models.artefact import GRAPH, read_facts
from geosieve.models.graph import GraphPredictor
from geosieve.runtime.errors import ConfigError, GeosieveError, InputError
from geosieve.runtime.names import advice

if TYPE_CHECKING:
    from geosieve.models.predictor import TrainedPredictor

Picture = NDArray[np.uint8]
"""An upright image in sRGB, (height, width, 3)."""


class ImagePredictor(Protocol):
    """A predictor of anybody's."""

    @property
    def partitions(self) -> Mapping[str, str]:
        """The hashes of the partitions that it tells, by name."""

    @property
    def digest(self) -> str:
        """A text that changes whenever its answers may."""

    @property
    def side(self) -> int | None:
        """The shorter side of the pictures that it wants, in pixels; None: whole. Smaller ones come as they are."""

    def log_probabilities(self, images: Sequence[Picture]) -> Mapping[str, F8]:
        """Natural logarithms of probabilities by partition, (images, regions)."""


@dataclass(frozen=True)
class Artefact:
    """A predictor artefact as an ImagePredictor."""

    predictor: GraphPredictor | TrainedPredictor

    @property
    def partitions(self) -> Mapping[str, str]:
        """As an ImagePredictor has them."""
        return {partition.name: partition.hash for partition in self.predictor.facts.partitions}

    @property
    def digest(self) -> str:
        """SHA-256 of `predictor.json`."""
        return self.predictor.digest

    @property
    def side(self) -> int | None:
        """To which it resizes pictures itself."""
        return self.predictor.facts.preprocessing.resize

    def log_probabilities(self, images: Sequence[Picture]) -> Mapping[str, F8]:
        """As an ImagePredictor does."""
        return self.predictor.log_probabilities(images)


@dataclass(frozen=True)
class Recipe:
    """How to make a predictor. `uri`: of an artefact; or else `implementation`, module:class, and its `options`.

    `options` is a JSON object: the arguments of the class.
    """

    uri: str | None
    implementation: str | None = None
    options: str = "{}"

    def make(self, device: str, threads: int) -> ImagePredictor:
        """Load it. `threads`: of an artefact's graph, on the CPU.

        InputError as in `TrainedPredictor.load`; ConfigError if the class cannot be made.
        """
        if self.uri is not None:
            described = read_facts(self.uri)
            if device == "cpu" and GRAPH in described[0].files:
                return Artefact(GraphPredictor.load(self.uri, threads, described))
            from geosieve.models.predictor import TrainedPredictor  # only here is PyTorch needed

            return Artefact(TrainedPredictor.load(self.uri, device, described=described))
        where, options = str(self.implementation), json.loads(self.options)
        module, _, name = where.partition(":")
        for key, value in options.items():
            if isinstance(value, str) and "://" in value and not value.startswith("file://"):
                raise ConfigError(
                    f"option {key} is no local file", where=where, hint="a model is loaded from here only"
                )
        try:
            found: ImagePredictor = getattr(import_module(module), name)(**options)
        except GeosieveError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the predictor cannot be made: {type(error).__name__}: {str(error)[:300]}",
                where=where,
                hint="module:class, on the Python path of driver and executors",
            ) from error
        for wanted in ("partitions", "digest", "side", "log_probabilities"):
            if not hasattr(found, wanted):
                raise ConfigError(f"the predictor has no {wanted}", where=where, hint="see ImagePredictor")
        return found

    def __str__(self) -> str:
        return str(self.uri if self.uri is not None else self.implementation)


@dataclass(frozen=True)
class Seat:
    """The place of a predictor in the ensemble: which of its partitions a member is."""

    member: str
    recipe: Recipe
    partition: str


@dataclass(frozen=True)
class Looked:
    """What predictors said of some pictures, by member: (images, regions), NaN for failures.

    `failures`: error class and message, by the number of the picture.
    """

    values: dict[str, F8]
    failures: dict[int, tuple[str, str]]


@dataclass(frozen=True)
class Predictors:
    """Predictors that are loaded, and the seats that they take."""

    seats: tuple[Seat, ...]
    loaded: Mapping[Recipe, ImagePredictor]

    @classmethod
    def load(cls, seats: Sequence[Seat], device: str, threads: int = 1) -> Predictors:
        """Load each predictor once."""
        recipes = {seat.recipe: None for seat in seats}
        return cls(tuple(seats), {recipe: recipe.make(device, threads) for recipe in recipes})

    def check(self, hashes: Mapping[str, str]) -> None:
        """`hashes`: of the overlay's partitions. InputError if a predictor tells another version of its partition."""
        for seat in self.seats:
            known = self.loaded[seat.recipe].partitions
            where = str(seat.recipe)
            if seat.partition not in known:
                told = advice(seat.partition, list(known), "the predictor has")
                raise ConfigError(f"no partition {seat.partition!r}: {told}", where=where)
            if known[seat.partition] != hashes[seat.partition]:
                raise InputError(
                    f"the predictor of member {seat.member} tells another version of partition {seat.partition} than "
                    f"the overlay has: hash {known[seat.partition][:12]}, not {hashes[seat.partition][:12]}",
                    where=where,
                    hint="use an overlay of the partitions that it has learned",
                )

    @property
    def side(self) -> int | None:
        """The shorter side at which pictures are decoded, so that no predictor wants a larger one; None: whole."""
        sides = [predictor.side for predictor in self.loaded.values()]
        return None if None in sides else max(side for side in sides if side is not None)

    def look(self, images: Sequence[Picture], regions: Mapping[str, int]) -> Looked:
        """Ask all predictors. `regions`: their numbers by member.

        If a predictor raises, it is asked for one picture after the other, and those at which it raises again are
        failures. InputError if it returns another shape, or lacks a partition.
        """
        values = {seat.member: np.full((len(images), regions[seat.member]), np.nan) for seat in self.seats}
        failures: dict[int, tuple[str, str]] = {}
        for recipe in self.loaded:
            self._ask(recipe, images, range(len(images)), values, failures)
        for k in failures:
            for held in values.values():
                held[k] = np.nan
        return Looked(values, failures)

    def _ask(
        self,
        recipe: Recipe,
        images: Sequence[Picture],
        which: Sequence[int],
        values: dict[str, F8],
        failures: dict[int, tuple[str, str]],
    ) -> None:
        if not which:
            return
        try:
            found = self.loaded[recipe].log_probabilities([images[k] for k in which])
        except GeosieveError:
            raise
        except Exception as error:  # noqa: BLE001 - of somebody's model; one picture must not cost the others
            if len(which) == 1:
                failures[which[0]] = ("predictor_failed", f"{recipe}: {type(error).__name__}: {str(error)[:300]}")
                return
            for k in which:
                self._ask(recipe, images, [k], values, failures)
            return
        for seat in self.seats:
            if seat.recipe == recipe:
                self._take(seat, found, which, values[seat.member], failures)

    def _take(
        self,
        seat: Seat,
        found: Mapping[str, F8],
        which: Sequence[int],
        into: F8,
        failures: dict[int, tuple[str, str]],
    ) -> None:
        logs = np.asarray(found.get(seat.partition, ()), dtype=np.float64)
        shape = (len(which), into.shape[1])
        if logs.shape != shape:
            raise InputError(
                f"the predictor of member {seat.member} returns an array {logs.shape} for partition {seat.partition}, "
                f"not (images, regions) {shape}",
                where=str(seat.recipe),
            )
        with np.errstate(over="ignore", invalid="ignore"):
            p = np.exp(logs)
            total = p.sum(axis=1)
            bad = ~(np.abs(total - 1) <= SUM_TOLERANCE)
        into[list(which)] = p
        for row in np.flatnonzero(bad):
            failures[which[row]] = (
                "not_probabilities",
                f"{seat.recipe}: the sum over {seat.partition} is {total[row]:.6g}",
            )


_here: dict[tuple[Seat, ...], Predictors] = {}
"""Of this process: a worker does several tasks."""


def in_this_worker(seats: tuple[Seat, ...], device: str) -> Predictors:
    """The predictors, loaded at the first task of a worker. It uses as many threads, and the GPU, that its task has."""
    context = TaskContext.get()
    if seats not in _here:
        threads = 1
        if context is not None:
            threads = max(1, context.cpus())  # PyTorch and numpy know it: Spark sets OMP_NUM_THREADS
            gpus = context.resources().get("gpu")
            device = device if gpus is None else f"cuda:{gpus.addresses[0]}"
        _here.clear()  # those of an earlier job would stay in memory
        _here[seats] = Predictors.load(seats, device, threads)
    return _here[seats]
