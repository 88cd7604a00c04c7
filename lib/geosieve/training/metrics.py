"""The figures of a training while it runs: lines of JSON, TensorBoard, and a line on the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from geosieve.runtime.store import write_file
from geosieve.training.evaluate import Evaluation

_SECONDS = 10.0
"""Time between two figures of steps."""


class Metrics:
    """Figures of rank 0, in `metrics.jsonl` in the folder `work`, and for TensorBoard in a local folder, if given.

    On other ranks nothing is written.
    """

    def __init__(self, work: str, rank: int, tensorboard: str | None) -> None:
        self._uri, self._active = f"{work}/metrics.jsonl", rank == 0
        self._lines: list[str] = []
        self._images, self._done, self._since = 0, 0.0, time.monotonic()
        self._board = None
        if tensorboard is not None and self._active:
            from torch.utils.tensorboard import SummaryWriter  # imports TensorFlow's parts for seconds

            self._board = SummaryWriter(tensorboard)

    def step(self, step: int, epoch: int, done: float, loss: Tensor, rate: float, images: int) -> None:
        """A step is done. `done`: the share of the whole training. `images`: of all ranks in this step."""
        if not self._active:
            return
        self._images += images
        self._done = self._done or done
        seconds = time.monotonic() - self._since
        if seconds < _SECONDS or done <= self._done:
            return
        speed, left = self._images / seconds, (1 - done) * seconds / (done - self._done)
        value = float(loss.detach())
        self._write({"step": step, "epoch": epoch, "loss": value, "rate": rate, "images_per_second": speed}, step)
        text = f"epoch {epoch}, step {step}, {done:.1%}: loss {value:.4f}"
        print(f"{text}, {speed:,.0f} images/s, {left / 60:,.0f} min left", file=sys.stderr, flush=True)
        self._restart()

    def epoch(self, epoch: int, step: int, found: Evaluation) -> None:
        """An epoch is validated."""
        if not self._active:
            return
        facts: dict[str, Any] = {"epoch": epoch, "step": step, "validation_loss": found.loss}
        for name, of_partition in found.partitions.items():
            facts.update(
                {
                    f"validation_{name}_log_loss": of_partition.log_loss,
                    f"validation_{name}_top1": of_partition.top1,
                    f"validation_{name}_top5": of_partition.top5,
                }
            )
        self._write(facts, step)
        self.save()
        self._restart()

    def save(self) -> None:
        """Write the lines so far."""
        if self._active and self._lines:
            write_file(self._uri, ("\n".join(self._lines) + "\n").encode())

    def _restart(self) -> None:
        """Count images and time from here."""
        self._images, self._done, self._since = 0, 0.0, time.monotonic()

    def _write(self, facts: Mapping[str, Any], step: int) -> None:
        self._lines.append(json.dumps({"time": time.time(), **facts}))
        if self._board is not None:
            for name, value in facts.items():
                if name not in ("step", "epoch"):
                    self._board.add_scalar(name, value, step)
