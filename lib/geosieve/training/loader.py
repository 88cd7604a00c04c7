"""Batches of decoded images for training and evaluation, read from training shards with Petastorm.

Petastorm reads Parquet files, in the order of the plan: each stream is a reader of its own with one thread, because
with several its order is not deterministic (uber/petastorm issues 796 and 798). Its schemas, which are pickled, are not
used. Images are decoded and changed where they are read, in worker processes.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from petastorm import make_batch_reader
from pyarrow.filesystem import FileSystem
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torchvision.transforms import v2

from geosieve.geo.arrays import F8, I8
from geosieve.images.decode import decode
from geosieve.images.headers import Refusal
from geosieve.models.preprocessing import Preprocessing
from geosieve.runtime.errors import GeosieveError, InputError, IntegrityError, RetryableError
from geosieve.runtime.failures import of_store
from geosieve.runtime.store import locate, open_input
from geosieve.training.plan import Part, ShardFiles, Streams, after, row_order, taken_of
from geosieve.training.train_config import Augmentation

# Petastorm uses what pyarrow 14, the last version that it works with, calls deprecated: some twenty times per file.
warnings.filterwarnings("ignore", module="petastorm")

_BATCHES_AHEAD = 4
"""Of each process that reads: with PyTorch's 2, one waits now and then for the others' turns."""

COLUMNS = ("source", "image_id", "shard", "image", "lat", "lon")
"""Columns that are read, beside the labels."""


@dataclass(frozen=True)
class Batch:
    """Some images. `images`: uint8 (n, 3, height, width). `labels`: int64 (n, partitions). `positions`: (n, 2), lat and
    lon in degrees. `ids`: source and image id of each."""

    images: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    ids: tuple[str, ...]


class Sampler:
    """Which rows of a file an epoch sees, in which order: each once, or rows of rare classes more often.

    `weights`: by partition column and class, how often an image of the class is seen; None: every row once.
    """

    def __init__(self, seed: int, epoch: int, column: int | None = None, weights: F8 | None = None) -> None:
        self.seed, self.epoch, self.column, self.weights = seed, epoch, column, weights

    def order(self, file: int, labels: I8) -> I8:
        """Numbers of rows, as many as the file has. `labels`: (rows, partitions)."""
        order = row_order(self.seed, self.epoch, file, len(labels))
        if self.weights is None or self.column is None:
            return order
        # Class by class, so that each gets its share of the file, up to one image.
        by_class = order[np.argsort(labels[order, self.column], kind="stable")]
        classes = labels[by_class, self.column]
        weights = np.where(classes >= 0, self.weights[np.maximum(classes, 0)], 0.0)
        if not weights.any():
            return order
        # Systematic sampling: a row is seen ⌊w⌋ or ⌈w⌉ times, w being its share of the file's rows.
        ends = np.cumsum(weights) * (len(order) / weights.sum())
        start = np.random.default_rng([self.seed, self.epoch, file, 1]).random()
        drawn = by_class[np.searchsorted(ends, np.arange(len(order)) + start, side="right").clip(max=len(order) - 1)]
        return np.random.default_rng([self.seed, self.epoch, file, 2]).permutation(drawn)


class Augment:
    """Changes a training image at random; the same image of the same epoch in the same way, whoever reads it."""

    def __init__(self, given: Augmentation, size: int, seed: int, epoch: int) -> None:
        self._seed = (seed << 20) + epoch
        steps: list[Any] = [
            v2.RandomResizedCrop(size, scale=given.scale, ratio=given.ratio, antialias=True),
            v2.RandomHorizontalFlip(given.horizontal_flip),
            v2.RandomVerticalFlip(given.vertical_flip),
        ]
        colours = (given.brightness, given.contrast, given.saturation, given.hue)
        if any(colours):
            steps.append(v2.ColorJitter(*colours))
        self._change = v2.Compose(steps)

    def __call__(self, image: NDArray[np.uint8], file: int, row: int, seen: int) -> torch.Tensor:
        """A crop, uint8 (3, size, size). `seen`: how often the epoch has seen the image before."""
        # Of one number a generator is made, so that the four must not meet in another way.
        state = np.random.SeedSequence([self._seed, file, row, seen]).generate_state(1, np.uint64)
        # Not torch.manual_seed: it notes a traceback for GPUs each time, which takes as long as to decode the image.
        torch.default_generator.manual_seed(int(state[0] >> np.uint64(1)))
        return self._change(torch.from_numpy(image).permute(2, 0, 1))  # type: ignore[no-any-return]


_Memory = Callable[[tuple[int, ...]], torch.Tensor]
"""Gives a tensor of bytes of a shape, to be filled."""


def _ordinary(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.uint8)


class _Lent:
    """Shared memory of a process that reads, which the training process copies each batch out of and gives back.

    Fresh shared memory for each would take a tenth of the time in which its images are decoded and changed.
    """

    def __init__(self, free: Any) -> None:
        """`free`: a semaphore of `_BATCHES_AHEAD`, which the training process releases for each slot in its turn."""
        self._free = free
        self._slots: list[torch.Tensor] = []
        self._lent = 0
        self.slot: int | None = None
        """Of what was given last; None: nobody gives it back."""
        self.known = False
        """Whether the training process has been given the slot."""

    def __call__(self, shape: tuple[int, ...]) -> torch.Tensor:
        self.slot, self.known = None, False
        if not self._free.acquire(block=False):  # other streams have ended, and it is asked for more at a time
            return _shared(shape)
        self.slot = self._lent % _BATCHES_AHEAD
        self._lent += 1
        self.known = self.slot < len(self._slots)
        if not self.known:
            self._slots.append(_shared(shape))
        return self._slots[self.slot][: shape[0]]  # no batch is larger than the first


def _shared(shape: tuple[int, ...]) -> torch.Tensor:
    return _ordinary(shape).share_memory_()  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True)
class _Stream:
    """One reader over parts of files, whose rows become batches."""

    files: ShardFiles
    parts: tuple[Part, ...]
    batch: int
    sampler: Sampler | None
    augment: Augment | None
    preprocessing: Preprocessing

    def batches(self, memory: _Memory = _ordinary) -> Iterator[Batch]:
        """Batches of `batch` images, and one of the rest."""
        rows: list[tuple[Any, ...]] = []
        for row in self._rows():
            rows.append(row)
            if len(rows) == self.batch:
                yield self._batch(rows, memory)
                rows = []
        if rows:
            yield self._batch(rows, memory)

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        if not self.parts:
            return
        uris = [self.files.uris[part.file] for part in self.parts]
        try:
            with _reader(uris, [*COLUMNS, *self.files.labels]) as reader:
                for part, group in zip(self.parts, reader, strict=True):
                    yield from self._of_file(part, group)
        except GeosieveError:
            raise
        except Exception as error:
            _explain(self.files, self.parts, error)
            failed = of_store(str(error), uris[0]) if isinstance(error, OSError) else None
            if failed is not None:
                raise failed from error
            raise

    def _of_file(self, part: Part, group: Any) -> Iterator[tuple[Any, ...]]:
        rows, uri = self.files.rows[part.file], self.files.uris[part.file]
        labels = np.stack([np.asarray(getattr(group, name), dtype=np.int64) for name in self.files.labels], axis=1)
        if len(labels) != rows or (np.asarray(group.shard) != part.file).any():
            raise IntegrityError(f"it is not file {part.file} of {rows} rows that the plan reads here", where=uri)
        order = np.arange(rows) if self.sampler is None else self.sampler.order(part.file, labels)
        seen: dict[int, int] = {}
        for place, row in enumerate(order.tolist()):
            seen[row] = seen.get(row, -1) + 1
            if place >= part.start:
                identity = f"{group.source[row]}/{group.image_id[row]}"
                position = (group.lat[row], group.lon[row])
                yield part.file, row, seen[row], group.image[row], labels[row], position, identity

    def _batch(self, rows: list[tuple[Any, ...]], memory: _Memory) -> Batch:
        given = self.preprocessing
        crops = given.crops if self.augment is None else 1
        images = memory((len(rows), 3 * crops, given.crop, given.crop))
        with torch.random.fork_rng(devices=[]):  # the training process has random numbers of its own
            for place, row in zip(images, rows, strict=True):
                place.copy_(self._image(row[0], row[1], row[2], row[3], row[6]))
        return Batch(
            images,
            torch.from_numpy(np.stack([row[4] for row in rows])),
            torch.tensor([row[5] for row in rows], dtype=torch.float64),
            tuple(row[6] for row in rows),
        )

    def _image(self, file: int, row: int, seen: int, content: bytes, identity: str) -> torch.Tensor:
        pixels = decode(content)
        if isinstance(pixels, Refusal):
            raise InputError(f"image {identity} cannot be decoded: {pixels.error_class}", where=self.files.uris[file])
        if self.augment is not None:
            return self.augment(pixels, file, row, seen)
        crops = torch.from_numpy(self.preprocessing.crops_of(pixels))
        return crops.permute(0, 3, 1, 2).flatten(0, 1)  # the crops' channels, one after the other


class _Folder(FileSystem):  # type: ignore[misc]
    """The files of a folder on any store, as Petastorm opens them: by pyarrow's file systems of old."""

    def __init__(self, uri: str) -> None:
        self._store, self._path = locate(uri)

    def isdir(self, path: str) -> bool:
        return False

    def isfile(self, path: str) -> bool:
        return True

    def open(self, path: str, mode: str = "rb") -> Any:
        return self._store.open_input_file(f"{self._path}{path}")


