"""Telling failures apart that reach the driver as text: from Python workers, from Hadoop and from GDAL.

Such a text is a chain of exceptions with hundreds of stack frames. Frames say nothing. That the cluster lost something
may stand anywhere in the chain; what a store answered is the chain's root cause. A shuffle file that is gone ends in
FileNotFoundException, too, and is no input that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from py4j.protocol import Py4JError, Py4JNetworkError

from geosieve.runtime import errors

_OURS = re.compile(r"geosieve\.runtime\.errors\.(\w+Error): ([^\n]*)")

_FRAMES = re.compile(
    r"(?:^|\s+)at \S+\((?:Native Method|Unknown Source|[\w$.-]+(?::\d+)?)\)|\n\s*\.\.\. \d+ more|"
    r"\n\s+(?:Suppressed|Caused by): [^\n]*"  # indented: of what failed while cleaning up
)

_GONE = re.compile(
    r"Answer from Java side is empty|while trying to connect to the Java server|Error while (?:sending|receiving)\b|"
    r"SparkContext was shut down|stopped SparkContext|SparkContext has been shutdown"
)
# Java's heap was too small for the work: a rerun with the same memory ends in the same way, so a scheduler must not try
# again. Spark ends an executor that met it with exit code 52. A container that was killed (137) is none of these: what
# else ran there counts, too.
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
    # shuffle files and cached blocks that were on them
    r"FetchFailed|Missing an output location for shuffle|Failed to get broadcast_\d|BlockNotFoundException|"
    r"Checkpoint block rdd_\S+ not found|/blockmgr-[0-9a-f-]+/|\bshuffle_\d+_\d+_\d+\.(?:index|data)|"
    # a Python worker that was killed, mostly for its memory
    r"Python worker exited unexpectedly|Python worker (?:failed to connect back|crashed)|"
    # files of a write under way, which another attempt cleared
    r"FileNotFoundException[^\n]*/(?:_temporary|__magic)/"
)

_THROTTLED, _REFUSED, _MISSING, _FULL, _BARRED = "throttled", "refused", "missing", "full", "barred"

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
    told = _FRAMES.sub("", text)
    root = told[_root(told) :]
    # The first exception names the place, the last one the reason.
    said = told[:2000] if root[:1000] in told[:2000] else f"{told[:1000]} … {root[:1000]}"
    for found, code, advice in _kinds(failure, told, root):
        if found:
            return errors.redact(f"{advice} | {said}"), code
    return errors.redact(f"{type(failure).__name__}: {said}"), errors.EXIT_INTERNAL


def barred(failure: BaseException) -> str:
    """The root cause of a failure where a file system does not let a path be read or written; else empty."""
    told = _FRAMES.sub("", str(failure))
    root = told[_root(told) :]
    pattern = next(pattern for kind, pattern, _, _ in _STORE if kind == _BARRED)
    return root.strip() if explain(failure)[1] == errors.EXIT_BAD_INPUT and re.search(pattern, root) else ""


def _root(told: str) -> int:
    """Where the deepest cause of a chain starts; 0 where it has no causes."""
    return max((match.end() for match in re.finditer(r"^Caused by: ", told, re.MULTILINE)), default=0)


def _kinds(failure: BaseException, told: str, root: str) -> Iterator[tuple[bool, int, str]]:
    """Whether the failure is of a kind, the kind's exit code and what to do, kind by kind."""
    place = "spark.executor.memory (--executor-memory), or give each executor fewer spark.executor.cores"
    if not _IN_EXECUTOR.search(told):  # with --local, tasks run in the driver, too
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
    # On a dead JVM, py4j says no more than which call it was.
    silent = type(failure) is Py4JError and re.fullmatch(r"An error occurred while calling \S+", str(failure).strip())
    return bool(silent) or isinstance(failure, Py4JNetworkError | ConnectionRefusedError | ConnectionResetError)
