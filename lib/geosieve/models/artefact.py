"""Predictor artefacts: a trained network as a folder that the rest of the system can trust.

    predictor.json       what it is: partitions by hash, preprocessing, rules, temperatures, metrics, and the SHA-256
                         of every other file
    weights.safetensors  for PyTorch
    network.onnx         the same for ONNX Runtime, several times as fast on a CPU; if it was asked for
    regions-NAME.parquet the regions of each partition
    model_card.md

`predictor.json` is written last. Nothing in the folder is pickled. This module needs no PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field

from geosieve.models.preprocessing import OverCrops, Preprocessing
from geosieve.runtime.config import Config, refuse_later, validate
from geosieve.runtime.errors import InputError
from geosieve.runtime.store import read_file, read_unchanged

FACTS, WEIGHTS, GRAPH, CARD = "predictor.json", "weights.safetensors", "network.onnx", "model_card.md"
VERSION = 1
"""Of the format."""

_LARGEST_FACTS = 16 << 20  # bytes


class PartitionOfPredictor(Config):
    """A partition that a predictor tells, and how good it is. `temperature`: logits are divided by it."""

    name: str
    hash: str = Field(min_length=1)
    regions: int = Field(ge=1)
    temperature: float = Field(1.0, gt=0)
    metrics: dict[str, Any] = Field({}, description="of the validation split, at the temperature")


class PredictorFacts(Config):
    """What `predictor.json` says."""

    version: Literal[1] = 1
    name: str
    kind: Literal["classifier"] = "classifier"
    backbone: str
    partitions: list[PartitionOfPredictor] = Field(min_length=1)
    family: list[str] = []
    preprocessing: Preprocessing
    over_crops: OverCrops = "mean"
    shards: str = Field(description="URI of the run of training shards")
    training: dict[str, Any] = Field(description="the effective configuration of the training")
    code: dict[str, str] = Field(description="versions of this package and of what it computes with")
    licence: str | None = None
    files: dict[str, str] = Field(description="SHA-256 of the other files, by name")


def regions_file(partition: str) -> str:
    """The name of the file of a partition's regions."""
    return f"regions-{partition}.parquet"


def read_facts(uri: str) -> tuple[PredictorFacts, str]:
    """What `predictor.json` in the folder `uri` says, and its SHA-256 in hex.

    InputError if it is missing or something else; ConfigError if it is of a later version.
    """
    where = f"{uri}/{FACTS}"
    content = read_file(where)
    try:
        given = json.loads(content) if len(content) <= _LARGEST_FACTS else None
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InputError("not the description of a predictor", where=where)
    refuse_later(given, VERSION, where)
    return validate(PredictorFacts, given, where=where), hashlib.sha256(content).hexdigest()


def read_part(uri: str, facts: PredictorFacts, name: str) -> bytes:
    """The content of another file of the folder. InputError if it is missing, or its SHA-256 is another."""
    if name not in facts.files:
        raise InputError(f"the predictor has no {name}", where=f"{uri}/{FACTS}")
    if "/" in name or name.startswith("."):
        raise InputError(f"{FACTS} names a file outside of the folder: {name!r}", where=uri)
    return read_unchanged(f"{uri}/{name}", facts.files[name])
