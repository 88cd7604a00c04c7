"""A training that outlives the death of processes, under `horovodrun --min-np`.

When a process dies, the others go back to the last state that all had, agree on who is left, and go on: they deal what
is left of the epoch among themselves. A process that joins gets the state from rank 0.
"""

from __future__ import annotations

import os
from typing import Any

import horovod.torch as hvd
from horovod.common.elastic import State as ElasticState

from geosieve.runtime.errors import RetryableError
from geosieve.training.checkpoints import State
from geosieve.training.loop import Setup, Trained, Training, checkpoints_of, go_on
from geosieve.training.metrics import Metrics
from geosieve.training.ranks import Ranks


def is_elastic() -> bool:
    """Whether `horovodrun` has started this process so that others may die."""
    return os.environ.get("HOROVOD_ELASTIC") == "1"


def run(setup: Setup | None) -> Trained:
    """Train to the end, with whoever is there. `setup`: known on rank 0 at the start, None on the others.

    RetryableError if rank 0 has ended before it knew what to train.
    """
    return hvd.elastic.run(_body)(_Shared(setup))  # type: ignore[no-any-return]


def _body(shared: _Shared) -> Trained:
    assert shared.training is not None  # Horovod calls `sync` first
    metrics = Metrics(shared.training.setup.work, shared.training.ranks.rank, shared.training.config.tensorboard)
    try:
        return go_on(shared.training, metrics, shared.keep)
    finally:
        metrics.save()


class _Shared(ElasticState):  # type: ignore[misc]
    """What Horovod restores and sends around: the setup, and the last state that all ranks had."""

    def __init__(self, setup: Setup | None) -> None:
        super().__init__(bcast_object=hvd.broadcast_object, get_rank=hvd.rank)
        self._setup = setup
        self._last: State | None = None
        self.training: Training | None = None

    def keep(self, state: State) -> None:
        """Note a state that all ranks have reached, and look whether processes wait to join."""
        self._last = state
        self.check_host_updates()

    def save(self) -> None:
        """Nothing: `keep` has the state."""

    def restore(self) -> None:
        """Go back to the last common state."""

    def sync(self) -> None:
        """Take over rank 0's setup and state."""
        ranks = Ranks.start()
        if ranks.rank == 0 and self._last is None and self._setup is not None:
            self._last = checkpoints_of(self._setup).latest()
        found: Any = ranks.broadcast((self._setup, self._last) if ranks.rank == 0 else None)
        self._setup, self._last = found
        if self._setup is None:
            raise RetryableError("rank 0 has ended before it had read what to train", hint="run again")
        if self.training is None:
            self.training = Training(self._setup, ranks)
        self.training.ranks = ranks
        if self._last is not None:
            self.training.load(self._last)

    def on_reset(self) -> None:
        """Nothing: `sync` follows."""
