"""The check of a job's output before its work: a folder, or one that can be made."""

from __future__ import annotations

import uuid

from py4j.protocol import Py4JJavaError

from geosieve.runtime import errors
from geosieve.runtime.failures import explain
from geosieve.runtime.files import Files


def check_output(files: Files, root: str, make: bool) -> None:
    """ConfigError if `root` is a file or below one, or, if it is to be made, cannot be made or written to.

    What may pass (a full disk) is raised as it is. On S3 nothing is checked: there are no folders, and the claim that
    a publication writes at once tells whether it may write.
    """
    if root.startswith("s3a:"):
        return
    store, path = files._at(root)
    try:
        while path.getParent() is not None and not store.exists(path):
            path = path.getParent()
        if not store.getFileStatus(path).isDirectory():
            raise errors.ConfigError(f"output: {path.toString()} is a file, not a folder", where=root)
        if make:
            probe = f"{root.rstrip('/')}/.probe-{uuid.uuid4().hex}"  # other jobs may start here at this moment
            files.write_text(probe, "")
            files.delete(probe)
    except Py4JJavaError as failure:
        message, code = explain(failure)
        if code == errors.EXIT_RETRYABLE:
            raise
        raise errors.ConfigError(f"output: nothing can be written there: {message[:500]}", where=root) from failure
