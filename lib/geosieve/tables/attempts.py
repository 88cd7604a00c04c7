"""Which attempt at a run may commit it, of several that were started with one run id.

An attempt takes the next number, `_attempts/000002.claim`. Then it closes the slots of all numbers before its own,
`_attempts/000001.commit` and so on. A slot is written once: either the earlier attempt has put its commit there, and
the later one finds it, or the later one has closed it, and the earlier can never commit. So the earlier one's files may
be deleted, and whatever the order of their steps one of the two wins.

On S3 that holds as long as requests do not take longer than `Files.create_new` waits; therefore a publication looks at
its slot again after it has marked the tables.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from geosieve.runtime.errors import RetryableError
from geosieve.runtime.files import Files

FOLDER = "_attempts"


class Attempts:
    """The attempts at one run, seen from one of them."""

    def __init__(self, files: Files, leaf: str, name: str) -> None:
        """`leaf`: the run's main leaf. `name`: this attempt's, unlike all others'."""
        self._files, self._leaf, self._folder, self._name = files, leaf, f"{leaf}/{FOLDER}", name
        self._number = 0

    def take(self) -> None:
        """Take the next number. From now on every earlier attempt ends at its next check."""
        claim = json.dumps({"attempt": self._name, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        number = max(self._numbers(), default=0) + 1
        while not self._files.create_new(self._uri(number, "claim"), claim):
            number += 1
        self._number = number  # not before: a claim that cannot be written is none

    def close_earlier(self) -> dict[str, Any] | None:
        """See to it that no earlier attempt can commit any more; the commit of one that has."""
        for number in range(self._number - 1, 0, -1):
            slot = self._uri(number, "commit")
            if not self._files.create_new(slot, self._closed()):
                commit = self._read(slot)
                if "manifests" in commit:
                    return commit
        return None

    def withdraw_earlier(self, commit: dict[str, Any]) -> None:
        """Close the slot of an earlier commit whose files are gone."""
        self._files.write_text(self._uri(commit["number"], "commit"), self._closed())

    def check(self) -> None:
        """RetryableError if a later attempt has taken over. Before `take` there is nothing to lose."""
        if self._number == 0:
            return
        if max(self._numbers(), default=0) > self._number or self._read(self._claim)["attempt"] != self._name:
            raise self.lost()

    def lost(self) -> RetryableError:
        """What to raise where another attempt has won."""
        return RetryableError(
            "another attempt has taken over this run",
            where=self._leaf,
            hint="let it finish; this one committed nothing",
        )

    def commit(self, manifests: dict[str, Any]) -> dict[str, Any]:
        """Commit the run. RetryableError if a later attempt has closed the slot."""
        commit = {"attempt": self._name, "number": self._number, "manifests": manifests}
        if not self._files.create_new(self._slot, json.dumps(commit)):
            raise self.lost()
        return commit

    def committed(self) -> bool:
        """Whether our commit still stands."""
        return bool(self._read(self._slot)["attempt"] == self._name)

    def later_commit(self) -> dict[str, Any] | None:
        """The commit of a later attempt, if there is one."""
        slots = [self._uri(number, "commit") for number in self._numbers() if number > self._number]
        commits = [self._read(slot) for slot in slots if self._files.exists(slot)]
        return next((commit for commit in commits if "manifests" in commit), None)

    @property
    def _claim(self) -> str:
        return self._uri(self._number, "claim")

    @property
    def _slot(self) -> str:
        return self._uri(self._number, "commit")

    def _uri(self, number: int, kind: str) -> str:
        return f"{self._folder}/{number:06d}.{kind}"

    def _numbers(self) -> list[int]:
        names = [entry.name for entry in self._files.list(self._folder)]
        return [int(name.partition(".")[0]) for name in names if name.endswith(".claim")]

    def _closed(self) -> str:
        return json.dumps({"attempt": self._name})

    def _read(self, uri: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._files.read_text(uri))
        return content
