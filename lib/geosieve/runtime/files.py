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
from functools import lru_cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from geosieve.runtime.errors import InputError, RetryableError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_URI = re.compile(r"([^:/]+):(?://([^/]*))?(.*)", re.DOTALL)  # scheme, authority, path
_UNUSED = (  # fields of Hadoop's FileStatus that are not fetched
    *("block_replication", "blocksize", "access_time"),
    *("permission", "owner", "group", "symlink", "attr"),
)
_SLOWEST_REQUEST_S = 2.0  # S3: from the check whether a small object exists to the end of its upload


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or folder of a listing. `size` is in bytes, 0 for a folder; `modified_ms` in ms since 1970, UTC."""

    uri: str
    size: int
    is_folder: bool
    modified_ms: int

    @property
    def name(self) -> str:
        """The last part of the URI."""
        return self.uri.rpartition("/")[2]


@lru_cache(maxsize=1)
def _status_writer(jvm: Any) -> Any:
    """Jackson's JSON writer of a FileStatus array. It reads fields: for a local file, getOwner runs `ls`."""
    jackson, lang = jvm.com.fasterxml.jackson, jvm.java.lang
    status = jvm.org.apache.hadoop.fs.FileStatus().getClass()
    visible, accessor = (
        getattr(jackson.annotation, "JsonAutoDetect$Visibility"),
        jackson.annotation.PropertyAccessor,
    )
    mapper = jackson.databind.ObjectMapper()
    mapper.setVisibility(accessor.ALL, visible.NONE)
    mapper.setVisibility(accessor.FIELD, visible.ANY)
    # Only the fields of FileStatus, without those that a store's subclass adds.
    mapper.configure(jackson.databind.MapperFeature.USE_STATIC_TYPING, True)
    ignored = getattr(jackson.annotation, "JsonIgnoreProperties$Value").forIgnoredProperties(set(_UNUSED))
    mapper.configOverride(status).setIgnorals(ignored)
    return mapper.writerFor(lang.reflect.Array.newInstance(status, 0).getClass())


