"""Configuration: YAML files checked by pydantic models, overridden by `--set a.b=c`."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from geosieve.runtime.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration class: unknown keys are refused and values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form, in hex."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


C = TypeVar("C", bound=Config)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping. ConfigError if the file is missing, no YAML, or no mapping."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such configuration file", where=str(path), hint="see conf/ for examples") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"unreadable configuration: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise ConfigError("a configuration file must hold a YAML mapping", where=str(path))
    return content


def _as_run_id(value: Any) -> Any:
    """YAML takes 2026-11-21 for a date and 20261121 for a number."""
    return str(value) if isinstance(value, date) or type(value) is int else value


RunId = Annotated[str, BeforeValidator(_as_run_id)]
"""A run id in a configuration, or a word for several."""


def load(model: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Load `path` as `model` with `a.b=value` overrides applied; values are read as YAML.

    ConfigError names the file, the key and, for an unknown key, the nearest valid one.
    """
    content = read_yaml(path)
    for override in overrides:
        _apply(content, override)
    return validate(model, content, where=str(path))


def validate(model: type[C], content: Mapping[str, Any], where: str) -> C:
    """Check `content` against `model`; ConfigError lists every fault."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = [_describe(model, fault) for fault in error.errors()]
        raise ConfigError("; ".join(faults), where=where) from None


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not of the form key=value", where="--set")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not YAML: {error}", where="--set") from error
    *parents, last = key.split(".")
    node: Any = content
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {parent!r} is a value, not a section", where="--set")
    node[last] = value


def _describe(model: type[BaseModel], fault: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in fault["loc"]) or "(whole file)"
    if fault["type"] != "extra_forbidden":
        return f"{key}: {fault['msg']}"
    valid = _fields_at(model, fault["loc"][:-1])
    near = difflib.get_close_matches(str(fault["loc"][-1]), valid, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(sorted(valid))}"
    return f"{key}: unknown key; {advice}"


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Names of the fields of the model that stands at `loc` below `model`, of several if it is not known which."""
    models = [model]
    for part in loc:
        fields = [m.model_fields[part].annotation for m in models if isinstance(part, str) and part in m.model_fields]
        inner = [found for annotation in fields for found in _models_in(annotation)]
        models = inner or [m for m in models if part in _tags(m)] or models
    return sorted({name for m in models for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _tags(model: type[BaseModel]) -> list[Any]:
    """Values by which a union tells this model from the others."""
    annotations = (field.annotation for field in model.model_fields.values())
    return [tag for annotation in annotations if get_origin(annotation) is Literal for tag in get_args(annotation)]
