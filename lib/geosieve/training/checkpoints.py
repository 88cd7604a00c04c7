"""States of a training on any store, so that it continues exactly where it was.

A state is one safetensors file: nothing is pickled. Its name has the number of the step and the start of the SHA-256 of
its content, so that a damaged or cut file is known before it is used. It appears under its name when it is whole: a
local file is written aside, forced to disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from geosieve.runtime.errors import InputError
from geosieve.runtime.logs import logger
from geosieve.runtime.store import delete_file, list_folder, read_file, write_file

_NAME = re.compile(r"^(step|best)-(\d{10})-([0-9a-f]{16})\.safetensors$")
_FACTS = "state"


@dataclass(frozen=True)
class State:
    """What a checkpoint holds: tensors by name, and facts that JSON can hold."""

    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, in the folder `uri`.

    `identity` says which training it is: configuration, shards and partitions. `keep`: how many are kept.
    """

    uri: str
    identity: str
    keep: int

    def save(self, state: State, step: int, best: bool = False) -> None:
        """Write a state, and remove older ones, also of the same step: an epoch may end with one that saves.

        `best`: in place of the best so far.
        """
        facts = json.dumps({**state.facts, "identity": self.identity, "step": step})
        content = save({name: value.contiguous() for name, value in state.tensors.items()}, {_FACTS: facts})
        kind = "best" if best else "step"
        of_step = f"{kind}-{step:010d}-"
        name = f"{of_step}{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
        write_file(f"{self.uri}/{name}", content)
        names = self._names(kind)
        older = [other for other in names if not other.startswith(of_step)]
        kept = {name, *([] if best else older[max(0, len(older) + 1 - self.keep) :])}
        for other in names:
            if other not in kept:
                delete_file(f"{self.uri}/{other}")

    def latest(self) -> State | None:
        """The last whole state of this training; None if there is none. Damaged ones are passed over, with a warning.

        InputError if a whole one is of another training.
        """
        for name in reversed(self._names("step")):
            try:
                return self._read(name)
            except InputError as error:
                if _foreign(error):
                    raise
                logger().warning(f"{error}; the checkpoint before it is tried")
        return None

    def best(self) -> State | None:
        """The best state, or None. InputError if it is damaged or of another training."""
        names = self._names("best")
        return self._read(names[-1]) if names else None

    def _names(self, kind: str) -> list[str]:
        """Names of checkpoints, in the order of their steps."""
        names = [name for name in list_folder(self.uri) if (match := _NAME.match(name)) and match[1] == kind]
        return sorted(names)

    def _read(self, name: str) -> State:
        uri = f"{self.uri}/{name}"
        content = read_file(uri)
        match = _NAME.match(name)
        if match is None or hashlib.sha256(content).hexdigest()[:16] != match[3]:
            raise InputError("the checkpoint is damaged or cut off: its content is not what its name says", where=uri)
        try:
            tensors = load(content)
            length = int.from_bytes(content[:8], "little")
            facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_FACTS])
        except (SafetensorError, ValueError, KeyError) as error:
            raise InputError(f"not a checkpoint: {str(error)[:150]}", where=uri) from None
        if facts.pop("identity") != self.identity:
            raise InputError(
                _OTHER, where=uri, hint="use the configuration that it was begun with, or another --run-id"
            )
        return State(tensors, facts)


_OTHER = "the checkpoint is of a training with another configuration, other shards or other partitions"


def _foreign(error: InputError) -> bool:
    return error.what == _OTHER
