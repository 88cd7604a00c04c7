"""Training by several real processes: the same as by one, equal on all ranks, and continued after a death."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated_training import setup_of
from safetensors.torch import load_file

from geosieve.training import loop
from geosieve.training.metrics import Metrics
from geosieve.training.ranks import Ranks

RANK = Path(__file__).with_name("rank.py")
SGD = {"optimizer": {"kind": "sgd", "rate": 0.01}, "epochs": 2}
NORMALISED: dict[str, Any] = {"backbone": "test_resnet", "dropout": 0.2, "epochs": 2}
"""With batch normalisation, whose statistics each rank gathers from its own images, and dropout of its own."""


def horovodrun(
    folder: Path, identity: str, change: dict[str, Any], *options: str, kill: int | None = None, whom: int = 1
) -> tuple[int, str]:
    """The exit code, and what was written to standard error. A first attempt kills rank `whom` after step `kill`."""
    command = [str(Path(sys.executable).with_name("horovodrun")), *options, sys.executable, str(RANK), str(folder)]
    command += [identity, json.dumps(change), *([] if kill is None else [str(kill), str(whom)])]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if "--min-np" not in options:
        environment.pop("OMP_NUM_THREADS", None)  # the processes share out the cores themselves
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    print(done.stdout[-3_000:], done.stderr[-3_000:])
    return done.returncode, done.stderr


def two(folder: Path, identity: str, change: dict[str, Any], kill: int | None = None) -> int:
    return horovodrun(folder, identity, change, "-np", "2", "--gloo", kill=kill)[0]


def weights(folder: Path, identity: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{identity}-weights.safetensors")


def lines(folder: Path, identity: str, rank: int) -> list[dict[str, Any]]:
    text = (folder / f"{identity}-rank{rank}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path: Path) -> None:
    """One process takes a batch of each of two streams, which two processes take at the same time."""
    setup = setup_of(tmp_path, identity="one", loader={"workers": 2}, accumulate=2, **SGD)
    expected, evaluation = loop.run(setup, Ranks.start(), Metrics(setup.work, 0, None))
    assert two(tmp_path, "two", SGD) == 0
    found = weights(tmp_path, "two")
    moved = max(float((value - loop_start(setup)[name]).abs().max()) for name, value in expected.items())
    assert moved > 1e-3
    assert all(torch.allclose(value, expected[name], atol=1e-5) for name, value in found.items())
    told = json.loads((tmp_path / "two-evaluation.json").read_text())
    assert told["loss"] == pytest.approx(evaluation.loss, abs=1e-4)
    assert told["threads"] <= max(1, len(os.sched_getaffinity(0)) // 2)

    cores = [json.loads((tmp_path / f"two-cores{rank}.json").read_text()) for rank in range(2)]
    assert all(of_thread == of_rank[0] for of_rank in cores for of_thread in of_rank)
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) % 2 == 0:
        assert cores[0][0] + cores[1][0] == ours  # each has half of them


def loop_start(setup: loop.Setup) -> dict[str, torch.Tensor]:
    torch.manual_seed(setup.config.seed)
    return loop.Network(setup.config.backbone, {"colour": 4, "warm": 2}).state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed training of two processes by NORMALISED."""
    folder = tmp_path_factory.mktemp("whole")
    setup_of(folder)
    assert two(folder, "whole", NORMALISED) == 0
    return folder


def test_all_ranks_have_the_same_weights_after_every_epoch(whole: Path) -> None:
    first, second = lines(whole, "whole", 0), lines(whole, "whole", 1)
    assert first == second and len({line["digest"] for line in first}) == NORMALISED["epochs"]


def test_after_the_death_of_a_process_another_run_ends_with_the_same_weights(whole: Path) -> None:
    assert two(whole, "killed", NORMALISED, kill=6) != 0
    assert not (whole / "killed-weights.safetensors").exists()
    assert two(whole, "killed", NORMALISED) == 0
    expected, found = weights(whole, "whole"), weights(whole, "killed")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def elastic(folder: Path, identity: str, kill: int, whom: int) -> tuple[int, str]:
    """Two processes, of which one may be lost: it is killed."""
    hosts = folder / "hosts.sh"
    hosts.write_text("#!/bin/sh\necho localhost:1\necho 127.0.0.1:1\n")
    hosts.chmod(0o755)
    setup_of(folder)
    options = ("-np", "2", "--min-np", "1", "--max-np", "2", "--host-discovery-script", str(hosts), "--gloo")
    change = {"epochs": 3, "checkpoints": {"every_steps": 2}}
    return horovodrun(folder, identity, change, *options, kill=kill, whom=whom)


def test_an_elastic_training_outlives_a_process(tmp_path: Path) -> None:
    """The other goes on alone, from the last checkpoint."""
    assert elastic(tmp_path, "elastic", kill=8, whom=1)[0] == 0
    done = lines(tmp_path, "elastic", 0)
    assert [line["epoch"] for line in done] == [1, 2, 3]
    assert [line["size"] for line in done] == [2, 1, 1]
    # Six steps of two ranks an epoch; then 13 of one, which learns to the end.
    assert [line["step"] for line in done] == [6, 19, 32] and len({line["digest"] for line in done}) == 3
    assert json.loads((tmp_path / "elastic-evaluation.json").read_text())["size"] == 1


def test_an_elastic_training_that_has_lost_the_process_that_writes_does_not_pretend(tmp_path: Path) -> None:
    """Another process becomes rank 0 and trains to the end. It has no tables to write to, and says so."""
    code, written = elastic(tmp_path, "elastic", kill=8, whom=0)
    assert code != 0 and "the process that writes the predictor has ended" in written
    done = lines(tmp_path, "elastic", 0)
    assert [line["epoch"] for line in done] == [1, 2, 3] and [line["size"] for line in done] == [2, 1, 1]
    assert not (tmp_path / "elastic-weights.safetensors").exists()
    setup = setup_of(tmp_path, identity="elastic", epochs=3, checkpoints={"every_steps": 2})
    found = loop.checkpoints_of(setup).latest()
    assert found is not None and found.facts["place"]["epoch"] == 3  # another run has nothing left to train
