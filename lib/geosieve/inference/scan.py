"""What a scan of an archive has to look at: files that are new, or that earlier runs are not done with."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from geosieve.images import archived, photos
from geosieve.images.photo_rows import SCHEMA
from geosieve.images.sources import PhotoSource
from geosieve.tables.read import Run, committed_runs, latest_rows, read_runs
from geosieve.tables.schema import Table
from geosieve.tables.schemas import REJECTS, SCANNED_FILES

_FACTS = ("uri", "bytes", "modified_at")


@dataclass(frozen=True)
class Earlier:
    """The committed runs of a ranking whose answers depend on the same things."""

    spark: SparkSession
    root: str
    ranking: str
    source: str
    model_set: str

    def rows(self, table: Table) -> DataFrame:
        """All rows of a table."""
        runs = self._runs(table, ranking=self.ranking)
        return self._read(table, runs) if runs else self.spark.createDataFrame([], table.spark_schema())

    def done(self, job: str, retry: list[str]) -> DataFrame | None:
        """Files that need not be looked at again, as they were then: _FACTS; None if there is no earlier run."""
        runs = self._runs(SCANNED_FILES, ranking=self.ranking)
        if not runs:
            return None
        files = self._read(SCANNED_FILES, runs).where(F.col("source") == self.source)
        # Of a file that was looked at several times, the last time counts: an error may be gone.
        latest = latest_rows(files, runs, "uri").groupBy("run_id", *_FACTS)
        found = latest.agg(F.max("images_left").alias("left")).where("left = 0")
        refused = self._runs(REJECTS, job=job, part=self.ranking)
        if refused and retry:
            failed = read_runs(self.spark, self.root, REJECTS, refused).where(F.col("error_class").isin(retry))
            found = found.join(failed.select("uri", "run_id").distinct(), ["uri", "run_id"], "left_anti")
        return found.select(*_FACTS)

    def _read(self, table: Table, runs: list[Run]) -> DataFrame:
        return read_runs(self.spark, self.root, table, runs).where(F.col("model_set") == self.model_set)

    def _runs(self, table: Table, **values: str) -> list[Run]:
        return committed_runs(self.spark, self.root, table, **values)


@dataclass(frozen=True)
class Work:
    """What is to be looked at, or one part of it.

    `files`: rows of `photos.photo_files`. `archives`: the same of archives. `members`: references to what they contain.
    """

    source: PhotoSource
    folder: str
    files: DataFrame
    archives: DataFrame
    members: DataFrame

    def is_empty(self) -> bool:
        """Whether there is nothing to look at."""
        return self.files.isEmpty() and self.members.isEmpty()

    def part(self, k: int, parts: int) -> Work:
        """Part `k` of `parts`, by a hash of the names: the same in every attempt."""
        if parts == 1:
            return self
        files = self.files.where(f"pmod(xxhash64(uri), {parts}) = {k}")
        return Work(
            self.source,
            self.folder,
            files,
            self.archives,
            self.members.where(f"pmod(xxhash64(uri, coalesce(name, '')), {parts}) = {k}"),
        )

    def rows(self) -> DataFrame:
        """The images, good and refused, as rows of `photo_rows.SCHEMA`. Each file is read."""
        found = photos.read_photos(self.files, self.folder, self.source.limits, fingerprint=True)
        members, _ = archived.read_archived(self.members, self.folder, self.source.limits, fingerprint=True)
        return found.unionByName(members).select(*SCHEMA.names)

    def touched(self) -> DataFrame:
        """The files of which there is something: _FACTS."""
        archives = self.archives.join(self.members.select("uri").distinct(), "uri", "left_semi")
        return self.files.select(*_FACTS).unionByName(archives.select(*_FACTS))


@dataclass(frozen=True)
class Listed:
    """What there is in a folder: numbers of files and archives, and those of which there is something to do."""

    folder: str
    files: int
    archives: int
    new_files: DataFrame
    new_archives: DataFrame


def list_source(spark: SparkSession, source: PhotoSource, done: DataFrame | None) -> Listed:
    """List a folder. `done`: files that are passed over; None: none are."""
    folder = photos.photo_folder(spark, source.uri)
    listing = photos.list_photos(spark, folder, source.limits)
    files = photos.photo_files(spark, listing, source.limits)
    archives = photos.file_rows(spark, [(file, None) for file in listing.archives])
    if done is not None:
        files, archives = (of.join(done, list(_FACTS), "left_anti") for of in (files, archives))
    return Listed(folder, listing.files, len(listing.archives), files, archives)
