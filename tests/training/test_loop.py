"""The training loop in one process: it learns, stops and continues exactly, and says what is wrong."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fabricated_training import setup_of

from geosieve.runtime.errors import ConfigError, InputError, RetryableError
from geosieve.training import evaluate, loop
from geosieve.training.checkpoints import Checkpoints
from geosieve.training.evaluate import Evaluation
from geosieve.training.loop import Setup, Training
from geosieve.training.metrics import Metrics
from geosieve.training.ranks import Ranks


class Silent(Metrics):
    """Metrics that note steps and end the training like a kill does, after a step."""

    def __init__(self, work: str, until: int | None = None) -> None:
        super().__init__(work, 0, None)
        self.losses: list[float] = []
        self._until = until

    def step(self, step: int, epoch: int, done: float, loss: torch.Tensor, rate: float, images: int) -> None:
        if self._until is not None and step > self._until:
            raise KeyboardInterrupt
        self.losses.append(float(loss.detach()))


def trained(setup: Setup) -> tuple[dict[str, torch.Tensor], Evaluation, list[float]]:
    metrics = Silent(setup.work)
    weights, evaluation = loop.run(setup, Ranks.start(), metrics)
    return weights, evaluation, metrics.losses


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def test_it_learns_what_the_pictures_show(tmp_path: Path) -> None:
    setup = setup_of(tmp_path)
    _, found, losses = trained(setup)
    assert len(losses) == 3 * (78 // 6)
    colour, warm = found.partitions["colour"], found.partitions["warm"]
    assert colour.images == warm.images < 59  # images without a region do not count
    # The prior tells a fourth and a half of the images, at log losses of 1.39 and 0.69.
    assert colour.top1 > 0.6 and warm.top1 > 0.75 and colour.log_loss < 1.0 and warm.log_loss < 0.6
    assert colour.top1 <= colour.top5 == 1
    lines = [
        json.loads(line) for line in Path(setup.work.removeprefix("file:"), "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["epoch"] for line in lines] == [0, 1, 2]


def test_with_shuffled_labels_it_stays_at_chance(tmp_path: Path) -> None:
    """What the labels of the validation split told nobody cannot be learned: this would find a leak."""
    setup = setup_of(tmp_path)
    for k, uri in enumerate((*setup.train.uris, *setup.validation.uris)):
        path = uri.removeprefix("file:")
        table = pq.read_table(path)
        labels = table.column("colour").to_numpy().copy()
        np.random.default_rng(k).shuffle(labels)
        for name, values in (("colour", labels), ("warm", np.where(labels < 0, -2, np.isin(labels, [1, 2])))):
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(values.astype(np.int64)))
        pq.write_table(table, path, row_group_size=len(labels))
    _, found, _ = trained(setup)
    images = found.partitions["colour"].images
    assert found.partitions["colour"].top1 < 0.25 + 4 * (0.25 * 0.75 / images) ** 0.5
    assert found.partitions["colour"].log_loss > 1.25


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, again, other = (
        trained(setup_of(tmp_path, identity=name, epochs=1, seed=seed))[0]
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert equal(first, again) and not equal(first, other)


@pytest.mark.parametrize(
    "change",
    [
        {"ema": 0.9, "dropout": 0.3, "accumulate": 2},
        {
            "optimizer": {"kind": "sgd", "rate": 0.01},
            "schedule": {"kind": "steps", "epochs": [1]},
            "backbone": "test_resnet",
        },
    ],
)
def test_killed_at_any_step_and_continued_it_ends_with_the_same_weights(tmp_path: Path, change: dict[str, Any]) -> None:
    """Also with dropout, whose random numbers are kept, moving averages, and batch normalisation."""
    expected, evaluation, losses = trained(setup_of(tmp_path, identity="whole", **change))
    kills = np.random.default_rng(0).choice(len(losses), 5, replace=False)
    for kill in kills.tolist():
        setup = setup_of(tmp_path, identity=f"killed{kill}", **change)
        with pytest.raises(KeyboardInterrupt):
            loop.run(setup, Ranks.start(), Silent(setup.work, until=kill))
        found, again, rest = trained(setup)
        assert equal(found, expected) and again == evaluation
        assert rest == losses[len(losses) - len(rest) :]
        assert len(losses) - len(rest) >= kill - 4  # no more than the steps since the last checkpoint are lost


def test_killed_twice_in_a_row(tmp_path: Path) -> None:
    expected, _, losses = trained(setup_of(tmp_path, identity="whole", epochs=2))
    setup = setup_of(tmp_path, identity="killed", epochs=2)
    for until in (5, 3, 16):
        with pytest.raises(KeyboardInterrupt):
            loop.run(setup, Ranks.start(), Silent(setup.work, until=until))
    assert equal(trained(setup)[0], expected) and len(losses) == 26


PHASES = {
    "start": (Training, "__init__", 1),
    "first batch": (Training, "loss_of", 1),
    "between gradients and new weights": (Training, "update", 3),
    "state for a checkpoint": (Training, "state", 2),
    "checkpoint": (Checkpoints, "save", 2),
    "end of the epoch": (Training, "evaluated_weights", 2),
    "validation": (loop, "evaluated", 2),
    "best weights": (Checkpoints, "best", 1),
    "last validation": (loop, "evaluated", 3),
}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_it_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, torch.Tensor], phase: str, after: bool
) -> None:
    """Before or after the phase, when it comes for the nth time."""
    owner, name, nth = PHASES[phase]
    work, calls = getattr(owner, name), []

    def killed(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        found = work(*arguments, **named) if after or len(calls) != nth else None
        if len(calls) == nth:
            raise KeyboardInterrupt
        return found

    setup = setup_of(tmp_path, epochs=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, killed)
        trained(setup)
    assert equal(trained(setup)[0], undisturbed)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a training of two epochs."""
    return trained(setup_of(tmp_path_factory.mktemp("undisturbed"), epochs=2))[0]


