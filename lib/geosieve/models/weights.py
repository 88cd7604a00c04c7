"""Initial weights of a backbone, from a file that is named. Nothing is downloaded; nothing but tensors is unpickled."""

from __future__ import annotations

import io
import pickle
import re
import struct
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from geosieve.runtime.errors import ConfigError, InputError

PACKAGE = "package:"
"""An address `package:NAME/PATH` is a file of an installed Python package."""

_LISTED = 8
_CLASSIFIERS = re.compile(r"^(classifier|fc|head|_fc|head\.fc)\.(weight|bias)$")
# Names in the files of lukemelas/EfficientNet-PyTorch, which others took over, and in timm.
_STEM = {"_conv_stem.": "conv_stem.", "_bn0.": "bn1.", "_conv_head.": "conv_head.", "_bn1.": "bn2."}
_BLOCK = re.compile(r"^_blocks\.(\d+)\.(.*)$")
_EXPANDED = {
    "_expand_conv.": "conv_pw.",
    "_bn0.": "bn1.",
    "_depthwise_conv.": "conv_dw.",
    "_bn1.": "bn2.",
    "_project_conv.": "conv_pwl.",
    "_bn2.": "bn3.",
}
_PLAIN = {"_depthwise_conv.": "conv_dw.", "_bn1.": "bn1.", "_project_conv.": "conv_pw.", "_bn2.": "bn2."}


def load_backbone(backbone: nn.Module, uri: str) -> None:
    """Set the weights of a `timm` backbone to those of a local file: safetensors, or PyTorch's with tensors only.

    `uri` is a path, or `package:NAME/PATH`. A classifier in the file is left out. InputError if the file is damaged or
    holds anything but tensors; if one of the backbone's weights is missing, or one of the file's has another shape or
    no place. Then nothing is changed.
    """
    path = _path(uri)
    weights = _in_timm_names(_read(path, uri), backbone)
    own = backbone.state_dict()
    extra = [name for name in weights if name not in own and not _CLASSIFIERS.match(name)]
    # Counters of batches, which old files lack, have no influence.
    missing = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    other = [
        f"{name} of shape {tuple(weights[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    faults = [
        f"{len(names)} {text}: {', '.join(names[:_LISTED])}{' …' if len(names) > _LISTED else ''}"
        for text, names in (("missing", missing), ("without a place", extra), ("of another shape", other))
        if names
    ]
    broken = [name for name in own if name in weights and not torch.isfinite(weights[name].float()).all()]
    if broken:
        faults.append(f"{len(broken)} not finite: {', '.join(broken[:_LISTED])}")
    if faults:
        raise InputError(
            f"the weights do not fit the backbone: {'; '.join(faults)}", where=uri, hint="another backbone"
        )
    backbone.load_state_dict({name: weights.get(name, value) for name, value in own.items()})


def _path(uri: str) -> Path:
    if not uri.startswith(PACKAGE):
        path = Path(uri.removeprefix("file:"))
        if not path.is_file():
            raise ConfigError("no such file of weights", where=uri, hint="give the path of a file on this machine")
        return path
    package, _, inside = uri.removeprefix(PACKAGE).partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or spec.origin is None:
        raise ConfigError(f"no package {package!r} is installed", where=uri, hint=f"pip install {package}")
    path = Path(spec.origin).parent / inside
    if not path.is_file():
        raise ConfigError(f"package {package} has no file {inside!r}", where=uri)
    return path


def _read(path: Path, uri: str) -> dict[str, torch.Tensor]:
    content = path.read_bytes()
    try:
        if _is_safetensors(content):
            return dict(load(content))
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError, struct.error) as error:
        raise InputError(f"the file of weights cannot be read: {str(error)[:200]}", where=uri) from None
    except pickle.UnpicklingError as error:  # code instead of tensors
        raise InputError(
            f"the file holds more than tensors and was not opened: {str(error)[:120]}", where=uri
        ) from None
    found = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InputError("the file holds no weights by name", where=uri)
    return dict(found)


def _is_safetensors(content: bytes) -> bool:
    """By the start of a safetensors file: the length of its header, then the header, which is JSON."""
    return len(content) > 9 and content[8:9] == b"{" and int.from_bytes(content[:8], "little") < len(content)


def _in_timm_names(weights: dict[str, torch.Tensor], backbone: Any) -> dict[str, torch.Tensor]:
    """The weights under timm's names; of the families of files that are known, their own names are replaced."""
    if not any(name.startswith("_conv_stem.") for name in weights):
        return weights
    stages = [len(stage) for stage in backbone.blocks]
    places = [(stage, block) for stage, n in enumerate(stages) for block in range(n)]
    expanded = {name.split(".")[1] for name in weights if "._expand_conv." in name}
    found = {}
    for name, value in weights.items():
        of_block = _BLOCK.match(name)
        if of_block is None:
            prefix = next((theirs for theirs in _STEM if name.startswith(theirs)), "")
            found[_STEM.get(prefix, "") + name.removeprefix(prefix)] = value
            continue
        number, rest = of_block.groups()
        names = _EXPANDED if number in expanded else _PLAIN
        prefix = next((theirs for theirs in names if rest.startswith(theirs)), "")
        if int(number) >= len(places):
            found[name] = value  # without a place
            continue
        stage, block = places[int(number)]
        found[f"blocks.{stage}.{block}.{names.get(prefix, '')}{rest.removeprefix(prefix)}"] = value
    return found
