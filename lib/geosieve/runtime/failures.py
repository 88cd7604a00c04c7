"""Telling failures apart that reach the driver as text: from Python workers, from Hadoop and from GDAL."""

from __future__ import annotations

import re

from geosieve.runtime import errors

_OURS = re.compile(r"geosieve\.runtime\.errors\.(\w+Error): ([^\n]*)")

_STORE = (  # the first pattern that matches decides
    (
        r"No space left on device|Disk quota exceeded",
        errors.EXIT_RETRYABLE,
        "the disk is full; free some space",
    ),
    (
        r"(?i)access.?denied|403 Forbidden|Status Code: 403|HTTP response code: 403|InvalidAccessKeyId",
        errors.EXIT_BAD_INPUT,
        "the store refuses access (403); check the credentials and the bucket's policy",
    ),
    (
        r"NoSuchBucket|NoSuchKey|404 Not Found|Status Code: 404|HTTP response code: 404|FileNotFoundException|"
        r"PATH_NOT_FOUND|No such file or directory",
        errors.EXIT_BAD_INPUT,
        "there is no such file or bucket (404); check the URI",
    ),
    (
        r"(?i)SlowDown|Service Unavailable|Status Code: 50[0234]|HTTP response code: 50[0234]|ConnectTimeout|"
        r"Connection refused|Read timed out",
        errors.EXIT_RETRYABLE,
        "the store did not answer within the retry budget; try again later",
    ),
)


def explain(failure: BaseException) -> tuple[str, int]:
    """Message for people and exit code for schedulers of any exception that ends a job."""
    if isinstance(failure, errors.GeosieveError):
        return str(failure), failure.exit_code
    text = str(failure)
    ours = _OURS.search(text)
    if ours and hasattr(errors, ours[1]):
        return ours[2], getattr(errors, ours[1]).exit_code
    for pattern, code, advice in _STORE:
        if re.search(pattern, text):
            return errors.redact(f"{advice} | {text[:2000]}"), code
    return errors.redact(f"{type(failure).__name__}: {text[:4000]}"), errors.EXIT_INTERNAL
