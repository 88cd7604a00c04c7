"""Files on any store that Hadoop knows (file, hdfs, s3a), through the session's JVM."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from geosieve.runtime.errors import InputError, RetryableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class FileInfo:
    uri: str
    name: str
    size: int
    is_folder: bool


class Files:
    """Small operations on paths given as URIs or local paths. Errors of the store are raised by py4j."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark._jvm
        self._conf = spark._jsc.hadoopConfiguration()

    def _at(self, uri: str) -> tuple[Any, Any]:
        path = self._jvm.org.apache.hadoop.fs.Path(uri)
        return path.getFileSystem(self._conf), path

    def exists(self, uri: str) -> bool:
        store, path = self._at(uri)
        return bool(store.exists(path))

    def list(self, uri: str) -> Sequence[FileInfo]:
        """Entries of a folder in the order of their names; empty when there is no such folder."""
        store, path = self._at(uri)
        if not store.exists(path):
            return []
        return sorted((_info(status) for status in store.listStatus(path)), key=lambda entry: entry.name)

    def glob(self, pattern: str) -> Sequence[FileInfo]:
        """Entries that match a Hadoop glob, in the order of their URIs."""
        store, path = self._at(pattern)
        return sorted((_info(s) for s in store.globStatus(path) or ()), key=lambda entry: entry.uri)

    def walk(self, uri: str) -> Sequence[FileInfo]:
        """Every file below a folder, in the order of their URIs. Hidden ones (`.x`, `_x`) are left out."""
        shown = [entry for entry in self.list(uri) if not entry.name.startswith((".", "_"))]
        found = [file for entry in shown for file in (self.walk(entry.uri) if entry.is_folder else [entry])]
        return sorted(found, key=lambda file: file.uri)

    def read_text(self, uri: str) -> str:
        store, path = self._at(uri)
        stream = store.open(path)
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    @contextmanager
    def local_copy(self, uri: str) -> Iterator[str]:
        """A file or folder as a path on this machine, for readers that know no Hadoop; a copy is gone afterwards.

        InputError if there is none.
        """
        store, path = self._at(uri)
        if not store.exists(path):
            raise InputError("there is no such file", where=uri)
        if store.getScheme() == "file":
            yield str(path.toUri().getPath())
            return
        with TemporaryDirectory(prefix="geosieve-") as folder:
            copy = f"{folder}/copy"
            # By the raw local file system: the other one writes checksum files beside it.
            store.copyToLocalFile(False, path, self._jvm.org.apache.hadoop.fs.Path(f"file:{copy}"), True)
            yield copy

    def write_text(self, uri: str, text: str) -> None:
        """Write a whole file, replacing one that is there; it appears at once, complete."""
        store, path = self._at(uri)
        if path.toUri().getScheme() == "s3a":  # an object appears when its upload ends; a rename would copy it
            _write(store, path, text)
            return
        part = self._jvm.org.apache.hadoop.fs.Path(path.getParent(), f".{path.getName()}.part")
        _write(store, part, text)
        if store.exists(path):
            store.delete(path, False)
        if not store.rename(part, path):
            raise RetryableError("could not be renamed into place", where=uri)

    def delete(self, uri: str) -> None:
        """Delete a file or a folder with all in it; a missing one is no error."""
        store, path = self._at(uri)
        if not store.delete(path, True) and store.exists(path):
            raise RetryableError("could not be deleted", where=uri)


def literal(uri: str) -> str:
    """`uri` with the characters escaped that Spark's readers would take for a glob."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", uri)


def _info(status: Any) -> FileInfo:
    path = status.getPath()
    return FileInfo(str(path.toString()), str(path.getName()), int(status.getLen()), bool(status.isDirectory()))


def _write(store: Any, path: Any, text: str) -> None:
    stream = store.create(path, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()
