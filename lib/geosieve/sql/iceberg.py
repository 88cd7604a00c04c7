"""Committed runs in Apache Iceberg, without a copy: the catalogue lists files that stay where they are.

Iceberg is an index here. A run becomes visible by one commit that adds exactly the files of its manifest, with its
partition values; of two that register it at once, one loses against the other's files and finds them there. Iceberg's
`gc.enabled` is off, so that none of its maintenance ever deletes a file of ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

from geosieve.runtime import jars
from geosieve.runtime.errors import ConfigError, GeosieveError, InputError, IntegrityError, RetryableError
from geosieve.sql.config import Catalog, GlueCatalog, RestCatalog, SqliteCatalog
from geosieve.tables.read import Run

CATALOG = "geosieve_sql"
"""Name of the catalogue in Spark's session, and in SQLite."""
DATABASE = "catalog.db"
_TRIES = 5
_MAPPING = "schema.name-mapping.default"

# Those of Iceberg's JdbcCatalog, schema version V1. It would make them itself, but then two processes block each other.
_SQLITE_TABLES = """
PRAGMA journal_mode=WAL;
CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL, table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name));
CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL, namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000), PRIMARY KEY (catalog_name, namespace, property_key));
"""
_PROPERTIES = {
    "gc.enabled": "false",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "5",
}


def connect(spark: SparkSession, catalog: Catalog) -> None:
    """Make the catalogue known to the session as CATALOG; a SQLite file is made if it is absent.

    ConfigError if a jar or an environment variable is missing; errors of a server as in `explained`.
    """
    jars.check(spark, jars.ICEBERG)
    match catalog:
        case SqliteCatalog():
            settings = _of_sqlite(catalog)
        case GlueCatalog():
            settings = _of_glue(spark, catalog)
        case RestCatalog():
            settings = _of_rest(spark, catalog)
    # Spark keeps a catalogue once it is used, be it of another folder.
    manager = spark._jsparkSession.sessionState().catalogManager()
    manager.reset()
    for name in _set_before(spark):
        spark.conf.unset(name)
    for name, value in {
        "": "org.apache.iceberg.spark.SparkCatalog",
        ".cache-enabled": "false",  # others commit meanwhile
        **settings,
    }.items():
        spark.conf.set(f"spark.sql.catalog.{CATALOG}{name}", value)
    # A catalogue is made from the settings of the active session.
    spark._jvm.SparkSession.setActiveSession(spark._jsparkSession)  # type: ignore[union-attr]
    with explained(spark, catalog):
        manager.catalog(CATALOG)  # a server is asked here, before anything is changed


@contextmanager
def explained(spark: SparkSession, catalog: Catalog) -> Iterator[None]:
    """Inside the block, the failures of a REST server become errors that say what to do, without its secrets.

    ConfigError if it lets nobody in with these secrets, or is no catalogue; RetryableError if it does not answer, or
    fails. Other errors are raised unchanged.
    """
    try:
        yield
    except Exception as failure:
        # Errors of this module may have been made from one of py4j's.
        java = next((one for one in (failure, failure.__cause__) if isinstance(one, Py4JJavaError)), None)
        known = _explanation(spark, catalog, java) if isinstance(catalog, RestCatalog) and java is not None else None
        if known is None:
            raise
        raise known from None  # the text of Java's error may have what `known` leaves out


