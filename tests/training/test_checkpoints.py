"""Checkpoints: what is saved is what is read; what is cut, changed or foreign is not used, but the one before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geosieve.runtime import store
from geosieve.runtime.errors import GeosieveError, InputError, RetryableError
from geosieve.training.checkpoints import Checkpoints, State


def state(value: int) -> State:
    tensors = {
        "a": torch.full((3, 2), float(value)),
        "b": torch.arange(5, dtype=torch.uint8),
        "turned": torch.arange(6.0).reshape(2, 3).T,
    }
    return State(tensors, {"place": {"step": value}, "rate": 0.1})


def folder(tmp_path: Path, keep: int = 2, identity: str = "this") -> Checkpoints:
    return Checkpoints(f"file:{tmp_path}/deep/checkpoints", identity, keep)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "deep" / "checkpoints").iterdir())


def test_a_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    assert folder(tmp_path).latest() is None and folder(tmp_path).best() is None
    folder(tmp_path).save(state(3), 3)
    found = folder(tmp_path).latest()
    assert found is not None and found.facts == {**state(3).facts, "step": 3}
    assert found.tensors.keys() == state(3).tensors.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in state(3).tensors.items())


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    for step in (5, 90, 100, 1_000_000):
        kept.save(state(step), step)
        if step in (5, 90):
            kept.save(state(step), step, best=True)
    assert [path.name[:15] for path in files(tmp_path)] == ["best-0000000090", "step-0000000100", "step-0001000000"]
    latest, best = kept.latest(), kept.best()
    assert latest is not None and best is not None
    assert (latest.facts["step"], best.facts["step"]) == (1_000_000, 90)


def test_of_two_of_one_step_the_later_counts(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    for value in range(8):  # names end with digests, whose order is not that of time
        kept.save(state(value), 6)
        latest = kept.latest()
        assert latest is not None and latest.facts["place"] == {"step": value}
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_one_is_passed_over(tmp_path: Path, cut: int) -> None:
    kept = folder(tmp_path)
    kept.save(state(1), 1)
    kept.save(state(2), 2)
    path = files(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:cut])
    found = kept.latest()
    assert found is not None and found.facts["step"] == 1


def test_a_changed_one_is_passed_over_and_a_changed_best_refused(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.save(state(1), 1)
    kept.save(state(1), 1, best=True)
    for path in files(tmp_path):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    assert kept.latest() is None
    with pytest.raises(InputError, match="damaged or cut off"):
        kept.best()


def test_one_of_another_training_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, identity="other").save(state(1), 1)
    with pytest.raises(InputError, match="another configuration"):
        folder(tmp_path).latest()


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = folder(tmp_path)
    kept.save(state(1), 1)

    def full(path: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_to_disk", full)
    with pytest.raises(GeosieveError, match="disk is full") as caught:
        kept.save(state(2), 2)
    assert isinstance(caught.value, RetryableError)
    assert [path.name[:15] for path in files(tmp_path)] == ["step-0000000001"]
