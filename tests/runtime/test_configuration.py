"""Configuration: a fault is told with its key, its file and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from geosieve.images.sources import IngestConfig
from geosieve.rasters.catalog import CatalogConfig
from geosieve.runtime.config import Config, load
from geosieve.runtime.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"


class Inner(Config):
    level: int = 3


class Outer(Config):
    name: str
    inner: Inner = Inner()
    several: list[Inner] = []


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    return path


def test_overrides_are_yaml_and_reach_below_sections(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\n")
    config = load(Outer, path, ["inner.level=7", "several=[{level: 1}, {level: 2}]", "name=x=y"])
    assert (config.inner.level, [i.level for i in config.several], config.name) == (7, [1, 2], "x=y")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nmae: a\n", "nmae: unknown key; did you mean 'name'"),
        ("name: a\ninner: {levl: 1}\n", "inner.levl: unknown key; did you mean 'level'"),
        ("name: a\nseveral: [{}, {levle: 1}]\n", "several.1.levle: unknown key; did you mean 'level'"),
        ("name: a\nzzz: 1\n", "valid keys: inner, name, several"),
        ("name: a\ninner: {level: deep}\n", "inner.level"),
        ("- a\n", "must hold a YAML mapping"),
        ("name: [\n", "unreadable configuration"),
        ("inner: {}\n", "name: Field required"),
    ],
)
def test_faults_are_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Outer, written(tmp_path, text))
    assert told in str(caught.value) and "conf.yaml" in str(caught.value)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("override", ["name", "=3", "name.deeper=1", "inner=[", "inner.level.x=2"])
def test_overrides_that_cannot_be_are_told(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load(Outer, written(tmp_path, "name: a\ninner: {level: 1}\n"), [override])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load(Outer, tmp_path / "none.yaml")


def test_equal_configurations_have_equal_digests(tmp_path: Path) -> None:
    one, other = load(Outer, written(tmp_path, "name: a\ninner: {level: 3}\n")), Outer(name="a")
    assert one.digest() == other.digest() != Outer(name="b").digest()


def test_every_configuration_in_conf_is_valid() -> None:
    for path in (CONF / "rasters").glob("*.yaml"):
        load(CatalogConfig, path)
    for path in (CONF / "sources").glob("*.yaml"):
        load(IngestConfig, path)
