"""Configuration files: what is refused, in which words, and what `--set` does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from geosieve.runtime.config import Config, RunId, load, read_yaml, validate
from geosieve.runtime.errors import ConfigError


class Square(Config):
    shape: Literal["square"]
    side_km: float


class Circle(Config):
    shape: Literal["circle"]
    radius_km: float


class Rule(Config):
    pattern: str
    priority: int = 0


class Example(Config):
    name: str
    workers: int = Field(1, ge=1)
    rules: list[Rule] = []
    default_rule: Rule | None = None
    area: Annotated[Square | Circle, Field(discriminator="shape")] = Circle(shape="circle", radius_km=1.0)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.yaml"
    path.write_text("name: a\nrules:\n  - {pattern: '*.tif'}\n")
    return path


def _refusal(path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(Example, path, overrides)
    assert caught.value.exit_code == 78
    return caught.value


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("worker=2", "workers"),
        ("nmae=b", "name"),
        ("rules=[{pattern: x, prioritty: 1}]", "priority"),
        ("default_rule={pattern: x, paturn: y}", "pattern"),
        ("area={shape: square, side_km: 1, side: 2}", "side_km"),
        ("area={shape: circle, radius_km: 1, radius: 2}", "radius_km"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(example: Path, override: str, nearest: str) -> None:
    refusal = _refusal(example, override)
    assert f"unknown key; did you mean {nearest!r}?" in refusal.what
    assert refusal.where == str(example)


def test_an_unknown_key_without_a_near_one_gets_the_keys_of_its_own_section(example: Path) -> None:
    assert "valid keys: area, default_rule, name, rules, workers" in _refusal(example, "zzzzzz=1").what
    # The keys of the other shape would be wrong here.
    assert "valid keys: shape, side_km" in _refusal(example, "area={shape: square, side_km: 1, zzz: 2}").what


def test_a_value_that_is_none_of_a_few_is_refused_with_the_nearest(example: Path) -> None:
    what = _refusal(example, "area={shape: sqare, side_km: 1}").what
    assert "did you mean 'square'?" in what and "circle" in what

    class Sorted(Config):
        order: Literal["ascending", "descending"]

    with pytest.raises(ConfigError, match=r"order: .*did you mean 'descending'\?"):
        validate(Sorted, {"order": "decending"}, "c.yaml")


def test_every_fault_is_named_with_its_key(example: Path) -> None:
    what = _refusal(example, "workers=0", "name=[1]", "typo_key=1").what
    for key in ("workers: ", "name: ", "typo_key: "):
        assert key in what


def test_values_of_set_are_yaml(example: Path) -> None:
    config = load(Example, example, ["workers=3", "default_rule.pattern='7'", "area={shape: square, side_km: 2}"])
    assert config.workers == 3
    assert config.default_rule == Rule(pattern="7")
    assert config.area == Square(shape="square", side_km=2.0)


def test_set_reaches_into_sections_and_the_last_one_wins(example: Path) -> None:
    config = load(Example, example, ["default_rule={pattern: a, priority: 1}", "default_rule.priority=2", "name=x=y"])
    assert config.default_rule == Rule(pattern="a", priority=2)
    assert config.name == "x=y"


@pytest.mark.parametrize("override", ["workers", "=3", "name.first=x", "workers=[1", ""])
def test_a_malformed_set_is_refused_as_such(example: Path, override: str) -> None:
    assert "--set" in str(_refusal(example, override))


@pytest.mark.parametrize(
    ("content", "says"),
    [("- a\n- b\n", "mapping"), ("name: [", "unreadable"), ("", "mapping"), ("\udcff", "unreadable")],
)
def test_a_file_that_is_no_yaml_mapping_is_refused_by_name(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    refusal = _refusal(path)
    assert says in refusal.what
    assert refusal.where == str(path)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        assert str(path) in str(_refusal(path))


def test_a_loaded_configuration_does_not_change(example: Path) -> None:
    config = load(Example, example)
    with pytest.raises(ValidationError):
        config.workers = 5  # type: ignore[misc]


def test_the_digest_tells_values_apart_and_not_the_order_or_omission_of_keys(tmp_path: Path) -> None:
    texts = ["name: a\nworkers: 1\n", "workers: 1\nname: a\n", "name: a\n", "name: a\nworkers: 2\n"]
    digests = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        digests.append(load(Example, path).digest())
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert len(digests[0]) == 64


def test_a_key_that_a_later_version_adds_leaves_the_digest_as_it_was() -> None:
    class Later(Example):
        hurry: bool = False
        limits: Rule = Rule(pattern="*")

    content = {"name": "a", "rules": [{"pattern": "*.tif"}]}
    digest = Example.model_validate(content).digest()
    assert Later.model_validate(content).digest() == digest
    assert Later.model_validate({**content, "limits": {"pattern": "*"}}).digest() == digest
    assert Later.model_validate({**content, "hurry": True}).digest() != digest


class Input(Config):
    run: RunId = "latest"
    sources: list[str] = []
    weights: dict[str, float] = {}
    header: bool = True
    nodata: float | None = None
    band: int = 1


@pytest.mark.parametrize(
    "run",
    [
        *("2026-11-21", "20261121", "nightly-7", "no", "NO", "on", "yes", "off", "y", "n"),
        *("010", "0o17", "0x1F", "1e3", "1.10", "1.0", "1:30", "12:30:45", "1_000", "+5", "-0", "nan"),
    ],
)
def test_text_that_yaml_takes_for_something_else_is_text(tmp_path: Path, run: str) -> None:
    (tmp_path / "c.yaml").write_text(f"run: {run}\n")
    assert load(Input, tmp_path / "c.yaml").run == run
    assert load(Input, tmp_path / "c.yaml", [f"run={run}"]).run == run
    (tmp_path / "c.yaml").write_text(f"sources: [{run}]\nweights: {{{run}: 1}}\n")
    assert load(Input, tmp_path / "c.yaml") == Input(sources=[run], weights={run: 1})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("header: no", Input(header=False)),
        ("header: off", Input(header=False)),
        ("header: true", Input(header=True)),
        ("nodata: 1e3", Input(nodata=1000)),
        ("nodata: -9999", Input(nodata=-9999)),
        ("nodata: -3.40282e+38", Input(nodata=-3.40282e38)),
        ("nodata: .5", Input(nodata=0.5)),
        ("nodata: -.inf", Input(nodata=float("-inf"))),
        ("nodata: ~", Input(nodata=None)),
        ("nodata:", Input(nodata=None)),
        ("nodata: null", Input(nodata=None)),
        ("band: 010", Input(band=10)),  # as people count
        ("band: 1_0", Input(band=10)),
    ],
)
def test_where_a_number_or_a_boolean_is_wanted_text_is_read_as_one(tmp_path: Path, text: str, found: Input) -> None:
    (tmp_path / "c.yaml").write_text(text + "\n")
    assert load(Input, tmp_path / "c.yaml") == found
    (tmp_path / "c.yaml").write_text("run: r\n")
    key, _, value = text.partition(":")
    assert load(Input, tmp_path / "c.yaml", [f"{key}={value}"]) == found.model_copy(update={"run": "r"})


def test_nodata_may_be_yaml_s_nan(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("nodata: .nan\n")
    nodata = load(Input, tmp_path / "c.yaml").nodata
    assert nodata is not None and nodata != nodata


def test_a_boolean_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sources: [true]\n")
    with pytest.raises(ConfigError, match=r"sources\.0: .*string"):
        load(Input, tmp_path / "c.yaml")


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("run: a\nweights:\n  x: 1\n  y: 2\n  x: 3\n")
    with pytest.raises(ConfigError, match=r"(?s)key 'x' stands there twice.*line 3"):
        load(Input, tmp_path / "c.yaml")


def test_a_configuration_that_is_too_large_is_refused_and_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1\n" + "# comment\n" * (1 << 21))
    with pytest.raises(ConfigError, match="more than 16 MiB"):
        read_yaml(path)