def test_a_full_disk_stops_it_and_with_room_it_continues(
    tmp_path: Path, small_disk: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    setup = replace(setup_of(tmp_path, epochs=2), work=f"file:{small_disk}/work")
    ballast = small_disk / "ballast"
    size = sum(8 + value.nbytes for value in undisturbed.values())
    room = 5 * size  # with the optimizer's, a checkpoint has three numbers per weight: one fits
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    with pytest.raises(RetryableError, match="disk is full"):
        trained(setup)
    left = [path.name for path in small_disk.rglob("*") if path.is_file()]
    assert [name[:15] for name in left if name != "ballast"] == ["step-0000000004"]
    ballast.unlink()
    assert equal(trained(setup)[0], undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_process_that_reads_and_dies_is_no_fault_of_the_shards(tmp_path: Path) -> None:
    class Killing(Silent):
        def step(self, *rest: Any) -> None:
            super().step(*rest)
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # killed at an earlier step
                    if "multiprocessing.forkserver" in " ".join(child.cmdline()) and child.children() == []:
                        child.kill()

    setup = setup_of(tmp_path, loader={"workers": 2}, epochs=30)
    with pytest.raises(RetryableError, match="process that reads images has ended"):
        loop.run(setup, Ranks.start(), Killing(setup.work))


def test_a_loss_that_is_not_finite_stops_it_and_names_the_images(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, optimizer={"kind": "sgd", "rate": 1e30})
    with pytest.raises(InputError, match="not finite at step") as caught:
        trained(setup)
    listed = json.loads(Path(caught.value.where.removeprefix("file:")).read_text())
    assert len(listed["images"]) == 6 and all(name.startswith("fabricated/train") for name in listed["images"])


def test_early_stopping(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, epochs=50, early_stopping=2, optimizer={"kind": "sgd", "rate": 1e-12})
    _, _, losses = trained(setup)
    assert len(losses) // 13 in (3, 4)  # the first epoch is the best, or the second by a hair


def test_a_frozen_backbone_keeps_its_weights(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, epochs=1, optimizer={"kind": "adamw", "rate": 0.01, "backbone_rate": 0})
    torch.manual_seed(setup.config.seed)
    start = loop.Network(setup.config.backbone, {"colour": 4, "warm": 2}).state_dict()
    found, _, _ = trained(setup)
    assert all(torch.equal(value, start[name]) for name, value in found.items() if name.startswith("backbone."))
    assert not torch.equal(found["heads.0.weight"], start["heads.0.weight"])


def test_temperatures_are_fitted_to_the_validation_split(tmp_path: Path) -> None:
    """At the fitted temperature, the log loss is least. Some labels are wrong: else it would fall without end."""
    setup = setup_of(tmp_path, epochs=1)
    for k, uri in enumerate(setup.validation.uris):
        table = pq.read_table(uri.removeprefix("file:"))
        labels = table.column("colour").to_numpy().copy()
        labels[::5] = np.random.default_rng(k).integers(0, 4, len(labels[::5]))
        table = table.set_column(table.schema.get_field_index("colour"), "colour", pa.array(labels))
        warm = np.where(labels < 0, -2, np.isin(labels, [1, 2]))
        table = table.set_column(table.schema.get_field_index("warm"), "warm", pa.array(warm.astype(np.int64)))
        pq.write_table(table, uri.removeprefix("file:"), row_group_size=len(labels))
    weights, found, _ = trained(setup)
    ranks, device = Ranks.start(), torch.device("cpu")
    network = loop.Network(setup.config.backbone, {"colour": 4, "warm": 2})
    network.load_state_dict(weights)
    for name in ("colour", "warm"):
        temperature = found.partitions[name].temperature
        logits, labels = zip(
            *((z[:, 0].double(), y) for n, z, y in evaluate.logits_of(network, setup, ranks, device) if n == name),
            strict=True,
        )
        z, y = torch.cat(logits), torch.cat(labels)
        losses = [float(torch.nn.functional.cross_entropy(z / (temperature * f), y)) for f in (0.9, 1.0, 1.1)]
        assert losses[1] <= min(losses) + 1e-9
        assert found.partitions[name].log_loss == pytest.approx(losses[1], abs=1e-9)
        p, top = (z / temperature).softmax(1).max(1)
        assert sum(n for n, _, _ in found.partitions[name].reliability) == len(y)
        mean = sum(n * confidence for n, confidence, _ in found.partitions[name].reliability) / len(y)
        assert mean == pytest.approx(float(p.mean())) and found.partitions[name].top1 == pytest.approx(
            float((top == y).double().mean())
        )


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no backbone 'resnet5'"):
        trained(setup_of(tmp_path, backbone="resnet5"))
    with pytest.raises(ConfigError, match="4 files for 1 ranks with 5 streams"):
        trained(setup_of(tmp_path, loader={"workers": 5}))
    with pytest.raises(InputError, match="make no 1 batches of 100"):
        trained(setup_of(tmp_path, batch=100))


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    setup = setup_of(tmp_path, epochs=1)
    trained(setup)
    with pytest.raises(InputError, match="another configuration"):
        trained(replace(setup, identity="other"))
