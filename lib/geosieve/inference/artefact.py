"""Ensemble artefacts: weights, temperatures and conformal thresholds of predictors over one overlay.

    ensemble.yaml       overlay and predictors by hash, weight and temperature of each member, on what they were fitted
    thresholds.parquet  a row per coverage and stratum
    calibration.parquet a row per image that set thresholds: what claims and vague answers are compared with

`ensemble.yaml`, which has the SHA-256 of the other files, is written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field

from geosieve.ensemble.conformal import ConformalSets
from geosieve.ensemble.members import Ensemble, EnsembleMember
from geosieve.geo.arrays import F8
from geosieve.overlay.atoms import Overlay
from geosieve.runtime.config import Config, read_yaml, refuse_later, validate
from geosieve.runtime.errors import InputError
from geosieve.runtime.store import parquet_bytes, read_unchanged, write_file

FACTS, THRESHOLDS, CALIBRATION = "ensemble.yaml", "thresholds.parquet", "calibration.parquet"
VERSION = 1
"""Of the format."""

_SCHEMA = pa.schema([("coverage", pa.float64()), ("stratum", pa.int64()), ("threshold", pa.float64())])
_ALL = -2
"""Stratum of a threshold for all atoms; -1 is that of atoms without a stratum."""


class Member(Config):
    """A member: a predictor's partition, with its weight and temperature."""

    name: str
    partition: str
    partition_hash: str
    predictor: str = Field(description="URI of the artefact")
    predictor_sha256: str = Field(description="of its predictor.json")
    weight: float = Field(ge=0)
    temperature: float = Field(gt=0)


class EnsembleFacts(Config):
    """What `ensemble.yaml` says."""

    version: Literal[1] = 1
    name: str
    overlay: str = Field(description="hash of the overlay")
    members: list[Member] = Field(min_length=1)
    strata: str | None = Field(description="partition whose regions have thresholds of their own")
    fitted_on: str = Field(description="URI of the run of training shards, and its split")
    images: dict[str, int] = Field(description="number of images that set weights, and thresholds")
    scores: dict[str, float] = Field(description="mean log density at the truth of the other images, plain and fitted")
    thresholds_sha256: str
    calibration_sha256: str | None = Field(None, description="null: an earlier version has fitted it")


@dataclass(frozen=True)
class Calibration:
    """Of the images that set thresholds, (images,): credible level of the true atom, and entropy of the answer, nats.

    NaN where no atom has a density.
    """

    credible_level: F8
    entropy: F8


@dataclass(frozen=True)
class FittedEnsemble:
    """An ensemble, and its conformal sets by coverage: one threshold for all atoms, and one per stratum, if any."""

    facts: EnsembleFacts
    ensemble: Ensemble
    marginal: Mapping[float, ConformalSets]
    by_stratum: Mapping[float, ConformalSets]
    calibration: Calibration | None = None


def write_ensemble(
    uri: str,
    facts: Mapping[str, object],
    marginal: Mapping[float, ConformalSets],
    by_stratum: Mapping[float, ConformalSets],
    calibration: Calibration,
) -> tuple[EnsembleFacts, str]:
    """Write an artefact into the folder `uri`. `facts`: the values of EnsembleFacts but the SHA-256 of other files.

    Returns what `ensemble.yaml` says, and its SHA-256 in hex.
    """
    rows = [{"coverage": c, "stratum": _ALL, "threshold": float(sets.thresholds[0])} for c, sets in marginal.items()]
    for coverage, sets in by_stratum.items():
        last = len(sets.thresholds) - 1  # of atoms without a stratum
        rows += [
            {"coverage": coverage, "stratum": -1 if k == last else k, "threshold": float(threshold)}
            for k, threshold in enumerate(sets.thresholds)
        ]
    levels = pa.table({"credible_level": calibration.credible_level, "entropy": calibration.entropy})
    contents = {THRESHOLDS: parquet_bytes(pa.Table.from_pylist(rows, _SCHEMA)), CALIBRATION: parquet_bytes(levels)}
    digests = [hashlib.sha256(contents[name]).hexdigest() for name in (THRESHOLDS, CALIBRATION)]
    hashes = dict(zip(("thresholds_sha256", "calibration_sha256"), digests, strict=True))
    found = validate(EnsembleFacts, {**facts, **hashes}, where=f"{uri}/{FACTS}")
    for name, content in contents.items():
        write_file(f"{uri}/{name}", content)
    described = yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False).encode()
    write_file(f"{uri}/{FACTS}", described)
    return found, hashlib.sha256(described).hexdigest()


def load_ensemble(uri: str, overlay: Overlay) -> FittedEnsemble:
    """Load an artefact from the folder `uri`, for the overlay that it was fitted over.

    InputError if a file is missing or was changed, or if the overlay has another hash; ConfigError if `ensemble.yaml`
    is of a later version.
    """
    content = read_yaml(f"{uri}/{FACTS}")
    refuse_later(content, VERSION, where=uri)
    facts = validate(EnsembleFacts, content, where=f"{uri}/{FACTS}")
    if facts.overlay != overlay.digest:
        raise InputError(
            f"the ensemble was fitted over another overlay: hash {facts.overlay[:12]}, not {overlay.digest[:12]}",
            where=uri,
            hint="fit it over this overlay, or read the one that it was fitted over",
        )
    table = read_unchanged(f"{uri}/{THRESHOLDS}", facts.thresholds_sha256)
    rows = pq.read_table(pa.BufferReader(table)).to_pylist()
    members = tuple(
        EnsembleMember(member.name, member.partition, member.weight, member.temperature) for member in facts.members
    )
    coverages = sorted({row["coverage"] for row in rows})
    marginal, by_stratum = {}, {}
    for coverage in coverages:
        own = {row["stratum"]: row["threshold"] for row in rows if row["coverage"] == coverage}
        marginal[coverage] = ConformalSets(coverage, np.array([own.pop(_ALL)]), None)
        if facts.strata is not None:
            thresholds = np.array([own[k] for k in [*range(len(own) - 1), -1]])
            stratum = overlay.labels[:, overlay.column(facts.strata)]
            by_stratum[coverage] = ConformalSets(
                coverage, thresholds, np.where(stratum < 0, len(thresholds) - 1, stratum)
            )
    calibration = None
    if facts.calibration_sha256 is not None:
        stored = read_unchanged(f"{uri}/{CALIBRATION}", facts.calibration_sha256)
        levels = pq.read_table(pa.BufferReader(stored))
        calibration = Calibration(levels["credible_level"].to_numpy(), levels["entropy"].to_numpy())
    return FittedEnsemble(facts, Ensemble(overlay, members), marginal, by_stratum, calibration)
