"""Who runs the loop: this process, those that `horovodrun` has started, or tasks of Spark."""

from __future__ import annotations

import os
import sys

from horovod.common.exceptions import HorovodInternalError
from pyspark.sql import SparkSession

from geosieve.runtime.errors import EXIT_DONE, ConfigError, GeosieveError, RetryableError
from geosieve.training import elastic
from geosieve.training.loop import Setup, Trained, run
from geosieve.training.metrics import Metrics
from geosieve.training.ranks import Ranks

_START_SECONDS = 120
_told: list[bool] = []
"""Not empty once rank 0 has sent the others what to train."""


def under_horovodrun() -> bool:
    """Whether `horovodrun` has started this process."""
    return "HOROVOD_RANK" in os.environ


def follow() -> int:
    """What ranks but 0 do under `horovodrun`: wait for what rank 0 has read, and train. Returns the exit code."""
    try:
        if _with_others(None) is not None and Ranks.start().rank == 0:
            raise RetryableError(
                "the training is done, but the process that writes the predictor has ended",
                hint="run again with this --run-id: it goes on from the last checkpoint",
            )
    except GeosieveError as error:  # rank 0, which reports, knows only that this process has ended
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return EXIT_DONE


def release() -> None:
    """Tell waiting ranks that there is nothing to train, unless they have been told what to train."""
    if not _told and not elastic.is_elastic():
        Ranks.start().broadcast(None)


def train(spark: SparkSession, setup: Setup) -> Trained:
    """Train with as many processes as are wanted. ConfigError if Spark has fewer cores; RetryableError if one dies."""
    processes = setup.config.processes
    if under_horovodrun():
        _told.append(True)
        found = _with_others(setup)
        assert found is not None
        return found
    if processes == 1:
        return _alone(setup, Ranks.start())
    cores = spark.sparkContext.defaultParallelism
    if cores < processes:
        raise ConfigError(f"{processes} processes need as many cores of Spark; it has {cores}", where="processes")
    import horovod.spark

    try:
        outcomes = horovod.spark.run(
            _task, args=(setup,), num_proc=processes, start_timeout=_START_SECONDS, use_gloo=True, verbose=0
        )
    except Exception as error:
        raise RetryableError(
            f"a process that trains has ended: {str(error)[:300]}",
            where=setup.work,
            hint="run again with this --run-id",
        ) from error
    failed = [found for found in outcomes if isinstance(found, GeosieveError)]
    if failed:  # what one has found, rather than that others have waited for it in vain
        raise min(failed, key=lambda error: isinstance(error, RetryableError))
    return next(found for found in outcomes if found is not None)  # type: ignore[no-any-return]


def _with_others(setup: Setup | None) -> Trained | None:
    """Train as one of the processes of `horovodrun`; None if there is nothing to train."""
    if elastic.is_elastic():
        return elastic.run(setup)
    ranks = Ranks.start()
    setup = ranks.broadcast(setup)
    return None if setup is None else _alone(setup, ranks)


def _task(setup: Setup) -> Trained | GeosieveError | None:
    """One process in a task of Spark. Rank 0 returns the result; an error of ours comes back as it is."""
    ranks = Ranks.start()
    try:
        found = _alone(setup, ranks)
    except GeosieveError as error:
        return error
    return found if ranks.rank == 0 else None


def _alone(setup: Setup, ranks: Ranks) -> Trained:
    metrics = Metrics(setup.work, ranks.rank, setup.config.tensorboard)
    try:
        return run(setup, ranks, metrics)
    except HorovodInternalError as error:
        raise RetryableError(
            f"another process that trains has ended: {str(error)[:200]}",
            where=setup.work,
            hint="run again with this --run-id; if it ends again, see what that process has written",
        ) from error
    finally:
        metrics.save()
