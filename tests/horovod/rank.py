"""One process of a training on fabricated shards, started by horovodrun: rank.py FOLDER IDENTITY CHANGE [kill [rank]].

Rank 0 writes `IDENTITY-weights.safetensors`, every rank a line per epoch with the digest of its weights. With `kill`,
a rank (1, if it is not given) of a first attempt kills itself without warning after that step.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path[:0] = [str(Path(__file__).parents[1])]

from fabricated_training import setup_of  # noqa: E402

from geosieve.training import elastic, launch, loop  # noqa: E402
from geosieve.training.metrics import Metrics  # noqa: E402
from geosieve.training.ranks import Ranks  # noqa: E402


def digest(tensors: dict[str, torch.Tensor]) -> str:
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def main(folder: Path, identity: str, change: dict[str, Any], kill: int | None, whom: int) -> int:
    setup = setup_of(folder, identity=identity, **change)
    end_epoch, step = loop._end_epoch, Metrics.step
    mark = folder / f"{identity}-killed"

    def noted(training: loop.Training, *rest: Any) -> None:
        end_epoch(training, *rest)
        with open(folder / f"{identity}-rank{training.ranks.rank}.jsonl", "a") as file:
            found = {"epoch": training.place.epoch, "size": training.ranks.size, "step": training.place.step}
            file.write(json.dumps({**found, "digest": digest(training.network.state_dict())}) + "\n")

    def killed(metrics: Metrics, number: int, *rest: Any) -> None:
        if number == kill and metrics._active == (whom == 0) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        step(metrics, number, *rest)

    loop._end_epoch, Metrics.step = noted, killed  # type: ignore[method-assign]
    if elastic.is_elastic():
        if Ranks.start().rank > 0:
            return launch.follow()
        found = elastic.run(setup)
        ranks = Ranks.start()
    else:
        ranks = Ranks.start()
        found = loop.run(setup, ranks, Metrics(setup.work, ranks.rank, None))
    cores = [sorted(os.sched_getaffinity(int(thread))) for thread in os.listdir("/proc/self/task")]
    (folder / f"{identity}-cores{ranks.rank}.json").write_text(json.dumps(cores))
    if ranks.rank == 0:
        save_file(found[0], folder / f"{identity}-weights.safetensors")
        (folder / f"{identity}-evaluation.json").write_text(
            json.dumps({"loss": found[1].loss, "size": ranks.size, "threads": torch.get_num_threads()})
        )
    return 0


if __name__ == "__main__":
    kill = int(sys.argv[4]) if len(sys.argv) > 4 else None
    whom = int(sys.argv[5]) if len(sys.argv) > 5 else 1
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), kill, whom))
