"""Configuration of the partitions that a job uses: names of definition files, or definitions in place."""

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
    """Where the committed raster catalogues are, and which run to read."""

    root: str
    run: RunId = Field("latest", description="a run id or `latest`")


READY_MADE = Path(__file__).parent / "definitions"
"""Folder of the definitions that are part of the package, so that a job finds them wherever it runs."""


def look_up(entry: Any, folder: str | None) -> PartitionDefinition:
    """Return the definition for an entry of `partitions`: a mapping, or a name.

    A name is looked up in `folder`, if given, and then among the ready-made definitions.

    ConfigError, with the most similar name, if there is no such definition; also if the definition is invalid.
    """
    if isinstance(entry, dict):
        return parse_definition(entry, "partitions")
    if isinstance(entry, bool) or not isinstance(entry, str | int | float):
        raise ConfigError(
            f"{json.dumps(entry)} is no name of a partition", where="partitions", hint="if it is one, put it in quotes"
        )
    folders = [Path(folder), READY_MADE] if folder else [READY_MADE]
    for path in (place / f"{entry}.yaml" for place in folders):
        if path.exists():
            return parse_definition({"name": entry, **read_yaml(path)}, str(path))
    known = sorted({file.stem for place in folders for file in place.glob("*.yaml")})
    raise ConfigError(
        f"there is no partition {str(entry)!r}",
        where=" or ".join(map(str, folders)),
        hint=advice(str(entry), known, "there are"),
    )


class PartitionsConfig(Config):
    """The partitions of a job, each given by the name of a definition or by the definition itself."""

    rasters: RastersInput
    definitions: str | None = Field(
        None, description="folder of further partition definitions; those inside the package are always known"
    )
    partitions: list[SerializeAsAny[PartitionDefinition]] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _look_up(cls, content: Any) -> Any:
        """Replace names by the definitions in their files, so that the effective configuration is complete."""
        if not isinstance(content, dict) or not isinstance(content.get("partitions"), list):
            return content
        folder = content.get("definitions")
        return {**content, "partitions": [look_up(entry, folder) for entry in content["partitions"]]}

    @model_validator(mode="after")
    def _unique(self) -> PartitionsConfig:
        names = [definition.name for definition in self.partitions]
        if len(set(names)) < len(names):
            raise ValueError(f"partitions: a name stands twice in {names}")
        return self
