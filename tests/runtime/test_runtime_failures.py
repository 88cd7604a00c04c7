"""From any failure to an exit code that a scheduler can act on and a message for people."""

from __future__ import annotations

import pickle

import pytest
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