def _explanation(spark: SparkSession, catalog: RestCatalog, error: Py4JJavaError) -> GeosieveError | None:
    cause, reason = error.java_exception, error.java_exception.getCause()
    kind, what = str(cause.getClass().getSimpleName()), str(cause.getMessage())
    variable = catalog.token_variable or catalog.credential_variable
    if variable is not None:  # a server may repeat what it was told
        for secret in filter(None, _secret(spark, variable).split(":", 1)):  # an id and its secret, or a token
            what = what.replace(secret, "***")
    what = what[:300]
    match kind:
        case "NotAuthorizedException" | "ForbiddenException":
            hint = "give token_variable or credential_variable, names of environment variables"
            if variable is not None:
                hint = f"look at the environment variable {variable}, and at what its owner may do there"
            return ConfigError(f"the catalogue refuses: {what}", where=catalog.uri, hint=hint)
        # Not sent; or else not understood, by Jackson.
        case "RESTException" if reason is not None and ".jackson." not in str(reason.getClass().getName()):
            return RetryableError(
                f"the catalogue does not answer: {str(reason.getMessage())[:300]}",
                where=catalog.uri,
                hint="is it running, and is this its address? Then run the job again",
            )
        case "RESTException" | "BadRequestException":
            return ConfigError(
                f"no such catalogue: {what}", where=catalog.uri, hint="look at uri, warehouse and oauth2_server_uri"
            )
        case "ServiceUnavailableException" | "ServiceFailureException" | "CommitStateUnknownException":
            return RetryableError(
                f"the catalogue fails: {what}", where=catalog.uri, hint="run the job again: it does what is left"
            )
    return None


def _set_before(spark: SparkSession) -> list[str]:
    """The session's settings of the catalogue: one of another kind has others."""
    names = [str(row["key"]) for row in spark.sql("SET").collect()]
    return [name for name in names if name.startswith(f"spark.sql.catalog.{CATALOG}")]


def _of_sqlite(catalog: SqliteCatalog) -> dict[str, str]:
    folder = Path(catalog.folder.removeprefix("file://")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / DATABASE, timeout=20)) as database:
        database.executescript(_SQLITE_TABLES)
    return {
        ".type": "jdbc",
        ".uri": f"jdbc:sqlite:{folder}/{DATABASE}?journal_mode=WAL&busy_timeout=20000",
        ".warehouse": f"file://{folder}/iceberg",
        ".jdbc.schema-version": "V1",
        ".jdbc.init-catalog-tables": "false",
    }


def _of_glue(spark: SparkSession, catalog: GlueCatalog) -> dict[str, str]:
    """Without credentials: Iceberg's clients find them, and the region, in the environment themselves."""
    jars.check(spark, jars.ICEBERG_AWS)
    settings = {
        ".type": "glue",
        ".warehouse": catalog.warehouse,
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
    }
    if catalog.endpoint is not None:
        settings[".glue.endpoint"] = catalog.endpoint
    if catalog.s3_endpoint is not None:
        settings |= {".s3.endpoint": catalog.s3_endpoint, ".s3.path-style-access": "true"}
    return settings