def _reader(uris: Sequence[str], columns: list[str]) -> Any:
    """Petastorm's reader of files of one folder, in their order."""
    return make_batch_reader(
        [f"file:///{uri.rpartition('/')[2]}" for uri in uris],  # a whole path it would cut at a # or ?
        schema_fields=columns,
        reader_pool_type="thread",
        workers_count=1,
        results_queue_size=2,
        shuffle_row_groups=False,
        num_epochs=1,
        filesystem=_Folder(uris[0].rpartition("/")[0]),
    )


def _explain(files: ShardFiles, parts: Sequence[Part], error: Exception) -> None:
    """InputError that names the damaged or missing file, if there is one."""
    for part in parts:
        uri = files.uris[part.file]
        with open_input(uri) as file:
            try:
                pq.ParquetFile(file).read(columns=["image"])
            except (OSError, ValueError) as damage:
                raise InputError(
                    f"the file is damaged or cut off: {str(damage)[:150]}", where=uri, hint="make the shards again"
                ) from error


class _Streams(IterableDataset[Any]):
    """Stream k for worker k, with the k-th semaphore of what it lends."""

    def __init__(self, streams: Sequence[_Stream], free: Sequence[Any]) -> None:
        self._streams, self._free = streams, free

    def __iter__(self) -> Iterator[tuple[Any, ...] | Exception]:
        worker = get_worker_info()
        assert worker is not None
        k = worker.id
        torch.set_num_threads(1)
        lent = _Lent(self._free[k])
        try:
            for batch in self._streams[k].batches(lent):
                # Only the images as a tensor, and once: each is handed over by a connection of its own.
                images = None if lent.known else batch.images
                yield k, lent.slot, images, batch.labels.numpy(), batch.positions.numpy(), batch.ids
        except Exception as error:  # noqa: BLE001 - the training process raises it, as it is
            yield error


