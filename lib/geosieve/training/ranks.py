"""The processes of a training, by Horovod; also if there is only one.

Horovod is started here and nowhere else: under `horovodrun`, in a Spark task, or alone.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import horovod.torch as hvd
import torch
from torch import nn

from geosieve.runtime.errors import ConfigError

T = TypeVar("T")
_CYCLE_MS = "10"
"""Between two looks of Horovod's thread for gradients that all ranks have, where several train on CPUs. With its
default of 1 ms, two processes on two cores reach 0.6 of what one does with two threads (docs/benchmarks.md)."""
_CORES = sorted(os.sched_getaffinity(0))
"""What this process may use, before it leaves a share to others."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory, with the axes in its order if it is channels-last."""
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.permute(0, 2, 3, 1) if last else tensor


class _Packed:
    """How gradients travel. Horovod takes only what lies in the order of its axes; ranks of one network order alike."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _channels_last(tensor).contiguous(), tensor

    @staticmethod
    def decompress(sent: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        if sent.data_ptr() != tensor.data_ptr():
            _channels_last(tensor).copy_(sent)
        return tensor


class _Halved(_Packed):
    """Gradients in half precision."""

    @staticmethod
    def compress(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _channels_last(tensor).contiguous().to(torch.float16), tensor


def _share_cores(local: int, processes: int) -> None:
    """Take this process's share of the machine's cores. Without GPUs it stays on them.

    Where threads move between cores, one process ends its gradients before the other, and both wait in each step.
    """
    share = len(_CORES) // processes
    torch.set_num_threads(max(1, min(share, torch.get_num_threads())))
    if torch.cuda.is_available():
        return
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(int(thread), _CORES[local * share : (local + 1) * share] or _CORES)


def _keep_memory() -> None:
    """Let the C library keep what a step frees, for the next step.

    It would give tensors back to the kernel, which clears each page when it is touched again: a tenth of a step.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train: number `rank` of `size`, and number `local` on its machine."""

    rank: int
    size: int
    local: int

    @classmethod
    def start(cls) -> Ranks:
        """Start Horovod, if it does not run yet. Processes on one machine share its cores.

        ConfigError if several processes are to train on GPUs, and Horovod was built without them.
        """
        if "HOROVOD_SIZE" in os.environ and not torch.cuda.is_available():
            os.environ.setdefault("HOROVOD_CYCLE_TIME", _CYCLE_MS)
        hvd.init()
        if hvd.size() > 1 and torch.cuda.is_available() and not (hvd.cuda_built() or hvd.rocm_built()):
            raise ConfigError(
                "Horovod was built without GPUs, and several processes are to train on them",
                hint="build it with HOROVOD_GPU_OPERATIONS=NCCL, or hide the GPUs: CUDA_VISIBLE_DEVICES=",
            )
        if "OMP_NUM_THREADS" not in os.environ:
            # Spark shares the cores out among its tasks; under horovodrun each process would take them all.
            _share_cores(hvd.local_rank(), hvd.local_size())
        _keep_memory()
        return cls(hvd.rank(), hvd.size(), hvd.local_rank())

    def least(self, value: int) -> int:
        """The least of the ranks' values."""
        return int(hvd.allreduce(torch.tensor(value), op=hvd.Min))

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of the ranks' tensors, in double precision, on the CPU."""
        return hvd.allreduce(values.detach().cpu().double(), op=hvd.Sum)  # type: ignore[no-any-return]

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        # The default name is that of the value's type, which ranks without a value do not share: they would wait.
        return hvd.broadcast_object(value, root_rank=0, name="broadcast")  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return hvd.allgather_object(value, name="gather")  # type: ignore[no-any-return]

    def same_start(self, module: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        if self.size == 1:
            return  # a Horovod without GPUs serves one process on a GPU as well
        weights = module.state_dict()
        sent = {
            name: hvd.broadcast_async(value.contiguous(), root_rank=0, name=f"start.{name}")
            for name, value in weights.items()
        }
        for name, handle in sent.items():
            weights[name].copy_(hvd.synchronize(handle))

    def average_buffers(self, module: nn.Module) -> None:
        """Replace buffers, such as statistics of batch normalisation, by their mean over ranks."""
        if self.size == 1:
            return
        buffers = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
        sent = {name: hvd.allreduce_async(buffer, op=hvd.Average, name=name) for name, buffer in buffers.items()}
        for name, handle in sent.items():
            buffers[name].copy_(hvd.synchronize(handle))

    def optimizer(
        self, inner: torch.optim.Optimizer, module: nn.Module, accumulate: int, fp16: bool
    ) -> torch.optim.Optimizer:
        """An optimizer whose steps follow the mean of the ranks' gradients."""
        return hvd.DistributedOptimizer(  # type: ignore[no-any-return]
            inner,
            named_parameters=module.named_parameters(),
            compression=_Halved if fp16 else _Packed,
            backward_passes_per_step=accumulate,
            # GPUs send gradients while others are computed. CPUs compute and send on the same cores: one sending costs
            # them least.
            groups=None if torch.cuda.is_available() else 1,
        )
