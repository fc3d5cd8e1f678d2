"""The processes of a training: one alone, or those that torchrun started, each with a GPU or with CPU threads."""

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
class Ranks:
    """This process among those of a training."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and tells."""
        return self.rank == 0

    def own(self, chosen: Tensor) -> Tensor:
        """This process' part of what all are given (N, of which the first axis is shared out)."""
        return chosen.view(self.size, -1, *chosen.shape[1:])[self.rank] if self.size > 1 else chosen

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network as one whose gradients are averaged over the processes (Li et al. 2020, PyTorch Distributed)."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def unsynchronised(self, network: nn.Module) -> AbstractContextManager[None]:
        """A block in which gradients are summed up here and not averaged yet."""
        no_sync: AbstractContextManager[None] = network.no_sync() if self.size > 1 else nullcontext()  # type: ignore[operator]
        return no_sync

    def total(self, *figures: float) -> list[float]:
        """Each figure summed up over the processes."""
        if self.size == 1:
            return list(figures)
        summed = torch.tensor(figures, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(summed)
        return summed.tolist()

    def agree(self, find: Callable[[], T]) -> T:
        """What `find` gives in the first process, everywhere."""
        found = [find() if self.is_first else None]
        if self.size > 1:
            torch.distributed.broadcast_object_list(found, device=self.device)
        return found[0]  # type: ignore[return-value]

    def share(self, *tensors: Tensor) -> None:
        """Overwrite each tensor by that of the first process."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)


ALONE = Ranks(0, 1, torch.device("cpu"))


@contextmanager
def join(gpus: int) -> Iterator[Ranks]:
    """Yield this process among the others, by the variables of torchrun where they are set, on a GPU if `gpus` > 0.

    UserError where there are fewer GPUs here than that.
    """
    check_gpus(gpus)
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    if size == 1:
        yield Ranks(rank, size, device)
        return
    from torch.distributed.rendezvous import rendezvous

    # Where torchrun starts processes again, its store still holds the addresses of those that died.
    store, _, _ = next(rendezvous("env://"))
    store = torch.distributed.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # type: ignore[attr-defined]
    torch.distributed.init_process_group("nccl" if gpus else "gloo", store=store, rank=rank, world_size=size)
    yield Ranks(rank, size, device)
    torch.distributed.destroy_process_group()  # not after a failure, when it might wait for the others


def check_gpus(gpus: int) -> None:
    """Refuse to train on more GPUs than PyTorch sees."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus > found:
        why = "" if torch.version.cuda or torch.version.hip else ", for it was built for CPUs alone"
        raise UserError(f"gpus={gpus} is more than the {found} GPUs that PyTorch sees here{why}; give gpus={found}")
