"""Files on any store without a JVM: workers have none, and a configuration is read before the JVM starts.

URIs have the same form as in Hadoop. The endpoint and keys of S3 come from environment variables, which GDAL reads, too
(docs/cluster.md), so they are set only once.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import NativeFile, fs

from geosieve.runtime.errors import InputError
from geosieve.runtime.failures import of_store
from geosieve.runtime.files import FileInfo

_ATTEMPTS = 5
_CHUNK_BYTES = 1 << 23
_OFF = {"NO", "FALSE", "OFF", "0"}


@contextmanager
def open_input(uri: str) -> Iterator[NativeFile]:
    """Open a file for reading, with `seek`.

    Raises InputError if the file is missing or cannot be read, or if no store has the URI's scheme; RetryableError if
    its store is throttled or down. Reads within the block raise the same errors.
    """
    with _errors(uri):
        store, path = locate(uri)  # may ask AWS for the bucket's region, or connect to HDFS
        with store.open_input_file(path) as file:
            yield file


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Raise errors of stores as ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=uri) from error
    except OSError as error:
        raise of_store(str(error), uri) or InputError(f"the store failed: {error}", where=uri) from error


def is_missing(error: InputError) -> bool:
    """Whether an error of `open_input` says that there is no such file."""
    return isinstance(error.__cause__, FileNotFoundError)


def read(uri: str, most: int) -> bytes:
    """Return at most the first `most` bytes of a file. Raises the errors of `open_input`."""
    with open_input(uri) as file:
        content: bytes = file.read(most)
        return content


def read_file(uri: str) -> bytes:
    """The content of a file. Raises the errors of `open_input`."""
    with open_input(uri) as file:
        content: bytes = file.readall()
        return content


def read_unchanged(uri: str, sha256: str) -> bytes:
    """The content of a file that has this SHA-256, in hex. InputError if it has another; errors of `open_input`."""
    content = read_file(uri)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError("the file is not the one that was written: it has another SHA-256", where=uri)
    return content


def size(uri: str) -> int | None:
    """The size of a file in bytes; None if there is no such file. Raises the errors of `open_input`."""
    with _errors(uri):
        store, path = locate(uri)
        found = store.get_file_info(path)
        return int(found.size) if found.is_file else None


def list_folder(uri: str) -> list[str]:
    """The names of the files in a folder, in order; none if there is no such folder. Raises errors of `open_input`."""
    with _errors(uri):
        store, path = locate(uri)
        found = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(entry.base_name for entry in found if entry.is_file)


class StoreFiles:
    """What reading tables needs of `files.Files`, without a JVM. Raises the errors of `open_input`."""

    def exists(self, uri: str) -> bool:
        """Return whether there is a file or folder."""
        with _errors(uri):
            store, path = locate(uri)
            return bool(store.get_file_info(path).type != fs.FileType.NotFound)

    def list(self, uri: str) -> Sequence[FileInfo]:
        """Return the entries of a folder, sorted by name; empty if there is no such folder."""
        with _errors(uri):
            store, path = locate(uri)
            found = store.get_file_info(fs.FileSelector(path, allow_not_found=True))
        folder = uri.rstrip("/")
        entries = (
            FileInfo(f"{folder}/{e.base_name}", e.size or 0, not e.is_file, (e.mtime_ns or 0) // 1_000_000)
            for e in found
        )
        return sorted(entries, key=lambda entry: entry.name)

    def read_text(self, uri: str) -> str:
        """Return the content of a UTF-8 file."""
        return read_file(uri).decode()


def write_file(uri: str, content: bytes) -> None:
    """Write a file, so that readers see all of it or nothing, even if the machine fails. Folders are created.

    Raises the errors of `open_input`; RetryableError if the disk is full. Then nothing is left of it.
    """
    _write_whole(uri, [content])


def upload(local: Path, uri: str) -> None:
    """Copy a local file to a store, however large, seen by readers as with `write_file`. Raises the same errors."""
    with local.open("rb") as file:
        _write_whole(uri, iter(lambda: file.read(_CHUNK_BYTES), b""))


def _write_whole(uri: str, chunks: Iterable[bytes]) -> None:
    with _errors(uri):
        store, path = locate(uri)
        if isinstance(store, fs.S3FileSystem):
            with store.open_output_stream(path) as stream:  # visible once it is closed
                for chunk in chunks:
                    stream.write(chunk)
            return
        store.create_dir(path.rpartition("/")[0], recursive=True)
        aside = f"{path}.{uuid.uuid4().hex}.part"
        try:
            with store.open_output_stream(aside) as stream:
                for chunk in chunks:
                    stream.write(chunk)
            if isinstance(store, fs.LocalFileSystem):
                _to_disk(aside)
            store.move(aside, path)
        except OSError:
            if store.get_file_info(aside).is_file:
                store.delete_file(aside)
            raise
        if isinstance(store, fs.LocalFileSystem):
            _to_disk(path.rpartition("/")[0] or ".")


def parquet_bytes(table: pa.Table) -> bytes:
    """The content of a Parquet file of the table."""
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def delete_file(uri: str) -> None:
    """Delete a file; nothing if there is none. Raises the errors of `open_input`."""
    with _errors(uri):
        store, path = locate(uri)
        if store.get_file_info(path).is_file:
            store.delete_file(path)


def _to_disk(path: str) -> None:
    """Force a local file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def locate(uri: str) -> tuple[Any, str]:
    """Return pyarrow's file system and the path of a URI. InputError if no store has its scheme."""
    scheme, separator, rest = uri.partition("://")
    if scheme in ("s3a", "s3", "s3n") and separator:
        return _s3(rest.partition("/")[0]), rest
    if scheme in ("hdfs", "viewfs") and separator:
        store, path = fs.FileSystem.from_uri(uri)
        return store, path
    if separator and scheme != "file":
        raise InputError(f"no store has the scheme {scheme!r}", where=uri, hint="give a path, file:, hdfs:// or s3a://")
    return fs.LocalFileSystem(), "/" + uri[len("file:") :].lstrip("/") if uri.startswith("file:") else uri


@lru_cache(maxsize=16)
def _s3(bucket: str) -> fs.S3FileSystem:
    endpoint = os.environ.get("AWS_S3_ENDPOINT")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        scheme="http" if os.environ.get("AWS_HTTPS", "").upper() in _OFF else "https",
        region=region,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
