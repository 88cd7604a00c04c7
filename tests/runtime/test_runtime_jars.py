"""The check of the JVM's jars: a missing or wrong one is named before any job dies of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from geosieve.runtime import jars
from geosieve.runtime.errors import ConfigError, IntegrityError, RetryableError

JARS = Path(pyspark.__file__).parent / "jars"


def test_all_declared_jars_are_there(spark: SparkSession) -> None:
    jars.check(spark, jars.ALL)


def test_a_missing_jar_is_named_with_its_coordinate(spark: SparkSession) -> None:
    absent = jars.Jar("org.example", "absent_2.12", "1.0", "org.example.absent.Thing", "0" * 64)
    with pytest.raises(ConfigError, match=re.escape("org.example:absent_2.12:1.0")) as caught:
        jars.check(spark, (absent,))
    assert caught.value.exit_code == 78
    assert all(jar.coordinate in caught.value.hint for jar in jars.ALL)


def test_a_jar_of_another_version_is_named_with_both(spark: SparkSession) -> None:
    sedona = jars.SPATIAL[0]
    with pytest.raises(ConfigError) as caught:
        jars.check(spark, (replace(sedona, version="9.9.9"),))
    assert sedona.file_name in caught.value.what
    assert f"{sedona.artifact}:9.9.9" in caught.value.what


def test_the_hadoop_jars_are_of_spark_s_hadoop(spark: SparkSession) -> None:
    # Another hadoop-aws fails at the first request, with NoSuchMethodError.
    hadoop = spark._jvm.org.apache.hadoop.util.VersionInfo.getVersion()
    (aws,) = (jar for jar in jars.S3 if jar.artifact == "hadoop-aws")
    assert aws.version == hadoop


def test_nothing_is_fetched_when_all_jars_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for jar in jars.ALL:
        (tmp_path / jar.file_name).symlink_to(JARS / jar.file_name)

    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.run", no_process)
    assert jars.fetch(tmp_path) == [tmp_path / jar.file_name for jar in jars.ALL]


def test_only_missing_jars_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for jar in jars.ALL:
        (tmp_path / jar.file_name).symlink_to(JARS / jar.file_name)
    asked: list[list[str]] = []

    def failing(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, "", "no network")

    monkeypatch.setattr("subprocess.run", failing)
    with pytest.raises(RetryableError, match="no network"):
        jars.main([str(tmp_path), "aws"])
    (command,) = asked
    assert command[command.index("--packages") + 1] == "org.apache.iceberg:iceberg-aws-bundle:1.10.1"


def test_a_jar_with_other_bytes_is_refused(tmp_path: Path) -> None:
    for jar in jars.ALL:
        (tmp_path / jar.file_name).symlink_to(JARS / jar.file_name)
    changed = tmp_path / jars.S3[0].file_name
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.unlink()
    changed.write_bytes(content)
    with pytest.raises(IntegrityError, match=re.escape(jars.S3[0].coordinate)) as refused:
        jars.fetch(tmp_path)
    assert refused.value.where == str(changed)


def test_without_a_folder_the_coordinates_are_printed_for_spark_submit(capsys: pytest.CaptureFixture[str]) -> None:
    assert jars.main([]) == 0
    assert capsys.readouterr().out.strip() == ",".join(jar.coordinate for jar in jars.ALL)
