"""From any failure to an exit code that a scheduler can act on and a message for people."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.sql import SparkSession

from geosieve.runtime import errors
from geosieve.runtime.failures import explain, of_store

S3A = "An error occurred while calling o61.listStatus.\n: "
GDAL_503 = (
    "Read failed. See previous exception for details. | CPLE_AppDefined:HTTP error code: 503 - "
    "https://bucket.s3.amazonaws.com/a.tif. Retrying again in 0.5 secs"
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 78),
        (errors.InputError, 65),
        (errors.RetryableError, 75),
        (errors.IntegrityError, 70),
        (errors.GeosieveError, 70),
    ],
)
def test_own_errors_have_their_exit_codes_and_survive_pickle(kind: type[errors.GeosieveError], code: int) -> None:
    error = kind("what", where="s3a://b/k", hint="do this")
    assert explain(error) == ("what | at s3a://b/k | do this", code)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.what, copy.where, copy.hint) == ("what", "s3a://b/k", "do this")


@pytest.mark.parametrize("kind", [errors.InputError, errors.RetryableError])
def test_own_errors_raised_in_a_worker_arrive_as_they_are(
    spark: SparkSession, kind: type[errors.GeosieveError]
) -> None:
    def fail(number: int) -> int:
        raise kind("the raster cannot be read", where="s3a://bucket/tile.tif", hint="replace the file")

    with pytest.raises(Exception) as caught:
        spark.sparkContext.parallelize([1], 1).map(fail).collect()
    message, code = explain(caught.value)
    assert message == "the raster cannot be read | at s3a://bucket/tile.tif | replace the file"
    assert code == kind.exit_code


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("org.apache.hadoop.fs.FSError: java.io.IOException: No space left on device", 75, "disk is full"),
        ("OSError: [Errno 122] Disk quota exceeded: '/data/part-0'", 75, "disk is full"),
        (
            f"{S3A}java.nio.file.AccessDeniedException: s3a://b/k: getFileStatus on s3a://b/k: com.amazonaws.services."
            "s3.model.AmazonS3Exception: Forbidden (Service: Amazon S3; Status Code: 403; Error Code: 403 Forbidden)",
            65,
            "403",
        ),
        (
            f"{S3A}org.apache.hadoop.fs.s3a.AWSBadRequestException: getFileStatus on s3a://b/k: com.amazonaws.services."
            "s3.model.AmazonS3Exception: Bad Request (Service: Amazon S3; Status Code: 400; Error Code: 400 Bad "
            "Request; Request ID: null)",
            65,
            "may have expired",
        ),
        (f"{S3A}org.apache.hadoop.fs.s3a.UnknownStoreException: `s3a://b/': (NoSuchBucket)", 65, "404"),
        (f"{S3A}java.io.FileNotFoundException: No such file or directory: s3a://b/k", 65, "404"),
        ("[PATH_NOT_FOUND] Path does not exist: file:/x.", 65, "404"),
        (
            f"{S3A}org.apache.hadoop.fs.s3a.AWSServiceThrottledException: s3a://b/k: Please reduce your request rate. "
            "(Service: Amazon S3; Status Code: 503; Error Code: SlowDown)",
            75,
            "retry budget",
        ),
        ("com.amazonaws.services.s3.model.AmazonS3Exception: Internal (Status Code: 500)", 75, "retry budget"),
        ("java.net.ConnectException: Connection refused", 75, "retry budget"),
        ("java.net.SocketTimeoutException: Read timed out", 75, "retry budget"),
        (GDAL_503, 75, "retry budget"),
        ("HTTP response code on https://b.s3.amazonaws.com/tile.tif: 403", 65, "403"),
        # Nothing about a store: neither the number in a name nor a count.
        ("tile_503.tif: not recognized as a supported file format", 70, "tile_503.tif"),
        ("expected 403 rows, found 404", 70, "expected 403 rows"),
    ],
)
def test_foreign_failures_are_told_apart_by_what_they_say(text: str, code: int, says: str) -> None:
    message, found = explain(RuntimeError(text))
    assert (found, says in message) == (code, True), message


_FRAMES = "\n".join(
    f"\tat org.apache.spark.scheduler.DAGScheduler.$anonfun$abortStage${k}(DAGScheduler.scala:{k})" for k in range(500)
)
_CALL = "An error occurred while calling o61.save.\n: org.apache.spark.SparkException: "
_STAGE = f"{_CALL}Job aborted due to stage failure: Task 3 in stage 1.0 failed 4 times, most recent failure: "
_LOST_TASK = f"{_STAGE}Lost task 3.3 in stage 1.0 (TID 7) (node-7 executor 5): "
_SHUFFLE_FILE = "/mnt/spark/blockmgr-998cc4f7-0a97/3e/shuffle_9_868_0.index"


def _trace(headline: str, *causes: str) -> str:
    driver = f"\n{_FRAMES}\n\nDriver stacktrace:\n{_FRAMES}"
    return headline + driver + "".join(f"\nCaused by: {cause}\n{_FRAMES}\n\t... 32 more" for cause in causes)


# Shortened from what is reported publicly of Spark on YARN, Kubernetes and EMR.
CLUSTER = {
    "killed for memory": _trace(
        f"{_LOST_TASK}ExecutorLostFailure (executor 5 exited caused by one of the running tasks) Reason: Container "
        "from a bad node: container_01 on host: node-7. Exit status: 137. Diagnostics: Container killed on request. "
        "Exit code is 137"
    ),
    "killed on Kubernetes": _trace(
        f"{_LOST_TASK}ExecutorLostFailure (executor 5 exited caused by one of the running tasks) Reason: \n"
        "The executor with id 5 exited with exit code 137(SIGKILL, possible container OOM)."
    ),
    "machine lost": _trace(f"{_LOST_TASK}ExecutorLostFailure (executor 5 exited unrelated to the tasks) Slave lost"),
    "spot machine": _trace(f"{_LOST_TASK}Executor decommission: spot instance interruption"),
    "no metadata": _trace(
        f"{_CALL}Job aborted due to stage failure: ShuffleMapStage 9 has failed the maximum allowable number of times: "
        "4. Most recent failure reason: org.apache.spark.shuffle.MetadataFetchFailedException: Missing an output "
        "location for shuffle 0 partition 65 \tat org.apache.spark.MapOutputTracker$.status(MapOutputTracker.scala:5)"
    ),
    "shuffle file": _trace(
        f"{_CALL}Job aborted due to stage failure: ResultStage 33 has failed the maximum allowable number of times: 4. "
        f"Most recent failure reason: org.apache.spark.shuffle.FetchFailedException: {_SHUFFLE_FILE}",
        f"java.io.FileNotFoundException: {_SHUFFLE_FILE} (No such file or directory)",
    ),
    "local file of a shuffle": _trace(
        f"{_LOST_TASK}java.io.FileNotFoundException: {_SHUFFLE_FILE}.dd7775f5 (No such file or directory)",
        f"java.io.FileNotFoundException: {_SHUFFLE_FILE}.dd7775f5 (No such file or directory)",
    ),
    "worker": _trace(
        f"{_LOST_TASK}org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)",
        "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)",
        "java.io.EOFException",
    ),
    "context": f"{_CALL}Job 3 cancelled because SparkContext was shut down",
    "files of a write": _trace(
        f"{_CALL}Job aborted.", "java.io.FileNotFoundException: File file:/t/labels/_temporary/0/task_1 does not exist"
    ),
}


@pytest.mark.parametrize("text", CLUSTER.values(), ids=CLUSTER.keys())
def test_what_a_cluster_loses_may_be_tried_again_and_is_no_missing_file(text: str) -> None:
    message, code = explain(RuntimeError(text))
    assert code == 75
    assert "404" not in message and "run again" in message
    assert len(message) < 3000


@pytest.mark.parametrize(
    "failure",
    [
        Py4JNetworkError("Answer from Java side is empty"),
        Py4JError("An error occurred while calling o42.count"),
        ConnectionRefusedError(111, "Connection refused"),
        ConnectionResetError(104, "Connection reset by peer"),
        RuntimeError("An error occurred while trying to connect to the Java server (127.0.0.1:43323)"),
    ],
    ids=repr,
)
def test_a_dead_jvm_may_be_tried_again(failure: Exception) -> None:
    message, code = explain(failure)
    assert (code, "JVM has ended" in message) == (75, True)


_HEAP = "java.lang.OutOfMemoryError: Java heap space"
# Shortened from what is reported publicly of Spark: in a task, in a whole executor, in a task that runs in the driver,
# in the driver.
OUT_OF_MEMORY = {
    "task": (_trace(f"{_LOST_TASK}{_HEAP}", _HEAP), "spark.executor.memory"),
    "exchange": (
        _trace(f"{_LOST_TASK}org.apache.spark.memory.SparkOutOfMemoryError: Unable to acquire 65536 bytes of memory"),
        "spark.executor.memory",
    ),
    "executor": (
        _trace(
            f"{_LOST_TASK}ExecutorLostFailure (executor 5 exited caused by one of the running tasks) Reason: Container "
            "marked as failed: container_01 on host: node-7. Exit status: 52. Diagnostics: Exception from container."
        ),
        "spark.executor.memory",
    ),
    "local": (
        _trace(f"{_STAGE}Lost task 3.0 in stage 1.0 (TID 7) (laptop executor driver): {_HEAP}", _HEAP),
        "spark.driver.memory",
    ),
    "local process": (
        _trace(
            f"{_STAGE}Lost task 3.0 in stage 1.0 (TID 7) (laptop executor driver): ExecutorLostFailure (executor "
            f"driver exited caused by one of the running tasks) Reason: Uncaught exception: {_HEAP}"
        ),
        "spark.driver.memory",
    ),
    "driver": (
        "An error occurred while calling o6.collect.\n: java.lang.OutOfMemoryError: GC overhead limit exceeded",
        "spark.driver.memory",
    ),
}


@pytest.mark.parametrize(("text", "option"), OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
def test_a_heap_that_is_too_small_is_configuration_and_the_option_is_named(text: str, option: str) -> None:
    message, code = explain(RuntimeError(text))
    assert code == errors.EXIT_BAD_CONFIG  # tried again with the same memory, it fails again
    assert f"raise {option}" in message


def test_javas_own_error_of_a_full_heap_is_told(spark: SparkSession) -> None:
    jvm: Any = spark._jvm
    with pytest.raises(Exception, match="OutOfMemoryError") as caught:
        jvm.java.lang.reflect.Array.newInstance(jvm.java.lang.Long.TYPE, 2**31 - 8)  # 16 GiB
    message, code = explain(caught.value)
    assert (code, "spark.driver.memory" in message) == (78, True)


@pytest.mark.parametrize(
    ("causes", "code", "says"),
    [
        (["java.io.IOException: x", "java.io.FileNotFoundException: No such file or directory: s3a://b/k"], 65, "404"),
        (["java.io.FileNotFoundException: /d/x.csv (Permission denied)"], 65, "permissions"),
        (["java.io.FileNotFoundException: /d/x.csv (Operation not permitted)"], 65, "permissions"),
        (["org.apache.hadoop.security.AccessControlException: Permission denied: user=a, access=WRITE"], 65, "permiss"),
        (["java.io.IOException: Mkdirs failed to create file:/proc/x (exists=false)"], 65, "permissions"),
        # Others that are Java's FileNotFoundException and no missing file, or where one was looked for in vain and that
        # was not what failed.
        (["java.io.FileNotFoundException: /d/x.csv (Too many open files)"], 70, "Too many open files"),
        (["java.io.FileNotFoundException: /etc/optional.xml", "java.lang.IllegalStateException: bad"], 70, "bad"),
        # The disk was full where the shuffle was written: that is what is to be mended.
        (
            ["org.apache.spark.shuffle.FetchFailedException: x", "java.io.IOException: No space left on device"],
            75,
            "full",
        ),
    ],
)
def test_the_root_cause_of_a_long_trace_decides(causes: list[str], code: int, says: str) -> None:
    message, found = explain(RuntimeError(_trace(f"{_CALL}Job aborted.", *causes)))
    assert (found, says in message) == (code, True), message


def test_frames_say_nothing() -> None:
    frames = "\n".join(
        f"\tat org.apache.spark.{name}.run({name}.scala:503)"
        for name in ("FileNotFoundException", "shuffle.FetchFailedException", "deploy.Decommissioner")
    )
    suppressed = "\n\tSuppressed: java.io.IOException: close\n\tCaused by: java.io.FileNotFoundException: /x"
    message, code = explain(RuntimeError(f"{_CALL}Job aborted.\n{frames}\nCaused by: a.B: odd\n{frames}"))
    assert (code, "odd" in message, "FetchFailed" in message) == (70, True, False)
    assert explain(RuntimeError(f"{_CALL}Job aborted.\nCaused by: a.B: odd{suppressed}"))[1] == 70


def test_an_unknown_failure_names_its_class() -> None:
    message, code = explain(ZeroDivisionError("division by zero"))
    assert code == 70
    assert message == "ZeroDivisionError: division by zero"


def test_only_a_store_in_trouble_excuses_a_file() -> None:
    throttled = of_store(GDAL_503, "s3a://bucket/a.tif")
    assert isinstance(throttled, errors.RetryableError)
    refused = of_store("Access Denied", "s3a://bucket/a.tif")
    assert isinstance(refused, errors.InputError)
    assert throttled.where == refused.where == "s3a://bucket/a.tif"
    for own_fault in (
        "The specified key does not exist.",
        "TIFFReadEncodedTile() failed.",
        "'/data/scan_503.tif' not recognized as being in a supported file format.",
        "/data/403/a.tif: No such file or directory",
    ):
        assert of_store(own_fault, "a.tif") is None
