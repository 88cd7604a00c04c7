"""Credentials do not reach logs, reports, errors or plans."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geosieve.runtime.errors import InputError, redact
from geosieve.runtime.failures import explain
from geosieve.runtime.logs import JsonLines
from geosieve.runtime.report import JobReport

SIGNED = (
    "https://bucket.s3.amazonaws.com/map.tif?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F2024&"
    "X-Amz-Signature={secret}&X-Amz-Security-Token={secret}"
)
FORMS = [
    SIGNED,
    "https://bucket.s3.amazonaws.com/map.tif?AWSAccessKeyId=AKIA&Signature={secret}&Expires=1",
    "https://account.blob.core.windows.net/c/map.tif?sv=2022&sig={secret}&se=2024",
    "s3a://AKIAKEY:{secret}@bucket/map.tif",
    "https://user:{secret}@store.example/map.tif cannot be read",
    "spark.hadoop.fs.s3a.secret.key={secret}",
    "fs.s3a.session.token={secret}",
    "AWS_SECRET_ACCESS_KEY={secret} AWS_SESSION_TOKEN={secret}",
    "db_password={secret}",
    "AWS_SECRET_ACCESS_KEY: {secret}",
    "https://store.example/map.tif?api_key={secret}",
    "Authorization: Bearer {secret}",
    '{{"fs.s3a.secret.key": "{secret}", "password":"{secret}"}}',
]


@pytest.mark.parametrize("form", FORMS)
@given(secret=st.text(st.sampled_from("ABCDEFGHJKLmnopqrstuvwxyz0123456789+/_-.~"), min_size=8, max_size=40))
def test_no_part_of_a_secret_remains(form: str, secret: str) -> None:
    if "@" in form and not form.startswith("s3a"):
        secret = secret.replace("/", "%2F")  # as a URI demands
    text = redact(form.format(secret=secret))
    assert secret not in text
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "s3a://bucket/signature/tokens/map.tif",
        "the point (lat=59.9, lon=10.7) lies in cell 465b",
        "Expected token: ';' at line 3",
        "mail someone@example.org",
        "labels/run_id=20240101T000000Z",
        "keys=3 assigned=5 design=x",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_redacted_json_is_still_json() -> None:
    text = json.dumps(
        {"uri": SIGNED.format(secret="abc"), "nested": json.dumps({"password": "abc", "n": 1}), "last": 2}
    )
    found = json.loads(redact(text))
    assert found["last"] == 2
    assert json.loads(found["nested"]) == {"password": "***", "n": 1}


def test_errors_reports_and_log_lines_hold_no_secret() -> None:
    text = SIGNED.format(secret="deadbeef")
    error = InputError(f"cannot read {text}", where=text, hint=f"sign {text} anew")
    report = JobReport("job", "r", outputs=[text], details={"inputs": {"uri": text}}, error=text)
    report.warn(f"slow: {text}")
    record = logging.makeLogRecord({"msg": text, "levelno": 30, "levelname": "WARNING", "fields": {"traceback": text}})
    for shown in (
        str(error),
        explain(error)[0],
        explain(ValueError(text))[0],
        report.to_json(),
        JsonLines().format(record),
    ):
        assert "deadbeef" not in shown
        assert "map.tif" in shown  # the file is still named