def _of_rest(spark: SparkSession, catalog: RestCatalog) -> dict[str, str]:
    """Without secrets: Iceberg reads `env:NAME` as the value of the variable. Settings are shown in Spark's UI."""
    settings = {".type": "rest", ".uri": catalog.uri}
    given = {
        ".warehouse": catalog.warehouse,
        ".oauth2-server-uri": catalog.oauth2_server_uri,
        ".scope": catalog.scope,
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    variables = {".token": catalog.token_variable, ".credential": catalog.credential_variable}
    for name, variable in variables.items():
        if variable is not None:
            _secret(spark, variable)
            settings[name] = f"env:{variable}"
    return settings


def _secret(spark: SparkSession, variable: str) -> str:
    """The value of an environment variable of the driver's JVM. ConfigError if it has none."""
    found = spark._jvm.java.lang.System.getenv(variable)  # type: ignore[union-attr]
    if not found:
        raise ConfigError(
            f"the environment variable {variable} is not set",
            where="driver",
            hint="set it where the driver starts, to what the catalogue wants",
        )
    return str(found)


@dataclass(frozen=True)
class IcebergTable:
    """A table of the catalogue. `folders`: its partition columns, in the order of the folders."""

    spark: SparkSession
    name: str
    folders: tuple[str, ...]

    @classmethod
    def prepared(
        cls, spark: SparkSession, namespace: str, table: str, schema: StructType, folders: tuple[str, ...]
    ) -> IcebergTable:
        """The table, made if it is absent. Columns that it lacks are added; they are null in earlier runs.

        `schema`: of the files. InputError if a column has another type than in earlier runs.
        """
        place = f"{CATALOG}.{namespace}"
        _make(spark, f"CREATE NAMESPACE IF NOT EXISTS {place}", place, spark.catalog.databaseExists)
        found = cls(spark, f"{place}.{table}", folders)
        columns = ", ".join(
            [f"`{field.name}` {field.dataType.simpleString()}" for field in schema]
            + [f"`{name}` string" for name in folders]
        )
        partitioned = ", ".join(f"`{name}`" for name in folders)
        properties = ", ".join(f"'{key}'='{value}'" for key, value in _PROPERTIES.items())
        statement = (
            f"CREATE TABLE IF NOT EXISTS {found.name} ({columns}) USING iceberg PARTITIONED BY ({partitioned}) "
            f"TBLPROPERTIES ({properties})"
        )
        _make(spark, statement, found.name, spark.catalog.tableExists)
        found._widen(schema)
        return found

    @classmethod
    def existing(cls, spark: SparkSession, namespace: str, table: str, folders: tuple[str, ...]) -> IcebergTable | None:
        """The table, or None if the catalogue has no such table."""
        found = cls(spark, f"{CATALOG}.{namespace}.{table}", folders)
        return found if spark.catalog.tableExists(found.name) else None

    def _widen(self, schema: StructType) -> None:
        """Add the columns of a schema, and map names of columns, since our files have no numbers of them."""
        jvm: Any = self.spark._jvm
        iceberg = jvm.org.apache.iceberg
        wanted = iceberg.spark.SparkSchemaUtil.convert(jvm.org.apache.spark.sql.types.DataType.fromJson(schema.json()))
        for _ in range(_TRIES):
            try:
                table = self._load()
                update = table.updateSchema().unionByNameWith(wanted)
                if not update.apply().sameSchema(table.schema()):
                    update.commit()
                by_name = iceberg.mapping.MappingUtil.create(self._load().schema())
                mapping = iceberg.mapping.NameMappingParser.toJson(by_name)
                if table.properties().get(_MAPPING) != mapping:
                    self._load().updateProperties().set(_MAPPING, mapping).commit()
                return
            except Py4JJavaError as error:
                if not _is(error, "CommitFailedException"):
                    raise InputError(
                        f"a column has another type than in earlier runs: {_message(error)}",
                        where=self.name,
                        hint="register these runs in another namespace",
                    ) from error
        raise RetryableError("others change the table again and again", where=self.name)

    def _load(self) -> Any:
        jvm: Any = self.spark._jvm
        return jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(self.spark._jsparkSession, self.name)

    def register(self, run: Run) -> bool:
        """Make a committed run visible, and those that it replaces invisible, in one commit. False if it is already.

        IntegrityError if the catalogue has other files under its name; RetryableError if others are faster each time.
        """
        for _ in range(_TRIES):
            table = self._load()
            # Athena reads s3:// alone, and a table in Glue lies there; S3A is Hadoop's name of the same.
            uri = run.uri.replace("s3a://", "s3://") if str(table.location()).startswith("s3://") else run.uri
            wanted = {f"{uri}/{name}" for name in run.files}
            condition, before = self._condition(run.values), self._replaced(run)
            there = _files(table, condition)
            found = {uri: self._measured(table, uri) for uri in wanted - there}
            new = {uri: file for uri, file in found.items() if file[1].recordCount() > 0}  # others are never listed
            outdated = before is not None and bool(_files(table, before))
            if not there - wanted and not new and not outdated:
                return False
            if there - wanted or (there and new):
                raise IntegrityError(
                    f"{len(there)} files are registered, {len(wanted)} are committed, and they differ",
                    where=run.uri,
                    hint="retire the run from the catalogue, then register it again",
                )
            try:
                self._exchange(table, run, new, condition, before)
                return True
            except Py4JJavaError as error:
                if not (_is(error, "ValidationException") or _is(error, "CommitFailedException")):
                    raise
        raise RetryableError("others register files of this run again and again", where=run.uri)

    def remove(self, values: Mapping[str, str]) -> bool:
        """Make the run with these partition values invisible. False if nothing of it was there. No file is touched."""
        for _ in range(_TRIES):
            table, condition = self._load(), self._condition(values)
            if not _files(table, condition):
                return False
            try:
                change = table.newDelete().deleteFromRowFilter(condition)
                change.set("geosieve.retired_run_id", values["run_id"]).commit()
                return True
            except Py4JJavaError as error:
                if not _is(error, "CommitFailedException"):
                    raise
        raise RetryableError("others change the table again and again", where=self.name)

    def _measured(self, table: Any, uri: str) -> tuple[Any, Any]:
        """A file as Iceberg opens it, and its number of rows and bounds of columns."""
        iceberg = self.spark._jvm.org.apache.iceberg  # type: ignore[union-attr]
        mapping = iceberg.mapping.NameMappingParser.fromJson(table.properties().get(_MAPPING))
        file = table.io().newInputFile(uri)
        return file, iceberg.parquet.ParquetUtil.fileMetrics(file, iceberg.MetricsConfig.forTable(table), mapping)

    def _condition(self, values: Mapping[str, str]) -> Any:
        expressions: Any = self.spark._jvm.org.apache.iceberg.expressions.Expressions  # type: ignore[union-attr]
        found = expressions.alwaysTrue()
        for name in self.folders:
            found = getattr(expressions, "and")(found, expressions.equal(name, values[name]))
        return found

    def _replaced(self, run: Run) -> Any:
        """The condition of the runs that a run replaces, or None."""
        if not run.replaces:
            return None
        expressions: Any = self.spark._jvm.org.apache.iceberg.expressions.Expressions  # type: ignore[union-attr]
        found = getattr(expressions, "in")("run_id", self.spark._jvm.java.util.ArrayList(sorted(run.replaces)))  # type: ignore[union-attr]
        for name in self.folders[:-1]:
            found = getattr(expressions, "and")(found, expressions.equal(name, run.values[name]))
        return found

    def _exchange(
        self, table: Any, run: Run, files: Mapping[str, tuple[Any, Any]], condition: Any, outdated: Any
    ) -> None:
        """Add files and take out those under the condition `outdated`, unless others have changed either meanwhile."""
        jvm: Any = self.spark._jvm
        values = jvm.java.util.ArrayList([run.values[name] for name in self.folders])
        change = table.newOverwrite()
        if outdated is not None:
            change = change.overwriteByRowFilter(outdated)
            condition = getattr(jvm.org.apache.iceberg.expressions.Expressions, "or")(condition, outdated)
        change = change.conflictDetectionFilter(condition).validateNoConflictingData()
        base = table.currentSnapshot()
        if base is not None:
            change = change.validateFromSnapshot(base.snapshotId())
        for _, (file, metrics) in sorted(files.items()):
            builder = jvm.org.apache.iceberg.DataFiles.builder(table.spec()).withInputFile(file).withFormat("parquet")
            change = change.addFile(builder.withPartitionValues(values).withMetrics(metrics).build())
        change.set("geosieve.run_id", run.run_id).commit()


def _make(spark: SparkSession, statement: str, name: str, exists: Callable[[str], bool]) -> None:
    """Make a namespace or table, if another process has not made it meanwhile; `IF NOT EXISTS` may fail then."""
    try:
        spark.sql(statement)
    except Exception as error:
        if not exists(name):
            raise RetryableError(f"it cannot be made: {str(error)[:300]}", where=name) from error


def _files(table: Any, condition: Any) -> set[str]:
    """The files of a table under a condition on its partition columns."""
    planned = table.newScan().filter(condition).planFiles()
    found, tasks = set(), planned.iterator()
    while tasks.hasNext():
        found.add(str(tasks.next().file().location()))
    planned.close()
    return found


def _is(error: Py4JJavaError, kind: str) -> bool:
    return str(error.java_exception.getClass().getSimpleName()) == kind


def _message(error: Py4JJavaError) -> str:
    return str(error.java_exception.getMessage())[:300]
