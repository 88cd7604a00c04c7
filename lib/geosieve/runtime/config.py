"""Configuration: YAML files validated by pydantic models, with overrides such as `--set a.b=c`.

Unquoted values stay text with few exceptions. Of plain words, only `true`, `false` and `null` have another meaning. A
number is recognized only if Python would write it in the same way. So `no` (Norway) stays text, and so do `010`, `1e3`,
`1.10` and `1:30`, which may be ids. If a field is a number or a boolean, pydantic converts the text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from geosieve.runtime import store
from geosieve.runtime.errors import ConfigError, InputError
from geosieve.runtime.names import advice, did_you_mean


class Config(BaseModel):
    """Base of every configuration class. Unknown keys are refused, and values cannot be changed after loading."""

    # Where text is expected, a number is accepted as text: in `name: 12`, the name is "12".
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form, in hex.

        Values that equal their defaults do not count: a run keeps its configuration when a later version has more keys.
        """
        content = self.model_dump(mode="json", exclude_defaults=True)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


C = TypeVar("C", bound=Config)

_MOST_BYTES = 1 << 24


class _Loader(yaml.SafeLoader):
    """YAML without the surprises of version 1.1.

    It recognizes no booleans such as `no`, no octal or base-60 numbers and no dates. A duplicate key is an error.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, times in keys.items():
            if times > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float | str:
        """Return a number if Python writes it in the same way or if it is `.nan` or `.inf`; otherwise the text."""
        text = str(self.construct_scalar(node))
        if text.lower().lstrip("+-") in (".nan", ".inf"):
            return float(text.replace(".", ""))
        for number in (int, float):
            try:
                if str(number(text)) == text:
                    return number(text)
            except ValueError:
                pass
        return text


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
    ("number", r"[-+]?[.\d].*", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:number", _Loader.construct_number)


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file with one mapping, from any store.

    Raises ConfigError if the file cannot be read, is not UTF-8 or YAML, exceeds 16 MiB or is not a mapping, and
    RetryableError if its store is throttled or down.
    """
    try:
        text = store.read(str(path), _MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ConfigError(f"a configuration of more than {_MOST_BYTES >> 20} MiB", where=str(path))
        content = _parse(text.decode())
    except InputError as error:
        raise ConfigError(f"no configuration: {error.what}", where=str(path), hint="see conf/ for examples") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"unreadable configuration: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise ConfigError("a configuration file must hold a YAML mapping", where=str(path))
    return content


RunId: TypeAlias = str
"""A run id in a configuration, or a keyword such as `latest` or `all`."""


def load(model: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Load the YAML file `path` as `model`, with overrides `a.b=value`, whose values are read as YAML.

    Raises the errors of `read_yaml`, and ConfigError if the content or an override is invalid. Its message names the
    file, the key and, for an unknown key, the nearest valid one.
    """
    content = read_yaml(path)
    for override in overrides:
        _apply(content, override)
    return validate(model, content, where=str(path))


def refuse_later(content: Mapping[str, Any], version: int, where: str) -> None:
    """ConfigError if a later version of this package wrote `content`. `version`: the latest that is known."""
    found = content.get("version")
    if isinstance(found, int) and found > version:
        raise ConfigError(f"a later geosieve wrote version {found}; this one reads up to {version}", where=where)


def validate(model: type[C], content: Mapping[str, Any], where: str) -> C:
    """Validate `content` as `model`. Raises ConfigError, which names `where` and lists every fault."""
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
        value = _parse(text)
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
    if fault["type"] == "extra_forbidden":
        valid = _fields_at(model, fault["loc"][:-1])
        return f"{key}: unknown key; {advice(str(fault['loc'][-1]), valid, 'valid keys')}"
    if fault["type"] in ("literal_error", "union_tag_invalid"):
        context = fault["ctx"]
        listed = re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags"))))
        near = did_you_mean(str(context.get("tag", fault["input"])), listed)
        return f"{key}: {fault['msg']}" + (f"; {near}" if near else "")
    return f"{key}: {fault['msg']}"


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the field names of the model at `loc` below `model`, or of all models that can be there."""
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
    """Return the values of the model's Literal fields, by which a union recognizes it."""
    annotations = (field.annotation for field in model.model_fields.values())
    return [tag for annotation in annotations if get_origin(annotation) is Literal for tag in get_args(annotation)]
