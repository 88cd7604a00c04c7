"""Decides which of several attempts with the same run id may commit the run.

An attempt claims the next free number by creating a file such as `_attempts/000002.claim`. Then it tries to create the
commit file of every earlier number, e.g. `_attempts/000001.commit`, with a content that means "closed". A commit file
is created only once. Either the earlier attempt has created it: then it holds a commit, and the later attempt finds it.
Or the later attempt has created it: then the earlier attempt can never commit, and its files may be deleted. So exactly
one of the two wins, in whatever order they take their steps.

On S3 this holds only if no request takes longer than `Files.create_new` waits. Therefore a publication reads its commit
file again after it has written the `_SUCCESS` files.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from geosieve.runtime.errors import RetryableError
from geosieve.runtime.files import Files

FOLDER = "_attempts"


class Attempts:
    """The attempts at one run, as one of them sees the others. Call `take` first, then `close_earlier`."""

    def __init__(self, files: Files, leaf: str, name: str) -> None:
        """`leaf` is the folder of the run's main table, `name` a unique id of this attempt."""
        self._files, self._leaf, self._folder, self._name = files, leaf, f"{leaf}/{FOLDER}", name
        self._number = 0

    def take(self) -> None:
        """Claim the next number. From then on, `check` of every earlier attempt raises RetryableError."""
        claim = json.dumps({"attempt": self._name, "at": datetime.now(UTC).isoformat(timespec="seconds")})
        number = max(self._numbers(), default=0) + 1
        while not self._files.create_new(self._uri(number, "claim"), claim):
            number += 1
        self._number = number  # only now: if writing the claim fails, this attempt has no number

    def close_earlier(self) -> dict[str, Any] | None:
        """Make sure that no earlier attempt can commit from now on.

        Returns the commit of an earlier attempt (the latest one) if there is one, otherwise None.
        """
        for number in range(self._number - 1, 0, -1):
            slot = self._uri(number, "commit")
            if not self._files.create_new(slot, self._closed()):
                commit = self._read(slot)
                if "manifests" in commit:
                    return commit
        return None

    def withdraw_earlier(self, commit: dict[str, Any]) -> None:
        """Replace an earlier commit whose files are missing by "closed"."""
        self._files.write_text(self._uri(commit["number"], "commit"), self._closed())

    def check(self) -> None:
        """RetryableError if another attempt has taken over this run. Before `take` it does nothing."""
        if self._number == 0:
            return
        if max(self._numbers(), default=0) > self._number or self._read(self._claim)["attempt"] != self._name:
            raise self.lost()

    def lost(self) -> RetryableError:
        """The error to raise when another attempt has won."""
        return RetryableError(
            "another attempt has taken over this run",
            where=self._leaf,
            hint="let it finish; this one committed nothing",
        )

    def commit(self, manifests: dict[str, Any]) -> dict[str, Any]:
        """Commit the run and return the content of the commit file.

        It has the keys `attempt`, `number` and `manifests` (by table name). RetryableError if a later attempt has
        closed this one.
        """
        commit = {"attempt": self._name, "number": self._number, "manifests": manifests}
        if not self._files.create_new(self._slot, json.dumps(commit)):
            raise self.lost()
        return commit

    def committed(self) -> bool:
        """Whether the commit file still holds the commit of this attempt. Call it after `commit`."""
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
