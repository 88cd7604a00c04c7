"""Checks that a job's output is a folder that can be created and written to."""

from __future__ import annotations

import re
from collections.abc import Sequence

from py4j.protocol import Py4JJavaError

from geosieve.runtime import errors
from geosieve.runtime.failures import barred, explain
from geosieve.runtime.files import Files

_HINT = "set output to a folder that this user may write to, on a file system that is not read-only"


def check_output(files: Files, root: str, make: bool) -> None:
    """Raise ConfigError if `root` is a file, is below a file or cannot be accessed.

    With `make`, create the folder, and raise ConfigError if that fails. Failures that may pass, such as a full disk,
    are raised unchanged. S3 is not checked, because it has no folders. Whether the folder is writable shows only when
    something is written (`Context.told_apart`).
    """
    if root.startswith("s3a:"):
        return
    try:
        store, path = files.at(root)
        above = path
        while above.getParent() is not None and not store.exists(above):
            above = above.getParent()
        if not store.getFileStatus(above).isDirectory():
            raise errors.ConfigError(f"output: {above.toString()} is a file, not a folder", where=root)
        made = not make or store.mkdirs(path)
        message = "the folder cannot be made"
    except Py4JJavaError as failure:
        message, code = explain(failure)
        if code == errors.EXIT_RETRYABLE:
            raise
        made = False
    if not made:
        raise _unwritable(message, root)


def check_output_file(files: Files, uri: str) -> None:
    """Raise ConfigError if `uri` is a folder; its own folder is checked and made as by `check_output`."""
    check_output(files, uri.rpartition("/")[0] or ".", make=True)
    store, path = files.at(uri)
    if store.exists(path) and store.getFileStatus(path).isDirectory():
        raise errors.ConfigError("output: there is a folder of this name", where=uri)


def refused_to_write(failure: BaseException, leaves: Sequence[str]) -> errors.ConfigError | None:
    """Return the error to raise if a file system refused to write to one of the run's output folders, `leaves`.

    None for every other failure. A refusal by S3 is one of these: it depends on the credentials, so the input may be
    the cause as well.
    """
    cause = barred(failure)
    for leaf in leaves:
        # HDFS names the parent folder instead, together with the access that it denied.
        if "access=WRITE" in cause or _path(leaf) in cause:
            return _unwritable(cause, leaf) if cause else None
    return None


def _path(uri: str) -> str:
    return re.sub(r"^[a-z0-9]+:(//[^/]*)?", "", uri)


def _unwritable(why: str, where: str) -> errors.ConfigError:
    return errors.ConfigError(f"output: nothing can be written there: {why[:500]}", where=where, hint=_HINT)
