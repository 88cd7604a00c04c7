"""In Spark tasks: from references to images to what predictors say of them and how they are ranked.

Every image is read and decoded once, at the size that the most demanding predictor wants. A batch of pictures goes
through all predictors and is ranked before the next one is read, so memory does not depend on the number of images.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from geosieve.ensemble.conformal import check_claims
from geosieve.ensemble.members import Ensemble, Predictions, Probabilities
from geosieve.geo.arrays import F8
from geosieve.images.content import REFERENCE, read_contents
from geosieve.images.headers import Refusal
from geosieve.images.isolation import Decoder, decoder
from geosieve.images.photo_rows import PhotoLimits, Row
from geosieve.inference.artefact import Calibration
from geosieve.inference.given import Gathered
from geosieve.inference.image_predictors import Picture, Predictors, Seat, in_this_worker
from geosieve.inference.ranker import ANSWER, OUT, Ranker
from geosieve.overlay.atoms import AtomGrid
from geosieve.tables.schemas import IMAGE_KEY

LEFT = "left"
"""Error class of images that a run did not come to. They are no rejects: the next run looks at them."""

WANTED = (*IMAGE_KEY, *REFERENCE)
"""Columns of the rows that are looked at; and lat and lon, if claims are tested."""

_PAIRS = pa.list_(pa.struct([("region", pa.int64()), ("probability", pa.float64())]))
_SAID = pa.struct(
    [("predictor", pa.string()), ("partition_hash", pa.string()), ("probabilities", _PAIRS), ("rest", pa.float64())]
)
_CHECKS = (
    ("claim_p", pa.float64()),
    ("claim_contradicts", pa.bool_()),
    ("domain_p", pa.float64()),
    ("out_of_domain", pa.bool_()),
)
_LOOKED = pa.schema([*ANSWER, ("content_sha256", pa.string()), *_CHECKS, ("said", pa.list_(_SAID))])
LOOKED = (
    f"{OUT}, content_sha256 string, claim_p double, claim_contradicts boolean, domain_p double, out_of_domain boolean, "
    "said array<struct<predictor:string,partition_hash:string,"
    "probabilities:array<struct<region:bigint,probability:double>>,rest:double>>"
)
"""Of an image: OUT, the tests, and the most probable regions of each predictor."""


@dataclass(frozen=True)
class Checks:
    """What answers are compared with, and levels below which a p-value tells. None: not asked.

    `grid`: where the atoms of claimed positions are found.
    """

    calibration: Calibration | None
    claim_level: float | None
    domain_level: float | None
    grid: AtomGrid | None

    def domain(self, entropy: F8) -> F8:
        """p-values of answers being no vaguer than those of the calibration images: conformal, of the entropy."""
        assert self.calibration is not None
        known = np.sort(np.nan_to_num(self.calibration.entropy, nan=np.inf))
        vaguer = known.size - np.searchsorted(known, np.nan_to_num(entropy, nan=np.inf), side="left")
        return np.asarray((1 + vaguer) / (known.size + 1))

    def claims(self, ensemble: Ensemble, predictions: Predictions, lat: F8, lon: F8) -> F8:
        """p-values of claimed positions, NaN where there are none.

        In a pixel of several atoms the one counts that fits best, since the grid does not say in which a point lies.
        """
        assert self.calibration is not None and self.grid is not None
        found = np.full(lat.size, np.nan)
        image = np.flatnonzero(~np.isnan(lat + lon))
        if image.size:
            count, atom = self.grid.at(lat[image], lon[image])
            of = np.repeat(image, count)
            some = {name: Probabilities(given.partition_hash, given.values[of]) for name, given in predictions.items()}
            p = check_claims(ensemble, some, atom, self.calibration.credible_level).p_value
            found[image] = np.maximum.reduceat(p, np.cumsum(count) - count)
        return found


@dataclass(frozen=True)
class Looker:
    """Looks at images in a task; broadcast to the workers.

    `side`: at which pictures are decoded. `deadline`: no batch is begun later, in seconds since 1970.
    """

    ranker: Ranker
    seats: tuple[Seat, ...]
    device: str
    side: int | None
    limits: PhotoLimits
    batch: int
    top: int
    checks: Checks
    deadline: float | None

    def look(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of LOOKED, from rows with the columns WANTED in the order of `content.placed`."""
        predictors = in_this_worker(self.seats, self.device)
        left: list[Row] = []
        rows = self._in_time((row for batch in batches for row in batch.to_pylist()), left)
        with decoder(self.limits.seconds) as decode:
            found = ((row, self._decoded(content, decode)) for row, content in read_contents(rows, self.limits))
            while some := list(islice(found, self.batch)):
                yield self._answered(some, predictors)
        for at in range(0, len(left), self.batch):
            yield self._answered([(row, _LATE) for row in left[at : at + self.batch]], predictors)

    def _in_time(self, rows: Iterable[Row], left: list[Row]) -> Iterator[Row]:
        """The rows that are reached before the deadline; the others go to `left` and are not read."""
        for row in rows:
            if self.late():
                left.append(row)
            else:
                yield row

    def late(self) -> bool:
        """Whether the deadline is over."""
        return self.deadline is not None and time.time() > self.deadline

    def _decoded(self, content: bytes | Refusal, decode: Decoder) -> Picture | Refusal:
        if self.late():  # the rows of a compressed tar were all taken before
            return _LATE
        return content if isinstance(content, Refusal) else decode(content, self.side, self.limits.pixels)

    def _answered(self, some: list[tuple[Row, Picture | Refusal]], predictors: Predictors) -> pa.RecordBatch:
        pictures = {k: found for k, (_, found) in enumerate(some) if not isinstance(found, Refusal)}
        refused = {
            k: (found.error_class, found.message) for k, (_, found) in enumerate(some) if isinstance(found, Refusal)
        }
        values = {name: np.full((len(some), area.size), np.nan) for name, area in self.ranker.sizes.items()}
        if pictures:
            numbers = list(pictures)
            looked = predictors.look(list(pictures.values()), {name: of.size for name, of in self.ranker.sizes.items()})
            refused |= {numbers[k]: failure for k, failure in looked.failures.items()}
            for name, of in looked.values.items():
                values[name][numbers] = of
        source, image_id = (pa.array([row[name] for row, _ in some], pa.string()) for name in ("source", "image_id"))
        answers = self.ranker.rank(Gathered(source, image_id, values, refused, 0.0))
        hashes = pa.array([row["content_sha256"] for row, _ in some], pa.string())
        said = pa.array(self._said(values), pa.list_(_SAID))
        tested = self._tested([row for row, _ in some], answers, values)
        return pa.RecordBatch.from_arrays([*answers.columns, hashes, *tested, said], schema=_LOOKED)

    def _tested(self, rows: list[Row], answers: pa.RecordBatch, values: dict[str, F8]) -> list[pa.Array]:
        """The columns of _CHECKS."""
        nothing, checks = np.full(len(rows), np.nan), self.checks
        claim, domain = nothing, nothing
        if checks.domain_level is not None:
            domain = checks.domain(answers.column("entropy").to_numpy(zero_copy_only=False))
        if checks.claim_level is not None:
            lat, lon = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("lat", "lon"))
            given = {name: Probabilities(self.ranker.hashes[name], of) for name, of in values.items()}
            claim = checks.claims(self.ranker.answerer.ensemble, given, lat, lon)
        found = []
        for p, level in ((claim, checks.claim_level), (domain, checks.domain_level)):
            unknown = np.isnan(p)
            below = p < (0.0 if level is None else level)
            found += [pa.array(p, mask=unknown), pa.array(below, mask=unknown)]
        return found

    def _said(self, values: dict[str, F8]) -> list[list[dict[str, Any]]]:
        """The most probable regions by predictor, of each image; none of images without an answer."""
        found: list[list[dict[str, Any]]] = [[] for _ in next(iter(values.values()))]
        for name, p in values.items():
            n = min(self.top, p.shape[1])
            best = np.argsort(-p, axis=1, kind="stable")[:, :n]
            of_best = np.take_along_axis(p, best, axis=1)
            rest = np.clip(1 - of_best.sum(axis=1), 0.0, 1.0) if n < p.shape[1] else np.zeros(len(p))
            for k in np.flatnonzero(~np.isnan(p[:, 0])):
                pairs = [{"region": int(r), "probability": float(q)} for r, q in zip(best[k], of_best[k], strict=True)]
                hashed = self.ranker.hashes[name]
                found[k].append(
                    {"predictor": name, "partition_hash": hashed, "probabilities": pairs, "rest": float(rest[k])}
                )
        return found


_LATE = Refusal(LEFT, "the run ended before it came to this image")
