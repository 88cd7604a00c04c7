"""Files on any store that Hadoop knows (file, hdfs, s3a), through the session's JVM."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from geosieve.runtime.errors import InputError, RetryableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_URI = re.compile(r"([^:/]+):(?://([^/]*))?(.*)", re.DOTALL)  # scheme, authority, path
_UNUSED = (  # fields of Hadoop's FileStatus
    *("block_replication", "blocksize", "modification_time", "access_time"),
    *("permission", "owner", "group", "symlink", "attr"),
)
_SLOWEST_REQUEST_S = 2.0  # from the look whether a small object is there to the end of its upload


@dataclass(frozen=True, slots=True)
class FileInfo:
    uri: str
    size: int
    is_folder: bool

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]


class Files:
    """Small operations on paths given as URIs or local paths. Errors of the store are raised by py4j."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark._jvm
        self._conf = spark._jsc.hadoopConfiguration()

    def at(self, uri: str) -> tuple[Any, Any]:
        """Hadoop's file system and path of a URI."""
        path = self._jvm.org.apache.hadoop.fs.Path(uri)
        return path.getFileSystem(self._conf), path

    def exists(self, uri: str) -> bool:
        store, path = self.at(uri)
        return bool(store.exists(path))

    def list(self, uri: str) -> Sequence[FileInfo]:
        """Entries of a folder in the order of their names; empty when there is no such folder."""
        store, path = self.at(uri)
        if not store.exists(path):
            return []
        return sorted(self._infos(store.listStatus(path)), key=lambda entry: entry.name)

    def glob(self, pattern: str) -> Sequence[FileInfo]:
        """Entries that match a Hadoop glob, in the order of their URIs."""
        store, path = self.at(pattern)
        return sorted(self._infos(store.globStatus(path)), key=lambda entry: entry.uri)

    def named(self, uri: str) -> Sequence[FileInfo]:
        """What is there under this very name, as one entry, or else what matches it as a glob."""
        store, path = self.at(uri)
        if not store.exists(path):
            return self.glob(uri)
        status = store.getFileStatus(path)
        return [_info(str(status.getPath().toString()), int(status.getLen()), bool(status.isDirectory()))]

    def _infos(self, statuses: Any) -> Sequence[FileInfo]:
        """A Java array of FileStatus. It is fetched in one call: by getters, an entry takes a millisecond."""
        if statuses is None:
            return []
        return [
            _info(_readable(entry["path"]["uri"]), entry["length"], entry["isdir"])
            for entry in json.loads(self._writer.writeValueAsString(statuses))
        ]

    @cached_property
    def _writer(self) -> Any:
        """Java's writer of an array of FileStatus as JSON, by fields: the getter of a local file's owner runs `ls`."""
        jackson, lang = self._jvm.com.fasterxml.jackson, self._jvm.java.lang
        status = self._jvm.org.apache.hadoop.fs.FileStatus().getClass()
        visible, accessor = (
            getattr(jackson.annotation, "JsonAutoDetect$Visibility"),
            jackson.annotation.PropertyAccessor,
        )
        mapper = jackson.databind.ObjectMapper()
        mapper.setVisibility(accessor.ALL, visible.NONE)
        mapper.setVisibility(accessor.FIELD, visible.ANY)
        # Fields of FileStatus only, whatever the store's own kind of it is.
        mapper.configure(jackson.databind.MapperFeature.USE_STATIC_TYPING, True)
        ignored = getattr(jackson.annotation, "JsonIgnoreProperties$Value").forIgnoredProperties(set(_UNUSED))
        mapper.configOverride(status).setIgnorals(ignored)
        return mapper.writerFor(lang.reflect.Array.newInstance(status, 0).getClass())

    def walk(self, uri: str) -> Sequence[FileInfo]:
        """Every file below a folder, in the order of their URIs. Hidden ones (`.x`, `_x`) are left out."""
        shown = [entry for entry in self.list(uri) if not entry.name.startswith((".", "_"))]
        found = [file for entry in shown for file in (self.walk(entry.uri) if entry.is_folder else [entry])]
        return sorted(found, key=lambda file: file.uri)

    def read_text(self, uri: str) -> str:
        store, path = self.at(uri)
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
        store, path = self.at(uri)
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
        store, path = self.at(uri)
        if path.toUri().getScheme() == "s3a":  # an object appears when its upload ends; a rename would copy it
            _write(store, path, text)
            return
        part = self._part(path)
        _write(store, part, text)
        _replace(store, part, path)

    def _part(self, path: Any) -> Any:
        """Where a file is written before it is renamed; nobody else writes there."""
        return self._jvm.org.apache.hadoop.fs.Path(path.getParent(), f".{path.getName()}.{uuid.uuid4().hex}.part")

    def create_new(self, uri: str, text: str) -> bool:
        """Write a whole file unless one is there; whether it was written. Of several who try, one succeeds.

        S3A cannot look and write in one request. There the last of several who write at once stays, and each looks
        again when the others' requests must have ended.
        """
        store, path = self.at(uri)
        scheme = str(store.getScheme())
        if store.exists(path):
            return False
        if scheme == "s3a":
            _write(store, path, text)
            time.sleep(_SLOWEST_REQUEST_S)
            return self.read_text(uri) == text
        part = self._part(path)
        _write(store, part, text)
        try:
            if scheme != "file":
                return bool(store.rename(part, path))  # HDFS does not rename onto a file
            # Hadoop's rename on a local disk replaces, a link does not.
            os.link(str(part.toUri().getPath()), str(path.toUri().getPath()))
            return True
        except FileExistsError:
            return False
        finally:
            store.delete(part, False)

    def move(self, source: str, target: str) -> None:
        """Rename a file to where none is."""
        store, path = self.at(target)
        if not store.rename(self._jvm.org.apache.hadoop.fs.Path(source), path):
            raise RetryableError("could not be renamed into place", where=target)

    def copy(self, source: str, target: str) -> None:
        """Copy a file within a store, replacing one that is there; it appears at once, complete."""
        store, path = self.at(target)
        at_once = str(store.getScheme()) == "s3a"
        part = path if at_once else self._part(path)
        origin = self._jvm.org.apache.hadoop.fs.Path(source)
        self._jvm.org.apache.hadoop.fs.FileUtil.copy(store, origin, store, part, False, True, self._conf)
        if not at_once:
            _replace(store, part, path)

    def upload(self, local: str, uri: str) -> None:
        """Copy a file of this machine to a store, replacing one that is there."""
        store, path = self.at(uri)
        store.copyFromLocalFile(
            False, True, self._jvm.org.apache.hadoop.fs.Path(f"file:{os.path.abspath(local)}"), path
        )

    def pending_uploads(self, uri: str) -> Sequence[Any]:
        """Uploads to below a folder of S3 that nobody has completed; they are invisible and cost money for ever."""
        store, path = self.at(uri)
        if str(store.getScheme()) != "s3a":
            return []
        return list(store.listMultipartUploads(f"{str(path.toUri().getPath()).lstrip('/')}/"))

    def abort_uploads(self, uri: str, uploads: Sequence[Any]) -> None:
        """Give up what `pending_uploads` found."""
        store, _ = self.at(uri)
        for upload in uploads:
            store.getWriteOperationHelper().abortMultipartUpload(upload)

    def delete(self, uri: str) -> None:
        """Delete a file or a folder with all in it; a missing one is no error."""
        store, path = self.at(uri)
        if not store.delete(path, True) and store.exists(path):
            raise RetryableError("could not be deleted", where=uri)


def literal(uri: str) -> str:
    """`uri` with the characters escaped that Spark's readers would take for a glob."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", uri)


def _readable(uri: str) -> str:
    """A java.net.URI's text as Hadoop writes a path: nothing is encoded, and an empty authority is left out."""
    if "%" not in uri and not uri.startswith("file:"):
        return uri
    match = _URI.fullmatch(uri)
    if match is None:
        return unquote(uri)
    scheme, authority, path = match.groups()
    return f"{scheme}:{f'//{authority}' if authority else ''}{unquote(path)}"


def _info(uri: str, length: int, is_folder: bool) -> FileInfo:
    return FileInfo(uri, 0 if is_folder else length, is_folder)  # a local folder has a length of its own


def _replace(store: Any, part: Any, path: Any) -> None:
    for _ in range(3):  # another one may put its own there meanwhile, and HDFS does not rename onto a file
        store.delete(path, False)
        if store.rename(part, path):
            return
    raise RetryableError("could not be renamed into place", where=str(path.toString()))


def _write(store: Any, path: Any, text: str) -> None:
    stream = store.create(path, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()
