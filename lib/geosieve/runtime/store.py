"""Reads files from any store without a JVM: workers have none, and a configuration is read before the JVM starts.

URIs have the same form as in Hadoop. The endpoint and keys of S3 come from environment variables, which GDAL reads, too
(docs/cluster.md), so they are set only once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from pyarrow import NativeFile, fs

from geosieve.runtime.errors import InputError
from geosieve.runtime.failures import of_store

_ATTEMPTS = 5
_OFF = {"NO", "FALSE", "OFF", "0"}


@contextmanager
def open_input(uri: str) -> Iterator[NativeFile]:
    """Open a file for reading, with `seek`.

    Raises InputError if the file is missing or cannot be read, or if no store has the URI's scheme; RetryableError if
    its store is throttled or down. Reads within the block raise the same errors.
    """
    try:
        store, path = _locate(uri)  # may ask AWS for the bucket's region, or connect to HDFS
        with store.open_input_file(path) as file:
            yield file
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=uri) from error
    except OSError as error:
        raise of_store(str(error), uri) or InputError(f"it cannot be read: {error}", where=uri) from error


def is_missing(error: InputError) -> bool:
    """Whether an error of `open_input` says that there is no such file."""
    return isinstance(error.__cause__, FileNotFoundError)


def read(uri: str, most: int) -> bytes:
    """Return at most the first `most` bytes of a file. Raises the errors of `open_input`."""
    with open_input(uri) as file:
        content: bytes = file.read(most)
        return content


def _locate(uri: str) -> tuple[Any, str]:
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
