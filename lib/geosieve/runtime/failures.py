"""Telling failures apart that reach the driver as text: from Python workers, from Hadoop and from GDAL."""

from __future__ import annotations

import re

from geosieve.runtime import errors

_OURS = re.compile(r"geosieve\.runtime\.errors\.(\w+Error): ([^\n]*)")

_THROTTLED, _REFUSED, _MISSING, _FULL = "throttled", "refused", "missing", "full"

_STORE = (  # the first pattern that matches decides
    (
        _FULL,
        r"No space left on device|Disk quota exceeded",
        errors.EXIT_RETRYABLE,
        "the disk is full; free some space",
    ),
    (
        _REFUSED,
        r"(?i)access.?denied|403 Forbidden|Status Code: 403|HTTP response code(?: on \S+)?: 403|InvalidAccessKeyId|"
        r"SignatureDoesNotMatch",
        errors.EXIT_BAD_INPUT,
        "the store refuses access (403); check the credentials and the bucket's policy",
    ),
    (
        _THROTTLED,
        r"(?i)SlowDown|reduce your request rate|Service Unavailable|encountered an internal error|"
        r"Status Code: (?:429|50[0234])|HTTP (?:error|response) code(?: on \S+)?: (?:429|50[0234])|CURL error|"
        r"ConnectTimeout|Connection refused|Read timed out",
        errors.EXIT_RETRYABLE,
        "the store did not answer within the retry budget; try again later",
    ),
    (
        _MISSING,
        r"NoSuchBucket|NoSuchKey|404 Not Found|Status Code: 404|HTTP response code(?: on \S+)?: 404|"
        r"FileNotFoundException|PATH_NOT_FOUND|No such file or directory|specified (?:key|bucket) does not exist",
        errors.EXIT_BAD_INPUT,
        "there is no such file or bucket (404); check the URI",
    ),
)


def of_store(text: str, where: str) -> errors.GeosieveError | None:
    """The error to raise where a store's answer says nothing about the file: it is throttled, down or refuses access.

    `text`: what GDAL says. None for every other failure, which is the file's own.
    """
    for kind, pattern, _, advice in _STORE:
        if re.search(pattern, text):
            if kind == _THROTTLED:
                return errors.RetryableError(f"{advice}: {text[:500]}", where=where)
            return errors.InputError(f"{advice}: {text[:500]}", where=where) if kind == _REFUSED else None
    return None


def explain(failure: BaseException) -> tuple[str, int]:
    """Message for people and exit code for schedulers of any exception that ends a job."""
    if isinstance(failure, errors.GeosieveError):
        return str(failure), failure.exit_code
    text = str(failure)
    ours = _OURS.search(text)
    if ours and hasattr(errors, ours[1]):
        return ours[2], getattr(errors, ours[1]).exit_code
    for _, pattern, code, advice in _STORE:
        if re.search(pattern, text):
            return errors.redact(f"{advice} | {text[:2000]}"), code
    return errors.redact(f"{type(failure).__name__}: {text[:4000]}"), errors.EXIT_INTERNAL
