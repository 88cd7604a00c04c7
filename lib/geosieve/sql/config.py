"""Configuration of `register_tables`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from geosieve.runtime.config import Config
from geosieve.runtime.names import advice
from geosieve.tables.schemas import ALL

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class SqliteCatalog(Config):
    """A catalogue in one file, for one machine."""

    kind: Literal["sqlite"]
    folder: str = Field(min_length=1, description="local folder of catalog.db and of the tables' metadata")


class RegisterConfig(Config):
    """Configuration of `register_tables`."""

    version: Literal[1] = 1
    root: str = Field(min_length=1, description="root folder of the tables, whose committed runs are registered")
    catalog: SqliteCatalog
    namespace: Name = Field("geosieve", description="of the tables in the catalogue")
    tables: list[str] | None = Field(None, min_length=1, description="null: all that have committed runs")

    @field_validator("tables")
    @classmethod
    def _known(cls, tables: list[str] | None) -> list[str] | None:
        names = [table.name for table in ALL]
        for name in tables or ():
            if name not in names:
                raise ValueError(f"no table {name!r}: {advice(name, names, 'tables')}")
        return tables
