"""Which rank reads which rows of which files in which order: decided by a seed and the epoch, before anything is read.

A rank reads several files at a time, each as a *stream*, and takes one batch from each stream in turn. So the order of
images depends on nothing that happens while they are read, and an epoch can be continued in its middle: by the same
ranks, or, when their number has changed, by others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geosieve.geo.arrays import I8
from geosieve.runtime.errors import ConfigError


@dataclass(frozen=True)
class ShardFiles:
    """The files of a split: URIs, rows and numbers (`shard`) in order, and the columns of labels that are read."""

    uris: tuple[str, ...]
    rows: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """The rows of a file from place `start` on, in the file's order of the epoch."""

    file: int
    start: int = 0


Streams = tuple[tuple[Part, ...], ...]
"""The parts that each stream of a rank reads, in order."""


def row_order(seed: int, epoch: int, file: int, rows: int) -> I8:
    """The order in which an epoch sees the rows of a file, (rows,): a permutation of their numbers."""
    return np.random.default_rng([seed, epoch, file]).permutation(rows)


def shuffled(files: int, seed: int, epoch: int) -> list[Part]:
    """All files, in the order of an epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(files)
    return [Part(int(file)) for file in order]


def deal(parts: Sequence[Part], rows: Sequence[int], ranks: int, streams: int) -> list[Streams]:
    """Deal parts of files to the streams of all ranks, so that each gets about as many rows.

    `rows`: the number of rows of each file. Whole files are dealt in turn; parts go where least is. ConfigError if
    there are fewer parts than streams.
    """
    if len(parts) < ranks * streams:
        raise ConfigError(
            f"{len(parts)} files for {ranks} ranks with {streams} streams each: each stream needs one at least",
            hint="fewer processes or loader.workers, or prepare_training_set with more ranks",
        )
    dealt: list[list[Part]] = [[] for _ in range(ranks * streams)]
    left = np.zeros(ranks * streams, dtype=np.int64)
    for part in parts:
        least = int(np.argmin(left))  # the first of equals, so the order of whole files is that of a deal of cards
        dealt[least].append(part)
        left[least] += rows[part.file] - part.start
    return [tuple(tuple(of) for of in dealt[rank::ranks]) for rank in range(ranks)]


def full_batches(streams: Streams, rows: Sequence[int], batch: int) -> int:
    """The number of batches of `batch` rows that a rank can take in turn from its streams, as many from each."""
    return len(streams) * min(sum(rows[part.file] - part.start for part in parts) // batch for parts in streams)


def after(parts: Sequence[Part], rows: Sequence[int], taken: int) -> tuple[Part, ...]:
    """What is left of the parts of a stream after `taken` rows."""
    left = list(parts)
    while left and taken:
        n = rows[left[0].file] - left[0].start
        if n > taken:
            left[0] = Part(left[0].file, left[0].start + taken)
            break
        taken -= n
        del left[0]
    return tuple(left)


def taken_of(stream: int, streams: int, batches: int, batch: int) -> int:
    """The rows that a stream has given when a rank has taken `batches` batches in turn from `streams` streams."""
    return batch * ((batches - stream + streams - 1) // streams)


def remaining(dealt: Sequence[Streams], rows: Sequence[int], batches: int, batch: int) -> list[Part]:
    """What all ranks have not read of an epoch after each has taken `batches` batches."""
    return [
        part
        for streams in dealt
        for number, parts in enumerate(streams)
        for part in after(parts, rows, taken_of(number, len(streams), batches, batch))
    ]