def _as_it_is(found: Any) -> Any:
    """Otherwise PyTorch makes tensors of all arrays."""
    return found


def _in_turn(streams: Sequence[_Stream], processes: bool) -> Iterator[Batch]:
    """A batch of each stream in turn, until one ends before the others."""
    if not processes:
        yield from streams[0].batches()
        return
    forkserver = multiprocessing.get_context("forkserver")  # a fork of a process with threads may hang
    forkserver.set_forkserver_preload([__name__])
    free = [forkserver.Semaphore(_BATCHES_AHEAD) for _ in streams]
    loader = DataLoader(
        _Streams(streams, free),
        batch_size=None,
        num_workers=len(streams),
        multiprocessing_context=forkserver,
        prefetch_factor=_BATCHES_AHEAD,
        collate_fn=_as_it_is,
    )
    batches, lent = iter(loader), dict[tuple[int, int], torch.Tensor]()
    while True:
        try:
            found = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:  # its connection may break first
            raise RetryableError(f"a process that reads images has ended: {str(error)[:200]}") from error
        if found is None:
            return
        if isinstance(found, Exception):
            raise found
        k, slot, images, labels, positions, ids = found
        if slot is not None:
            # Copied by numpy: PyTorch's threads for it would wait on cores that others read with.
            images = torch.from_numpy(lent.setdefault((k, slot), images)[: len(ids)].numpy().copy())
            free[k].release()
        yield Batch(images, torch.from_numpy(labels), torch.from_numpy(positions), ids)


def training_batches(
    files: ShardFiles,
    streams: Streams,
    skip: int,
    count: int,
    *,
    batch: int,
    sampler: Sampler,
    augment: Augment,
    preprocessing: Preprocessing,
    processes: bool,
) -> Iterator[Batch]:
    """`count` full batches of a rank in an epoch, after the first `skip` ones.

    InputError if a file is damaged, or an image cannot be decoded; IntegrityError if a file is another than planned.
    """
    n = len(streams)
    left = [after(parts, files.rows, taken_of(k, n, skip, batch)) for k, parts in enumerate(streams)]
    turned = [left[(k + skip) % n] for k in range(n)]
    readers = [_Stream(files, parts, batch, sampler, augment, preprocessing) for parts in turned]
    yield from islice(_in_turn(readers, processes), count)


def evaluation_batches(
    files: ShardFiles, rank: int, ranks: int, batch: int, preprocessing: Preprocessing, workers: int
) -> Iterator[Batch]:
    """Every image of the files of a rank once, in order, as `preprocessing` says."""
    own = [Part(file) for file in range(rank, len(files.uris), ranks)]
    streams = [tuple(own[k :: max(1, workers)]) for k in range(max(1, workers))]
    readers = [_Stream(files, parts, batch, None, None, preprocessing) for parts in streams if parts]
    if readers:
        yield from _in_turn(readers, workers > 0)