class Files:
    """Small operations on files, which are given as URIs or local paths.

    If the store fails or denies access, py4j's Py4JJavaError is raised.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark._jvm
        self._conf = spark._jsc.hadoopConfiguration()

    def at(self, uri: str) -> tuple[Any, Any]:
        """Return Hadoop's FileSystem and Path objects of a URI."""
        path = self._jvm.org.apache.hadoop.fs.Path(uri)
        return path.getFileSystem(self._conf), path

    def absolute(self, uri: str) -> str:
        """The same with its store, which for a path without scheme is Hadoop's default."""
        store, path = self.at(uri)
        return str(store.makeQualified(path).toString())

    def exists(self, uri: str) -> bool:
        """Return whether there is a file or folder."""
        store, path = self.at(uri)
        return bool(store.exists(path))

    def list(self, uri: str) -> Sequence[FileInfo]:
        """Return the entries of a folder, sorted by name; empty if there is no such folder."""
        store, path = self.at(uri)
        if not store.exists(path):
            return []
        return sorted(self._infos(store.listStatus(path)), key=lambda entry: entry.name)

    def glob(self, pattern: str) -> Sequence[FileInfo]:
        """Return the entries that match a Hadoop glob, sorted by URI."""
        store, path = self.at(pattern)
        return sorted(self._infos(store.globStatus(path)), key=lambda entry: entry.uri)

    def named(self, uri: str) -> Sequence[FileInfo]:
        """Return the file or folder with exactly this name as the only entry; if there is none, the matches of a glob.

        So a name that contains glob characters is found, too.
        """
        store, path = self.at(uri)
        if not store.exists(path):
            return self.glob(uri)
        status = store.getFileStatus(path)
        facts = int(status.getLen()), bool(status.isDirectory()), int(status.getModificationTime())
        return [_info(str(status.getPath().toString()), *facts)]

    def _infos(self, statuses: Any) -> Sequence[FileInfo]:
        """Convert a Java array of FileStatus. It is fetched in one call: getters take a millisecond per entry."""
        if statuses is None:
            return []
        return [
            _info(_readable(entry["path"]["uri"]), entry["length"], entry["isdir"], entry["modification_time"])
            for entry in json.loads(_status_writer(self._jvm).writeValueAsString(statuses))
        ]

    def walk(self, uri: str) -> Sequence[FileInfo]:
        """Return every file below a folder, at any depth, sorted by URI.

        Hidden files and folders (`.x`, `_x`) are left out.
        """
        shown = [entry for entry in self.list(uri) if not entry.name.startswith((".", "_"))]
        found = [file for entry in shown for file in (self.walk(entry.uri) if entry.is_folder else [entry])]
        return sorted(found, key=lambda file: file.uri)

    def read_text(self, uri: str) -> str:
        """Return the content of a UTF-8 file."""
        store, path = self.at(uri)
        stream = store.open(path)
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    @contextmanager
    def local_copy(self, uri: str) -> Iterator[str]:
        """Yield a local path of a file or folder, for readers that do not support Hadoop.

        A file of another store is copied, and the copy is deleted at the end of the block. Raises InputError if there
        is no such file.
        """
        store, path = self.at(uri)
        if not store.exists(path):
            raise InputError("there is no such file", where=uri)
        if store.getScheme() == "file":
            yield str(path.toUri().getPath())
            return
        with TemporaryDirectory(prefix="geosieve-") as folder:
            copy = f"{folder}/copy"
            # True: use the raw local file system. The default one writes checksum files beside the copy.
            store.copyToLocalFile(False, path, self._jvm.org.apache.hadoop.fs.Path(f"file:{copy}"), True)
            yield copy

    def write_text(self, uri: str, text: str) -> None:
        """Write a whole file as UTF-8 and replace an existing one.

        Readers never see a part of the file. Outside S3, they may see no file for a moment while it is replaced.
        Raises RetryableError if the file cannot be renamed into place.
        """
        store, path = self.at(uri)
        if path.toUri().getScheme() == "s3a":  # an object is visible only after its upload; a rename would copy it
            _write(store, path, text)
            return
        part = self._part(path)
        _write(store, part, text)
        _replace(store, part, path)

    def _part(self, path: Any) -> Any:
        """Return a unique path beside `path`. The file is written there and then renamed."""
        return self._jvm.org.apache.hadoop.fs.Path(path.getParent(), f".{path.getName()}.{uuid.uuid4().hex}.part")

    def create_new(self, uri: str, text: str) -> bool:
        """Write a whole file only if there is none yet; return whether it was written.

        Of several concurrent writers, exactly one succeeds. On S3, they must write different texts, and their requests
        must not take longer than `_SLOWEST_REQUEST_S`: S3A cannot check and write in one request. The last write wins
        there, so each writer waits until the requests of the others must have ended and then checks whether the file is
        its own.
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
                return bool(store.rename(part, path))  # HDFS does not rename onto an existing file
            # On a local disk, Hadoop's rename replaces an existing file; a hard link does not.
            os.link(str(part.toUri().getPath()), str(path.toUri().getPath()))
            return True
        except FileExistsError:
            return False
        finally:
            store.delete(part, False)

    def move(self, source: str, target: str) -> None:
        """Rename a file within a store, to a path where there is no file. RetryableError if the store refuses."""
        store, path = self.at(target)
        if not store.rename(self._jvm.org.apache.hadoop.fs.Path(source), path):
            raise RetryableError("could not be renamed into place", where=target)

    def copy(self, source: str, target: str) -> None:
        """Copy a file within a store and replace an existing one; visible to readers as after `write_text`."""
        store, path = self.at(target)
        at_once = str(store.getScheme()) == "s3a"
        part = path if at_once else self._part(path)
        origin = self._jvm.org.apache.hadoop.fs.Path(source)
        self._jvm.org.apache.hadoop.fs.FileUtil.copy(store, origin, store, part, False, True, self._conf)
        if not at_once:
            _replace(store, part, path)

    def upload(self, local: str, uri: str) -> None:
        """Copy a local file to a store and replace an existing one."""
        store, path = self.at(uri)
        store.copyFromLocalFile(
            False, True, self._jvm.org.apache.hadoop.fs.Path(f"file:{os.path.abspath(local)}"), path
        )

    def pending_uploads(self, uri: str) -> Sequence[Any]:
        """Return the incomplete multipart uploads below a folder on S3; empty on other stores.

        They appear in no listing, but S3 charges for them until they are aborted.
        """
        store, path = self.at(uri)
        if str(store.getScheme()) != "s3a":
            return []
        return list(store.listMultipartUploads(f"{str(path.toUri().getPath()).lstrip('/')}/"))

    def abort_uploads(self, uri: str, uploads: Sequence[Any]) -> None:
        """Abort the uploads that `pending_uploads` found."""
        store, _ = self.at(uri)
        for upload in uploads:
            store.getWriteOperationHelper().abortMultipartUpload(upload)

    def delete(self, uri: str) -> None:
        """Delete a file, or a folder with its contents. A missing one is no error.

        Raises RetryableError if it is still there afterwards.
        """
        store, path = self.at(uri)
        if not store.delete(path, True) and store.exists(path):
            raise RetryableError("could not be deleted", where=uri)


def literal(uri: str) -> str:
    """Escape the characters of `uri` that Spark's readers would interpret as a glob."""
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", uri)


def _readable(uri: str) -> str:
    """Convert the text of a java.net.URI to the text of a Hadoop Path: not percent-encoded, no empty authority."""
    if "%" not in uri and not uri.startswith("file:"):
        return uri
    match = _URI.fullmatch(uri)
    if match is None:
        return unquote(uri)
    scheme, authority, path = match.groups()
    return f"{scheme}:{f'//{authority}' if authority else ''}{unquote(path)}"


def _info(uri: str, length: int, is_folder: bool, modified_ms: int) -> FileInfo:
    return FileInfo(
        uri, 0 if is_folder else length, is_folder, modified_ms
    )  # the size of a local folder has no meaning


def _replace(store: Any, part: Any, path: Any) -> None:
    for _ in range(3):  # HDFS does not rename onto a file, and another writer may create one after the delete
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
