"""The check of a job's output before its work: a folder, or one that can be made."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError

from geosieve.runtime import errors
from geosieve.runtime.failures import explain
from geosieve.runtime.files import Files


def check_output(files: Files, root: str, make: bool) -> None:
    """ConfigError if `root` is a file or below one, or, if it is to be made, cannot be made.

    What may pass (a full disk) is raised as it is. On S3 there are no folders to check. That a folder may be written
    to is known when a publication takes its claim, which comes next.
    """
    if root.startswith("s3a:"):
        return
    store, path = files._at(root)
    above = path
    try:
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
        raise errors.ConfigError(f"output: nothing can be written there: {message[:500]}", where=root)
