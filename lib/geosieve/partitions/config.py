"""Which partitions a job works with: names of definitions, or definitions written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, SerializeAsAny, model_validator

from geosieve.partitions.base import PartitionDefinition, parse_definition
from geosieve.runtime.config import Config, RunId, read_yaml
from geosieve.runtime.errors import ConfigError
from geosieve.runtime.names import advice


class RastersInput(Config):
    """Committed runs of `raster_catalog`."""

    root: str
    run: RunId = Field("latest", description="a run id or `latest`")


def look_up(entry: Any, folder: str) -> PartitionDefinition:
    """The definition in `folder` of a name, or a definition that is written out.

    ConfigError names the nearest of the partitions in `folder`.
    """
    if isinstance(entry, dict):
        return parse_definition(entry, "partitions")
    if isinstance(entry, bool) or not isinstance(entry, str | int | float):
        raise ConfigError(
            f"{json.dumps(entry)} is no name of a partition", where="partitions", hint="if it is one, put it in quotes"
        )
    path = Path(folder) / f"{entry}.yaml"
    if not path.exists():
        known = (file.stem for file in Path(folder).glob("*.yaml"))
        raise ConfigError(
            f"there is no partition {str(entry)!r}", where=folder, hint=advice(str(entry), known, "its partitions")
        )
    return parse_definition({"name": entry, **read_yaml(path)}, str(path))


class PartitionsConfig(Config):
    """A job's partitions. A partition is a name in `definitions`, or a definition written out."""

    rasters: RastersInput
    definitions: str = "conf/partitions"
    partitions: list[SerializeAsAny[PartitionDefinition]] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _look_up(cls, content: Any) -> Any:
        """Replace names by the definitions in their files, so that the effective configuration holds them whole."""
        if not isinstance(content, dict) or not isinstance(content.get("partitions"), list):
            return content
        folder = content.get("definitions", "conf/partitions")
        return {**content, "partitions": [look_up(entry, folder) for entry in content["partitions"]]}

    @model_validator(mode="after")
    def _unique(self) -> PartitionsConfig:
        names = [definition.name for definition in self.partitions]
        if len(set(names)) < len(names):
            raise ValueError(f"partitions: a name stands twice in {names}")
        return self
