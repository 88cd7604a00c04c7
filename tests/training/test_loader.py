"""The loader: images, labels and order are those of the files and the plan, whoever reads them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fabricated_shards import write_shards
from PIL import Image

from geosieve.models.preprocessing import Preprocessing
from geosieve.runtime.errors import InputError, IntegrityError
from geosieve.training.loader import Augment, Batch, Sampler, ShardFiles, evaluation_batches, training_batches
from geosieve.training.plan import deal, full_batches, row_order, shuffled
from geosieve.training.train_config import Augmentation

SEES = Preprocessing(resize=32, crop=24)
WHOLE = Augmentation(scale=(1, 1), ratio=(1, 1), horizontal_flip=0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardFiles:
    return write_shards(tmp_path_factory.mktemp("shards"), files=6, rows=12)


def epoch_of(
    shards: ShardFiles, streams: int, skip: int = 0, epoch: int = 0, processes: bool = False, batch: int = 5
) -> list[Batch]:
    (own,) = deal(shuffled(6, 7, epoch), shards.rows, 1, streams)
    count = full_batches(own, shards.rows, batch) - skip
    augment = Augment(Augmentation(brightness=0.3, hue=0.1), SEES.crop, 7, epoch)
    found = training_batches(
        shards,
        own,
        skip,
        count,
        batch=batch,
        sampler=Sampler(7, epoch),
        augment=augment,
        preprocessing=SEES,
        processes=processes,
    )
    return list(found)


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        x.ids == y.ids
        and torch.equal(x.images, y.images)
        and torch.equal(x.labels, y.labels)
        and torch.equal(x.positions, y.positions)
        for x, y in zip(a, b, strict=True)
    )


def rows(shards: ShardFiles) -> Iterator[tuple[int, dict[str, object]]]:
    for file, uri in enumerate(shards.uris):
        for row in pq.read_table(uri.removeprefix("file:")).to_pylist():
            yield file, row


def test_order_and_labels_are_those_of_the_plan(shards: ShardFiles) -> None:
    batches = epoch_of(shards, streams=1)
    by_id = {f"{row['source']}/{row['image_id']}": row for _, row in rows(shards)}
    expected = [
        f"fabricated/train{part.file:02d}/{row:04d}"
        for part in shuffled(6, 7, 0)
        for row in row_order(7, 0, part.file, shards.rows[part.file])
    ]
    ids = [name for batch in batches for name in batch.ids]
    assert ids == expected[: len(ids)] and len(ids) == sum(shards.rows) // 5 * 5
    for batch in batches:
        assert batch.images.shape == (5, 3, 24, 24) and batch.images.dtype == torch.uint8
        for name, labels, position in zip(batch.ids, batch.labels.tolist(), batch.positions.tolist(), strict=True):
            assert labels == [by_id[name]["colour"], by_id[name]["warm"]]
            assert position == [by_id[name]["lat"], by_id[name]["lon"]]


def test_worker_processes_give_what_one_process_gives(shards: ShardFiles) -> None:
    # Two streams in worker processes: the batches of two streams read one after the other, taken in turn.
    found = epoch_of(shards, streams=2, processes=True)
    (own,) = deal(shuffled(6, 7, 0), shards.rows, 1, 2)
    each = [
        list(
            training_batches(
                shards,
                (parts,),
                0,
                len(found) // 2,
                batch=5,
                sampler=Sampler(7, 0),
                augment=Augment(Augmentation(brightness=0.3, hue=0.1), SEES.crop, 7, 0),
                preprocessing=SEES,
                processes=False,
            )
        )
        for parts in own
    ]
    assert same(found, [batch for pair in zip(*each, strict=True) for batch in pair])


@pytest.mark.parametrize("skip", [1, 4, 7])
def test_an_epoch_goes_on_where_it_was_left(shards: ShardFiles, skip: int) -> None:
    assert same(epoch_of(shards, 1, skip), epoch_of(shards, 1)[skip:])


def test_an_epoch_of_worker_processes_goes_on_where_it_was_left(shards: ShardFiles) -> None:
    assert same(epoch_of(shards, 2, 3, processes=True), epoch_of(shards, 2, processes=True)[3:])


def test_epochs_differ_in_order_and_in_pixels(shards: ShardFiles) -> None:
    first, second = epoch_of(shards, 1, epoch=0), epoch_of(shards, 1, epoch=1)
    assert [batch.ids for batch in first] != [batch.ids for batch in second]
    pixels = {name: image for batch in first for name, image in zip(batch.ids, batch.images, strict=True)}
    again = {name: image for batch in second for name, image in zip(batch.ids, batch.images, strict=True)}
    both = pixels.keys() & again.keys()
    assert len(both) > 50 and not any(torch.equal(pixels[name], again[name]) for name in both)


def test_random_numbers_of_the_training_process_stay_its_own(shards: ShardFiles) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    epoch_of(shards, 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_sees_every_image_once_as_pillow_crops_it(shards: ShardFiles, workers: int) -> None:
    found = [batch for rank in range(2) for batch in evaluation_batches(shards, rank, 2, 5, SEES, workers)]
    contents = {f"{row['source']}/{row['image_id']}": row["image"] for _, row in rows(shards)}
    assert sorted(name for batch in found for name in batch.ids) == sorted(contents)
    image = Image.open(io.BytesIO(contents[found[0].ids[0]]))  # type: ignore[arg-type]
    assert image.size == (48, 40)
    small = image.resize((38, 32), Image.Resampling.BILINEAR).crop((7, 4, 31, 28))
    difference = np.abs(np.asarray(small, int) - found[0].images[0].permute(1, 2, 0).numpy().astype(int))
    assert difference.max() <= 3  # decoders differ by so much


def test_images_stay_what_they_are_while_others_are_read(shards: ShardFiles) -> None:
    """Five processes read six files: the first goes on alone, and is asked for more batches at a time."""
    kept = {batch.ids: batch.images for batch in evaluation_batches(shards, 0, 1, 1, SEES, 5)}
    alone = {batch.ids: batch.images for batch in evaluation_batches(shards, 0, 1, 1, SEES, 0)}
    assert kept.keys() == alone.keys() and len(kept) == sum(shards.rows)
    assert all(torch.equal(images, alone[ids]) for ids, images in kept.items())


def test_rare_classes_are_seen_more_often(shards: ShardFiles) -> None:
    labels = np.array([[0]] * 900 + [[1]] * 90 + [[2]] * 10 + [[-1]] * 50)
    weights = np.array([900.0, 90.0, 10.0]) ** -1.0
    found = labels[Sampler(1, 0, 0, weights).order(0, labels), 0]
    assert len(found) == 1_050 and np.unique(found).tolist() == [0, 1, 2]
    assert all(abs((found == k).sum() - 350) <= 1 for k in range(3))
    half = labels[Sampler(1, 0, 0, np.array([900.0, 90.0, 10.0]) ** -0.5).order(0, labels), 0]
    shares = np.array([30, 90**0.5, 10**0.5])
    assert all(abs((half == k).sum() - 1_050 * shares[k] / shares.sum()) <= 1 for k in range(3))
    assert (Sampler(1, 0, 0, weights).order(0, labels) == Sampler(1, 0, 0, weights).order(0, labels)).all()


@pytest.mark.parametrize("processes", [False, True])
def test_a_damaged_file_is_named(tmp_path: Path, processes: bool) -> None:
    shards = write_shards(tmp_path, files=2, rows=8)
    path = Path(shards.uris[1].removeprefix("file:"))
    path.write_bytes(path.read_bytes()[:-300])
    (own,) = deal(shuffled(2, 7, 0), shards.rows, 1, 2 if processes else 1)
    with pytest.raises(InputError, match="damaged or cut off") as caught:
        list(
            training_batches(
                shards,
                own,
                0,
                4,
                batch=2,
                sampler=Sampler(7, 0),
                augment=Augment(WHOLE, 24, 7, 0),
                preprocessing=SEES,
                processes=processes,
            )
        )
    assert caught.value.where == shards.uris[1]


def test_a_file_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, files=4, rows=8)
    swapped = ShardFiles(shards.uris[::-1], shards.rows[::-1], shards.labels)
    with pytest.raises(IntegrityError, match="that the plan reads here"):
        list(evaluation_batches(swapped, 0, 1, 5, SEES, 0))


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, files=1, rows=8)
    path = shards.uris[0].removeprefix("file:")
    table = pq.read_table(path)
    images = table.column("image").to_pylist()
    images[3] = images[3][:100]
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", [images]), path)
    with pytest.raises(InputError, match="fabricated/train00/0003"):
        list(evaluation_batches(shards, 0, 1, 5, SEES, 0))
