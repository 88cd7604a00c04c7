"""How gradients travel, and what a process takes of its machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from geosieve.training import ranks


@pytest.fixture
def cores() -> Iterator[list[int]]:
    """The cores of this process, which it gets back."""
    found, threads = sorted(os.sched_getaffinity(0)), torch.get_num_threads()
    yield found
    ranks._share_cores(0, 1)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(3,), (4, 5), (6, 3, 5, 5), (6, 1, 3, 3), (6, 4, 1, 1)])
@pytest.mark.parametrize("halved", [False, True])
def test_a_gradient_travels_in_the_usual_order_and_comes_back_in_its_own(shape: tuple[int, ...], halved: bool) -> None:
    way = ranks._Halved if halved else ranks._Packed
    gradient = torch.randn(shape)
    gradient = gradient.to(memory_format=torch.channels_last) if len(shape) == 4 else gradient
    twice, strides = 2 * gradient, gradient.stride()
    sent, ours = way.compress(gradient)
    assert sent.is_contiguous()
    assert halved or sent.data_ptr() == gradient.data_ptr()  # nothing is copied
    sent.mul_(2)  # as Horovod does, in place
    found = way.decompress(sent, ours)
    assert found.stride() == strides
    assert torch.allclose(found, twice, rtol=1e-3 if halved else 0)


def test_any_other_order_of_memory_comes_back_as_well() -> None:
    gradient = torch.arange(6.0).view(2, 3).t()
    sent, ours = ranks._Packed.compress(gradient)
    assert sent.is_contiguous()
    sent.neg_()
    assert torch.equal(ranks._Packed.decompress(sent, ours), -torch.arange(6.0).view(2, 3).t())


def test_processes_on_a_machine_have_each_their_own_cores(cores: list[int]) -> None:
    seen: list[int] = []
    for local in range(len(cores)):
        ranks._share_cores(local, len(cores))
        seen += os.sched_getaffinity(0)
    assert sorted(seen) == cores


def test_who_is_left_alone_gets_all_cores_back_and_too_many_share_them(cores: list[int]) -> None:
    ranks._share_cores(0, len(cores))
    ranks._share_cores(0, 1)
    assert sorted(os.sched_getaffinity(0)) == cores
    ranks._share_cores(len(cores), 2 * len(cores))
    assert sorted(os.sched_getaffinity(0)) == cores
