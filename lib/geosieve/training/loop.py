"""The training of a predictor: the loop that every rank runs.

State lives in one place, `Training`. What `Training.state` gives can be saved, and `Training.load` continues from it
exactly: weights, their moving average, the optimizer's state, the place in the epoch, and every rank's random numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from geosieve.geo.arrays import F8, I8
from geosieve.models.network import Network, normal
from geosieve.models.weights import load_backbone
from geosieve.runtime.errors import InputError
from geosieve.runtime.store import write_file
from geosieve.training import losses
from geosieve.training.checkpoints import Checkpoints, State
from geosieve.training.evaluate import Evaluation, evaluated
from geosieve.training.loader import Augment, Batch, Sampler, training_batches
from geosieve.training.metrics import Metrics
from geosieve.training.plan import ShardFiles, Streams, deal, full_batches, remaining, shuffled
from geosieve.training.ranks import Ranks
from geosieve.training.train_config import TrainConfig


@dataclass(frozen=True)
class PartitionFacts:
    """A partition that is learned: its hash, number of regions, their centres, and images of each in training.

    `centres`: (regions, 2), latitude and longitude in degrees, NaN where a region has none. `images`: (regions,).
    """

    name: str
    digest: str
    centres: F8
    images: I8

    @property
    def regions(self) -> int:
        """The number of regions."""
        return len(self.images)


@dataclass(frozen=True)
class Setup:
    """All that a rank needs to know. `work`: URI of the folder of checkpoints and metrics."""

    config: TrainConfig
    train: ShardFiles
    validation: ShardFiles
    partitions: tuple[PartitionFacts, ...]
    work: str
    identity: str


@dataclass(frozen=True)
class Place:
    """Where a training is: `step` counts updates of the weights, from 0.

    `segments`: what is done of the epoch, as (number of ranks, batches of each). There are several after the number of
    ranks has changed.
    """

    epoch: int = 0
    step: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    best: float = math.inf
    since_best: int = 0


class Training:
    """One rank's network, optimizer and place."""

    def __init__(self, setup: Setup, ranks: Ranks) -> None:
        config = setup.config
        self.setup, self.config, self.ranks = setup, config, ranks
        self.device = torch.device("cuda", ranks.local) if torch.cuda.is_available() else torch.device("cpu")
        torch.manual_seed(config.seed)
        heads = {partition.name: partition.regions for partition in setup.partitions}
        self.network = Network(config.backbone, heads, config.dropout)
        if config.weights is not None:
            load_backbone(self.network.backbone, config.weights)
        self.network.on(self.device)
        self.optimizer = ranks.optimizer(
            _optimizer(self.network, config), self.network, config.accumulate, config.compression == "fp16"
        )
        self.average = (
            {name: value.clone() for name, value in self.network.state_dict().items()} if config.ema else None
        )
        self.place = Place()
        self.centres = [
            torch.from_numpy(partition.centres).to(self.device) if config.heads[partition.name].haversine_km else None
            for partition in setup.partitions
        ]
        ranks.same_start(self.network)
        torch.manual_seed(config.seed + 1 + ranks.rank)  # of dropout

    def state(self) -> State:
        """What this training continues from. All ranks call it together."""
        tensors = {f"network.{name}": value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        for name, value in (self.average or {}).items():
            tensors[f"average.{name}"] = value.cpu().clone()
        scalars: dict[str, Any] = {}
        for number, values in self.optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{number}.{name}"] = value.detach().cpu().clone()
                elif value is not None:
                    scalars[f"{number}.{name}"] = value
        for rank, generator in enumerate(self.ranks.gather(_generator_states(self.device))):
            tensors.update({f"random.{rank}.{name}": value for name, value in generator.items()})
        place = {**vars(self.place), "segments": [list(segment) for segment in self.place.segments]}
        place["best"] = None if math.isinf(self.place.best) else self.place.best
        return State(tensors, {"place": place, "optimizer": scalars})

    def load(self, state: State) -> None:
        """Continue from a state, on this rank."""
        self.network.load_state_dict(_named(state, "network."))
        if self.average is not None:
            self.average = {name: value.to(self.device) for name, value in _named(state, "average.").items()}
        values: dict[int, dict[str, Any]] = {}
        for name, value in (*_named(state, "optimizer.").items(), *state.facts["optimizer"].items()):
            number, _, key = name.partition(".")
            values.setdefault(int(number), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": values, "param_groups": groups})
        self.optimizer.zero_grad()
        generators = _named(state, f"random.{self.ranks.rank}.")
        if generators:  # there are none of a rank that has joined since
            _set_generators(generators, self.device)
        place = dict(state.facts["place"])
        place["segments"] = tuple((int(ranks), int(batches)) for ranks, batches in place["segments"])
        place["best"] = math.inf if place["best"] is None else place["best"]
        self.place = Place(**place)

    def evaluated_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are evaluated and kept: the moving average, if there is one."""
        return {name: value.cpu().clone() for name, value in (self.average or self.network.state_dict()).items()}

    def epoch_plan(self) -> tuple[Streams, int, int]:
        """This rank's streams of the epoch, the batches it has taken of them, and those that it takes in all."""
        rows, ranks, streams = self.setup.train.rows, self.ranks.size, max(1, self.config.loader.workers)
        parts, skip = shuffled(len(rows), self.config.seed, self.place.epoch), 0
        for of_ranks, batches in self.place.segments:
            if of_ranks == ranks and (of_ranks, batches) == self.place.segments[-1]:
                skip = batches
                break
            parts = remaining(deal(parts, rows, of_ranks, streams), rows, batches, self.config.batch)
        else:
            if self.place.segments and len(parts) < ranks * streams:
                return (), 0, 0  # what is left of the epoch is less than a file for each
        own = deal(parts, rows, ranks, streams)[self.ranks.rank]
        count = self.ranks.least(full_batches(own, rows, self.config.batch))
        return own, skip, count - count % self.config.accumulate

    def batches(self, own: Streams, skip: int, count: int) -> Iterator[Batch]:
        """The batches from `skip` to `count` of an epoch."""
        config = self.config
        return training_batches(
            self.setup.train,
            own,
            skip,
            count - skip,
            batch=config.batch,
            sampler=self._sampler(),
            augment=Augment(config.augmentation, config.preprocessing.crop, config.seed, self.place.epoch),
            preprocessing=config.preprocessing,
            processes=config.loader.workers > 0,
        )

    def _sampler(self) -> Sampler:
        balance = self.config.balance
        if balance is None:
            return Sampler(self.config.seed, self.place.epoch)
        column = [partition.name for partition in self.setup.partitions].index(balance.partition)
        images = self.setup.partitions[column].images
        weights = np.where(images > 0, np.maximum(images, 1) ** -balance.power, 0.0)
        return Sampler(self.config.seed, self.place.epoch, column, weights)

    def loss_of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar with its graph."""
        images = normal(self.config.preprocessing, batch.images.to(self.device, non_blocking=True))
        labels, positions = batch.labels.to(self.device), batch.positions.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            logits = self.network(images)
        found = []
        for k, (partition, values) in enumerate(zip(self.setup.partitions, logits, strict=True)):
            head, centres, targets = self.config.heads[partition.name], self.centres[k], None
            if head.haversine_km is not None and centres is not None:
                targets = losses.haversine_targets(positions, labels[:, k], centres, head.haversine_km)
            found.append(losses.cross_entropy(values, labels[:, k], head.smoothing, targets))
        return losses.total(found, [self.config.heads[partition.name].weight for partition in self.setup.partitions])

    def epochs_done(self) -> float:
        """How many epochs are done, with the part of the current one."""
        images = sum(ranks * batches for ranks, batches in self.place.segments) * self.config.batch
        return self.place.epoch + min(1.0, images / sum(self.setup.train.rows))

    def rate(self) -> float:
        """Set the learning rates of this step, and return that of the heads."""
        factor = self.config.schedule.factor(self.place.step, self.epochs_done(), self.config.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_rate"] * factor
        return self.config.optimizer.rate * factor

    def update(self) -> None:
        """Follow the gradients, and move the average of weights."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None and self.config.ema is not None:
            with torch.no_grad():
                for name, value in self.network.state_dict().items():
                    if value.is_floating_point():
                        self.average[name].lerp_(value, 1 - self.config.ema)
                    else:
                        self.average[name].copy_(value)


Trained = tuple[dict[str, torch.Tensor], Evaluation]
"""The best weights, and their evaluation."""
Commit = Callable[[State], None]
"""What is called with each state that is saved, on every rank."""


def checkpoints_of(setup: Setup) -> Checkpoints:
    """The checkpoints of a training."""
    return Checkpoints(f"{setup.work}/checkpoints", setup.identity, setup.config.checkpoints.keep)


def run(setup: Setup, ranks: Ranks, metrics: Metrics) -> Trained:
    """Train to the end, from the last checkpoint if there is one. Every rank runs this.

    InputError if the loss is not finite; it names a file that lists the images of the batch.
    """
    training = Training(setup, ranks)
    state = ranks.broadcast(checkpoints_of(setup).latest() if ranks.rank == 0 else None)
    if state is not None:
        training.load(state)
    return go_on(training, metrics, lambda _: None)


def go_on(training: Training, metrics: Metrics, commit: Commit) -> Trained:
    """Train from where the ranks are to the end."""
    checkpoints, ranks = checkpoints_of(training.setup), training.ranks
    while not _is_over(training):
        _train_epoch(training, checkpoints, metrics, commit)
        _end_epoch(training, checkpoints, metrics, commit)
    weights = ranks.broadcast(checkpoints.best() if ranks.rank == 0 else None)
    assert weights is not None  # every epoch ends with a validation, whose first is the best so far
    training.network.load_state_dict({name: value.to(training.device) for name, value in weights.tensors.items()})
    return dict(weights.tensors), evaluated(training.network, training.setup, ranks, training.device, calibrate=True)


def _is_over(training: Training) -> bool:
    patience = training.config.early_stopping
    return training.place.epoch >= training.config.epochs or (
        patience is not None and training.place.since_best >= patience
    )


def _train_epoch(training: Training, checkpoints: Checkpoints, metrics: Metrics, commit: Commit) -> None:
    """The rest of the epoch."""
    config, ranks = training.config, training.ranks
    training.network.train()
    own, skip, count = training.epoch_plan()
    if count == 0 and not training.place.segments:
        raise InputError(
            f"the training images make no {config.accumulate} batches of {config.batch} per process",
            where=training.setup.train.uris[0],
            hint="a smaller batch, fewer processes, or fewer loader.workers",
        )
    before = training.place.segments[:-1] if skip else training.place.segments
    watch = _Watch(training)
    for number, batch in enumerate(training.batches(own, skip, count), skip + 1):
        rate = training.rate()
        loss = training.loss_of(batch)
        (loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
        watch.saw(batch, loss)
        if number % config.accumulate:
            continue
        training.update()
        training.place = replace(training.place, step=training.place.step + 1, segments=(*before, (ranks.size, number)))
        done = training.epochs_done() / config.epochs
        images = len(batch.ids) * config.accumulate * ranks.size
        metrics.step(training.place.step, training.place.epoch, done, loss, rate, images)
        if training.place.step % config.checkpoints.every_steps == 0:
            watch.check()
            training.ranks.average_buffers(training.network)
            _save(training, checkpoints, commit)
    watch.check()


def _save(training: Training, checkpoints: Checkpoints, commit: Commit) -> None:
    state = training.state()
    if training.ranks.rank == 0:
        checkpoints.save(state, training.place.step)
    commit(state)


def _end_epoch(training: Training, checkpoints: Checkpoints, metrics: Metrics, commit: Commit) -> None:
    """Validate, keep the best, and save the place of the next epoch."""
    ranks, place = training.ranks, training.place
    ranks.average_buffers(training.network)
    own = {name: value.clone() for name, value in training.network.state_dict().items()}
    weights = training.evaluated_weights()
    training.network.load_state_dict({name: value.to(training.device) for name, value in weights.items()})
    found = evaluated(training.network, training.setup, ranks, training.device)
    training.network.load_state_dict(own)
    is_best = found.loss < place.best
    training.place = replace(
        place,
        epoch=place.epoch + 1,
        segments=(),
        best=min(found.loss, place.best),
        since_best=0 if is_best else place.since_best + 1,
    )
    metrics.epoch(place.epoch, place.step, found)
    if ranks.rank == 0 and (is_best or place.epoch == 0):
        checkpoints.save(State(weights, {"epoch": place.epoch, "loss": found.loss}), place.step, best=True)
    _save(training, checkpoints, commit)


class _Watch:
    """Stops the training when a loss is not finite, one batch later: to look at it at once would make a GPU wait."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._last: tuple[Batch, torch.Tensor] | None = None

    def saw(self, batch: Batch, loss: torch.Tensor) -> None:
        """Look at the loss before, and keep this one."""
        self.check()
        self._last = (batch, loss.detach())

    def check(self) -> None:
        """InputError if the last loss is not finite. The ids of its batch are saved first."""
        if self._last is None or bool(torch.isfinite(self._last[1])):
            return
        place, rank = self._training.place, self._training.ranks.rank
        uri = f"{self._training.setup.work}/not_finite-step{place.step}-rank{rank}.json"
        facts = {"loss": str(float(self._last[1])), "epoch": place.epoch, "images": list(self._last[0].ids)}
        write_file(uri, json.dumps(facts, indent=0).encode())
        raise InputError(
            f"the loss is not finite at step {place.step}: {float(self._last[1])}",
            where=uri,
            hint="the file lists the images of the batch; a lower optimizer.rate, or more warmup_steps, may help",
        )


def _optimizer(network: Network, config: TrainConfig) -> torch.optim.Optimizer:
    given = config.optimizer
    of_backbone = given.rate if given.backbone_rate is None else given.backbone_rate
    for parameter in network.backbone.parameters():
        parameter.requires_grad = of_backbone > 0
    groups = [{"params": list(network.heads.parameters()), "lr": given.rate, "full_rate": given.rate}]
    if of_backbone > 0:
        backbone = list(network.backbone.parameters())
        groups.append({"params": backbone, "lr": of_backbone, "full_rate": of_backbone})
    if given.kind == "sgd":
        return torch.optim.SGD(groups, momentum=given.momentum, weight_decay=given.decay)
    return torch.optim.AdamW(groups, weight_decay=given.decay)


def _named(state: State, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.tensors.items() if name.startswith(prefix)}


def _generator_states(device: torch.device) -> dict[str, torch.Tensor]:
    """States of the generators of random numbers that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_generators(states: Mapping[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
