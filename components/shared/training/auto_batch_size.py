"""batch_size=auto: the largest power of two that fits into the memory."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.resources import free_memory, total_memory
from components.shared.data.dataset import Dataset
from components.shared.models import factory
from components.shared.training.batches import fits_on, split_bytes
from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.initialize import architecture, autocast
from components.shared.training.settings import Settings

LARGEST = 4096  # of one process
STEPS_OF_EPOCH = 10  # at least
SHARE = 0.5  # of the main memory, whatever is in use, so that a step that is repeated finds the same size
FREE_SHARE = 0.9  # of what is free of it, at most
GPU_SHARE = 0.9  # of a GPU's memory
OTHERS = 4  # of the size of the weights: the averaged and the best ones, and what Adam remembers
COPIES = 3  # of what is kept for the backward pass, gradients included
PROBE = 2  # images from which the need of one is reckoned


def largest_batch(settings: Settings, data: Dataset, group: ProcessGroup) -> int:
    """The largest batch that fits, a power of two times the number of processes, and leaves 10 steps in an epoch.

    On a GPU it is tried out; on the CPU it follows from the bytes that are kept for the backward pass of two images,
    for memory that is not there ends the process.
    """
    images = data.counts["train"] // (STEPS_OF_EPOCH * group.size * settings.accumulate)
    limit = min(LARGEST, 1 << max(1, images.bit_length() - 1))  # one image alone cannot be normalised
    network = factory.build(architecture(settings, data)).to(group.device)
    with autocast(settings, group.device):
        if group.device.type == "cuda":
            size = _largest_tried(network, data, group, limit)
        else:
            size = min(limit, _largest_reckoned(network, data, group.device))
    if size < 1:
        raise UserError(f"no step of {settings.network} fits into the memory; prepare smaller images, or fewer classes")
    log.info(f"batch_size=auto is {size * group.size:,}")
    return size * group.size


def _largest_tried(network: nn.Module, data: Dataset, group: ProcessGroup, limit: int) -> int:
    """The largest power of two with which a step does not run out of the GPU's memory; 0 where none does.

    Beside what a training keeps there: its other weights, buckets of gradients for the other processes, and the data.
    """
    device, size, largest = group.device, 0, 0
    kept: list[nn.Module | Tensor] = []
    torch.cuda.set_per_process_memory_fraction(GPU_SHARE, device)
    try:
        kept += [copy.deepcopy(network) for _ in range(OTHERS + (group.size > 1))]
        for held in (split_bytes(data, split) for split in ("train", "val")):
            if fits_on(device, held):
                kept.append(torch.empty(held, dtype=torch.uint8, device=device))
        while size < limit:
            size = 2 * size or 2
            _loss(network, data, device, size).backward()  # type: ignore[no-untyped-call]
            largest = size
    except torch.OutOfMemoryError:
        pass
    finally:
        kept.clear()
        network.zero_grad()
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    return largest


def _largest_reckoned(network: nn.Module, data: Dataset, device: torch.device) -> int:
    """The largest power of two whose step takes `SHARE` of the memory; 0 where none does."""
    kept: dict[int, int] = {}  # address -> bytes of what is kept for the backward pass

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(network, data, device, PROBE)
    for parameter in network.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del loss
    weights = sum(parameter.nbytes for parameter in network.parameters())
    room = min(SHARE * total_memory(), FREE_SHARE * free_memory()) - (OTHERS + 1) * weights
    fitting = int(room / (COPIES * sum(kept.values()) / PROBE))
    return 1 << fitting.bit_length() - 1 if fitting > 0 else 0


def _loss(network: nn.Module, data: Dataset, device: torch.device, size: int) -> Tensor:
    logits = network(torch.zeros(size, *data.image_shape, device=device))
    return functional.cross_entropy(logits, torch.zeros(size, dtype=torch.int64, device=device))
