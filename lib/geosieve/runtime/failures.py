"""Classifies failures that reach the driver as text: from Python workers, Hadoop and GDAL.

Such a text is a chain of exceptions with hundreds of stack frames. The frames are ignored. The loss of an executor or
of its files can be reported anywhere in the chain, so the whole chain is searched for it. A store's answer is the root
cause, so only the root cause is searched for it. The loss is checked first: a lost shuffle file also ends in
FileNotFoundException and would look like a missing input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from py4j.protocol import Py4JError, Py4JNetworkError

from geosieve.runtime import errors

_OURS = re.compile(r"geosieve\.runtime\.errors\.(\w+Error): ([^\n]*)")

_FRAMES = re.compile(
    r"(?:^|\s+)at \S+\((?:Native Method|Unknown Source|[\w$.-]+(?::\d+)?)\)|\n\s*\.\.\. \d+ more|"
    r"\n\s+(?:Suppressed|Caused by): [^\n]*"  # indented: exceptions of the cleanup, not of the failure
)

_GONE = re.compile(
    r"Answer from Java side is empty|while trying to connect to the Java server|Error while (?:sending|receiving)\b|"
    r"SparkContext was shut down|stopped SparkContext|SparkContext has been shutdown"
)
# The Java heap was too small for the work. A rerun with the same memory fails in the same way, so a scheduler must not
# retry. Spark ends an executor that ran out of heap with exit code 52. A killed container (137) is a different case:
# other processes in it may have used up the memory.
_OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError: (?:Java heap space|GC overhead limit exceeded|Requested array size exceeds VM limit)|"
    r"SparkOutOfMemoryError|(?i:exit (?:status|code)(?: is)?:? ?52\b)"
)
_IN_EXECUTOR = re.compile(r"\(TID \d+\) \(\S+ executor (?!driver\b)\S+\)|\(executor (?!driver\b)\S+ exited")
_LOST = re.compile(
    # executors and machines
    r"ExecutorLostFailure|ExecutorDeadException|(?i:(?:slave|worker|executor|node|host) (?:was )?lost)|"
    r"(?i:decommission)|Remote RPC client disassociated|Container (?:killed|marked as failed|from a bad node)|"
    r"(?i:exit (?:status|code)(?: is)?:? ?(?:137|143)\b)|exit code (?:137|143)\b|"
    # shuffle files and cached blocks on lost executors
    r"FetchFailed|Missing an output location for shuffle|Failed to get broadcast_\d|BlockNotFoundException|"
    r"Checkpoint block rdd_\S+ not found|/blockmgr-[0-9a-f-]+/|\bshuffle_\d+_\d+_\d+\.(?:index|data)|"
    # a Python worker that was killed, usually because of its memory use
    r"Python worker exited unexpectedly|Python worker (?:failed to connect back|crashed)|"
    # temporary files of a running write that another attempt deleted
    r"FileNotFoundException[^\n]*/(?:_temporary|__magic)/"
)

_THROTTLED, _REFUSED, _MISSING, _FULL, _BARRED = "throttled", "refused", "missing", "full", "barred"
_DAMAGED = "damaged"

_STORE = (  # kind, pattern, exit code, advice; the first pattern that matches decides
    (
        _FULL,
        r"No space left on device|Disk quota exceeded",
        errors.EXIT_RETRYABLE,
        "the disk is full; free some space",
    ),
    (
        _REFUSED,
        r"(?i)access.?denied|403 Forbidden|Status Code: 403|HTTP response code(?: on \S+)?: 403|InvalidAccessKeyId|"
        r"SignatureDoesNotMatch|Expired_?Token|InvalidToken|token has expired|"
        # An answer to HEAD has no text: AWS gives this one to credentials that have expired.
        r"Error Code: 400 Bad Request|\(HTTP status 400\) during HeadObject",
        errors.EXIT_BAD_INPUT,
        "the store refuses access (403); check the credentials, which may have expired, and the bucket's policy",
    ),
    (
        _THROTTLED,
        r"(?i)SlowDown|reduce your request rate|Service Unavailable|encountered an internal error|"
        r"Status Code: (?:429|50[0234])|HTTP (?:error|response) code(?: on \S+)?: (?:429|50[0234])|CURL error|"
        r"AWS Error (?:SLOW_DOWN|SERVICE_UNAVAILABLE|NETWORK_CONNECTION|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING)|"
        r"\(HTTP status (?:429|50[0234])\)|"
        r"ConnectTimeout|Connection refused|Connection reset|Read timed out|connect timed out",
        errors.EXIT_RETRYABLE,
        "the store did not answer within the retry budget; try again later",
    ),
    (
        _BARRED,
        r"AccessControlException|Permission denied|Operation not permitted|Read-only file system|Mkdirs failed|"
        r"ParentNotDirectoryException|Parent path is not a directory|Not a directory",
        errors.EXIT_BAD_INPUT,
        "the path cannot be read or written as it is asked for; check its permissions and that folders are no files",
    ),
    (
        _MISSING,
        r"NoSuchBucket|NoSuchKey|404 Not Found|Status Code: 404|HTTP response code(?: on \S+)?: 404|"
        r"FileNotFoundException(?![^\n]*\((?:Too many open files|Is a directory)\))|"
        r"PATH_NOT_FOUND|No such file or directory|specified (?:key|bucket) does not exist",
        errors.EXIT_BAD_INPUT,
        "there is no such file or bucket (404); check the URI",
    ),
    (
        _DAMAGED,
        r"fs\.ChecksumException|is not a Parquet file|parquet\.format\.PageHeader|ParquetDecodingException|"
        r"[Cc]ould not (?:read|decompress) page",
        errors.EXIT_BAD_INPUT,
        "a Parquet file is damaged or cut off; copy the file again, or write it anew",
    ),
)


def of_store(text: str, where: str) -> errors.GeosieveError | None:
    """Return the error to raise if a failed read is due to the store and not to the file.

    `text` is the message of GDAL or pyarrow, `where` the file. RetryableError if the store is throttled, down or full,
    InputError if it refuses access; None for every other failure.
    """
    for kind, pattern, _, advice in _STORE:
        if re.search(pattern, text):
            if kind in (_THROTTLED, _FULL):
                return errors.RetryableError(f"{advice}: {text[:500]}", where=where)
            return errors.InputError(f"{advice}: {text[:500]}", where=where) if kind == _REFUSED else None
    return None


def explain(failure: BaseException) -> tuple[str, int]:
    """Return a message for people and an exit code for schedulers for any exception that ends a job.

    The message contains no credentials. An error of this package that was raised in a worker keeps its exit code.
    """
    if isinstance(failure, errors.GeosieveError):
        return str(failure), failure.exit_code
    text = str(failure)
    ours = _OURS.search(text)
    if ours and hasattr(errors, ours[1]):
        return ours[2], getattr(errors, ours[1]).exit_code
    told = _FRAMES.sub("", text)
    root = told[_root(told) :]
    # The first exception says where it happened, the last one why.
    said = told[:2000] if root[:1000] in told[:2000] else f"{told[:1000]} … {root[:1000]}"
    for found, code, advice in _kinds(failure, told, root):
        if found:
            return errors.redact(f"{advice} | {said}"), code
    return errors.redact(f"{type(failure).__name__}: {said}"), errors.EXIT_INTERNAL


def barred(failure: BaseException) -> str:
    """Return the root cause if a file system denied reading or writing a path; otherwise an empty string."""
    told = _FRAMES.sub("", str(failure))
    root = told[_root(told) :]
    pattern = next(pattern for kind, pattern, _, _ in _STORE if kind == _BARRED)
    return root.strip() if explain(failure)[1] == errors.EXIT_BAD_INPUT and re.search(pattern, root) else ""


def _root(told: str) -> int:
    """Return the offset at which the deepest cause of a chain starts, or 0 if the chain has only one exception."""
    return max((match.end() for match in re.finditer(r"^Caused by: ", told, re.MULTILINE)), default=0)


def _kinds(failure: BaseException, told: str, root: str) -> Iterator[tuple[bool, int, str]]:
    """Yield for each kind of failure, in order of precedence: whether it matches, its exit code and the advice."""
    place = "spark.executor.memory (--executor-memory), or give each executor fewer spark.executor.cores"
    if not _IN_EXECUTOR.search(told):  # with --local, tasks run in the driver
        place = "spark.driver.memory (--driver-memory)"
    yield (
        bool(_OUT_OF_MEMORY.search(told)),
        errors.EXIT_BAD_CONFIG,
        f"Java ran out of memory, and a rerun with the same memory would, too; raise {place}",
    )
    yield (
        _lost_driver(failure) or bool(_GONE.search(told)),
        errors.EXIT_RETRYABLE,
        "Spark's JVM has ended, killed or out of memory; run again, with more memory for the driver if this repeats",
    )
    for kind, pattern, code, advice in _STORE:
        if kind == _FULL:
            yield bool(re.search(pattern, told)), code, advice
    yield (
        bool(_LOST.search(told)),
        errors.EXIT_RETRYABLE,
        "the cluster lost executors, their shuffle files or workers; run again, with more memory for executors if this "
        "repeats",
    )
    for _, pattern, code, advice in _STORE:
        yield bool(re.search(pattern, root)), code, advice


def _lost_driver(failure: BaseException) -> bool:
    # If the JVM is dead, py4j's message names only the failed call.
    silent = type(failure) is Py4JError and re.fullmatch(r"An error occurred while calling \S+", str(failure).strip())
    return bool(silent) or isinstance(failure, Py4JNetworkError | ConnectionRefusedError | ConnectionResetError)
