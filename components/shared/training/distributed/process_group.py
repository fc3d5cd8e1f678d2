"""The processes of a training: a single one, or those that torchrun started, each with a GPU or with CPU threads."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from components.shared.core.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a training."""

    rank: int
    size: int
    device: torch.device
    on_machine: int = 1  # how many of them run on this machine

    @property
    def is_first(self) -> bool:
        """Return whether this is the process that writes files and logs."""
        return self.rank == 0

    def shard(self, batch: Tensor) -> Tensor:
        """Return this process's part of a tensor (N, ...) that is equal in all processes."""
        return batch.view(self.size, -1, *batch.shape[1:])[self.rank] if self.size > 1 else batch

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return a network whose gradients are averaged over the processes (Li et al. 2020, PyTorch Distributed)."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def no_sync(self, network: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients accumulate in this process and are not averaged yet."""
        no_sync: AbstractContextManager[None] = network.no_sync() if self.size > 1 else nullcontext()  # type: ignore[operator]
        return no_sync

    def all_reduce_sum(self, *figures: float) -> list[float]:
        """Return the sum of each figure over all processes."""
        if self.size == 1:
            return list(figures)
        sums = torch.tensor(figures, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        return sums.tolist()

    def broadcast_object(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process only, and return its result in all."""
        made = [make() if self.is_first else None]
        if self.size > 1:
            torch.distributed.broadcast_object_list(made, device=self.device)
        return made[0]  # type: ignore[return-value]

    def broadcast_(self, *tensors: Tensor) -> None:
        """Overwrite each tensor with that of the first process."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


SINGLE = ProcessGroup(0, 1, torch.device("cpu"))


@contextmanager
def init_process_group(gpus: int) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun's variables describe, if they are set, on a GPU each if `gpus` > 0.

    Raises UserError if PyTorch sees fewer GPUs than `gpus`.
    """
    check_gpus(gpus)
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if size == 1:
        yield ProcessGroup(rank, size, device, on_machine)
        return
    from torch.distributed.rendezvous import rendezvous

    # After a restart, torchrun's store still holds the addresses of the processes that died.
    store, _, _ = next(rendezvous("env://"))
    store = torch.distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # type: ignore[attr-defined]
    torch.distributed.init_process_group("nccl" if gpus else "gloo", store=store, rank=rank, world_size=size)
    yield ProcessGroup(rank, size, device, on_machine)
    torch.distributed.destroy_process_group()  # not after a failure: it might wait for processes that have died


def check_gpus(gpus: int) -> None:
    """Raise UserError if PyTorch sees fewer GPUs than `gpus`."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > found:
        why = "" if torch.version.cuda or torch.version.hip else ", because it was built for CPUs only"
        raise UserError(f"gpus={gpus} is more than the {found} GPUs that PyTorch sees here{why}", f"give gpus={found}")
