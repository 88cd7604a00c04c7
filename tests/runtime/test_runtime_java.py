"""Spark 3.5 runs on Java 17: another is named before any job dies of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from geosieve.runtime import java
from geosieve.runtime.errors import ConfigError


def _install(folder: Path, version: str) -> None:
    script = folder / "bin" / "java"
    script.parent.mkdir(parents=True)
    script.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    script.chmod(0o755)


@pytest.mark.parametrize("version", ["25.0.1", "21.0.2", "11.0.22", "1.8.0_402", "9"])
def test_a_start_that_failed_on_another_java_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    _install(tmp_path, version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        java.explain_failed_start(RuntimeError("[JAVA_GATEWAY_EXITED]"))
    assert version in caught.value.what and "needs Java 17" in caught.value.what
    assert str(tmp_path) in caught.value.where and "JAVA_HOME" in caught.value.hint


def test_a_missing_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match="there is no Java"):
        java.explain_failed_start(RuntimeError("[JAVA_GATEWAY_EXITED]"))


def test_another_cause_is_not_blamed_on_java_17(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, "17.0.15")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    java.explain_failed_start(RuntimeError("a bad setting"))
