"""Configuration of the jobs that keep the tables: `register_tables`, `retire_runs` and `compact`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from geosieve.runtime.config import Config
from geosieve.runtime.names import advice
from geosieve.tables.schemas import ALL

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class SqliteCatalog(Config):
    """A catalogue in one file, for one machine."""

    kind: Literal["sqlite"]
    folder: str = Field(min_length=1, description="local folder of catalog.db and of the tables' metadata")


class GlueCatalog(Config):
    """AWS Glue. Credentials and region come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, …) only."""

    kind: Literal["glue"]
    warehouse: str = Field(
        pattern=r"^s3://[^/@]+/.+", description="folder of the tables' metadata, outside of the root of the tables"
    )
    endpoint: str | None = Field(None, pattern=r"^https?://[^@]+$", description="of Glue; null: that of AWS")
    s3_endpoint: str | None = Field(None, pattern=r"^https?://[^@]+$", description="of S3; null: that of AWS")


Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
"""Name of an environment variable of the driver."""


class RestCatalog(Config):
    """A server of Iceberg's REST catalogue. Secrets come from environment variables; here are their names only."""

    kind: Literal["rest"]
    uri: str = Field(pattern=r"^https?://[^@?#]+$", description="of the server, without /v1")
    warehouse: str | None = Field(None, description="as the server calls it; null: the server has one only")
    token_variable: Variable | None = Field(None, description="environment variable with a bearer token")
    credential_variable: Variable | None = Field(
        None, description="environment variable with `id:secret` of an OAuth2 client, for which a token is given"
    )
    oauth2_server_uri: str | None = Field(
        None, pattern=r"^https?://[^@?#]+$", description="where tokens are given; null: at the catalogue itself"
    )
    scope: str | None = Field(None, description="of the token that is asked for; null: catalog")

    @model_validator(mode="after")
    def _one_way_in(self) -> RestCatalog:
        if self.token_variable is not None and self.credential_variable is not None:
            raise ValueError("give token_variable or credential_variable, not both")
        if self.credential_variable is None and (self.oauth2_server_uri is not None or self.scope is not None):
            raise ValueError("oauth2_server_uri and scope need credential_variable")
        return self


Catalog = Annotated[SqliteCatalog | GlueCatalog | RestCatalog, Field(discriminator="kind")]


def _known_tables(tables: list[str] | None) -> list[str] | None:
    names = [table.name for table in ALL]
    for name in tables or ():
        if name not in names:
            raise ValueError(f"no table {name!r}: {advice(name, names, 'tables')}")
    return tables


class RegisterConfig(Config):
    """Configuration of `register_tables`."""

    version: Literal[1] = 1
    root: str = Field(min_length=1, description="root folder of the tables, whose committed runs are registered")
    catalog: Catalog
    namespace: Name = Field("geosieve", description="of the tables in the catalogue")
    tables: list[str] | None = Field(None, min_length=1, description="null: all that have committed runs")

    _known = field_validator("tables")(_known_tables)


class Chosen(Config):
    """Which runs to retire: exactly one of these."""

    runs: list[str] | None = Field(None, min_length=1, description="ids of the runs")
    older_than_days: float | None = Field(None, gt=0, description="committed before so many days")
    all_but_newest: int | None = Field(None, ge=1, description="of each table and combination of partition values")
    replaced: Literal[True] | None = Field(None, description="those whose place another run has taken (`compact`)")

    @model_validator(mode="after")
    def _one(self) -> Chosen:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("give exactly one of runs, older_than_days, all_but_newest, replaced")
        return self


class RetireConfig(Config):
    """Configuration of `retire_runs`."""

    version: Literal[1] = 1
    root: str = Field(min_length=1, description="root folder of the tables")
    tables: list[str] | None = Field(None, min_length=1, description="null: all")
    values: dict[str, str] = Field({}, description="partition values, e.g. ranking; tables without them are left")
    retire: Chosen
    grace_days: float = Field(7, ge=0, description="from leaving the catalogue until files are deleted")
    catalog: Catalog | None = Field(description="catalogue that the runs may be in; null: none")
    namespace: Name = Field("geosieve", description="of the tables in the catalogue")
    checksum: str | None = Field(
        None,
        pattern=r"^(\d+-){4}[0-9a-f]{16}$",
        description="of the list that a run without it has printed; null: only print",
    )

    _known = field_validator("tables")(_known_tables)

    @field_validator("values")
    @classmethod
    def _columns(cls, values: dict[str, str]) -> dict[str, str]:
        names = {column.name for table in ALL for column in table.partitions}
        for name in values:
            if name not in names:
                raise ValueError(f"no partition column {name!r}: {advice(name, names, 'columns')}")
        return values


class CompactConfig(Config):
    """Configuration of `compact`."""

    version: Literal[1] = 1
    root: str = Field(min_length=1, description="root folder of the tables")
    ranking: str = Field(min_length=1, description="name of the ranking whose small runs become one")
    small_mib: float = Field(256, gt=0, description="runs with more bytes in all tables, in MiB, stay as they are")
