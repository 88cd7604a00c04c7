"""Configuration of `evaluate`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from geosieve.evaluation.estimates import ALL, Plan
from geosieve.evaluation.inputs import ListTruth, System
from geosieve.evaluation.scoring import CONTINENT
from geosieve.evaluation.truth import TableTruth
from geosieve.job.publishing import JobConfig
from geosieve.runtime.names import did_you_mean

ProtocolName = Literal["geoestimation", "osv5m", "pigeon", "geoclip", "g3"]
_EVERY: tuple[ProtocolName, ...] = get_args(ProtocolName)


class EvaluateConfig(JobConfig):
    """Configuration of `evaluate`."""

    truth: Annotated[ListTruth | TableTruth, Field(discriminator="format")]
    systems: list[System] = Field(min_length=1)
    baseline: str | None = Field(
        None, description="the system that all others are compared to; by default the first one"
    )
    protocols: list[ProtocolName] = Field(list(_EVERY), min_length=1)
    places: bool = Field(True, description="compare country, region, area and city, which reverse_geocoder looks up")
    continent: bool = Field(True, description="add the continent of the true position as a stratum")
    balance: str | None = Field(
        None, description="name of a stratum; adds figures in which each of its values has the same weight"
    )
    unmatched: Literal["error", "reject"] = Field(
        "error", description="what to do with predictions for images that the truth does not have"
    )
    most_refused: float = Field(
        0.01,
        ge=0,
        le=1,
        description="largest share of a list's rows that may be refused; rows that exclude_ids leaves out do not count",
    )
    samples: int = Field(1000, ge=100, le=10_000, description="number of bootstrap samples")
    seed: int = Field(0, ge=0, lt=2**63)
    confidence: float = Field(0.95, gt=0.5, lt=1)

    @model_validator(mode="after")
    def _names(self) -> EvaluateConfig:
        names = [system.name for system in self.systems]
        if len(set(names)) < len(names):
            raise ValueError(f"systems: a name stands twice in {names}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: {self.baseline!r} is none of the systems {', '.join(names)}")
        if len(set(self.protocols)) < len(self.protocols):
            raise ValueError(f"protocols: a name stands twice in {self.protocols}")
        strata = list(self.truth.strata)
        reserved = {ALL, CONTINENT} & set(strata) if self.continent else {ALL} & set(strata)
        if reserved or len(set(strata)) < len(strata):
            raise ValueError(f"truth.strata: {', '.join(sorted(reserved)) or 'a name'} cannot stand there (twice)")
        strata += [CONTINENT] if self.continent else []
        if self.balance is not None and self.balance not in strata:
            near = did_you_mean(self.balance, strata)
            raise ValueError(f"balance: {self.balance!r} is none of the strata {', '.join(strata) or '(none)'}; {near}")
        return self

    def plan(self) -> Plan:
        """The settings of the estimation."""
        return Plan(tuple(self.protocols), self.samples, self.seed, self.confidence, self.balance, self.baseline)
