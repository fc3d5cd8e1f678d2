"""Find the batch size of batch_size=auto, the largest power of two that fits into memory, and check a given one."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.resources import free_memory, resident_memory, total_memory
from components.shared.data.dataset import Dataset
from components.shared.models import factory
from components.shared.models.pretrained import freeze_stages
from components.shared.parameters.training import Settings
from components.shared.training.batches import fits_on, is_resident, split_bytes
from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.initialize import architecture
from components.shared.training.precision import autocast

LARGEST = 4096  # images, for one process
STEPS_PER_EPOCH = 10  # at least
MEMORY_SHARE = 0.5  # of the whole main memory, whatever is in use, so that a retry finds the same size
FREE_SHARE = 0.9  # of the free main memory, at most
GPU_SHARE = 0.9  # of a GPU's memory
WEIGHT_COPIES = 4  # besides the network's own: the averaged ones, the best ones, and two of Adam
ACTIVATION_COPIES = 3  # of what is saved for the backward pass, gradients included
LEAST_WEIGHT_COPIES = 2  # besides the network's own: gradients and momentum
LEAST_ACTIVATION_COPIES = 1.25
GIB = 2**30
PROBE = 2  # images, from which the memory of one is computed


def largest_batch(settings: Settings, data: Dataset, group: ProcessGroup) -> int:
    """Return the largest batch that fits: a power of two times the number of processes, with 10 steps to an epoch.

    On a GPU, sizes are tried. On the CPU, where running out of memory kills the process, the size is computed from the
    bytes saved for the backward pass of two images. Raises UserError if nothing fits.
    """
    images = data.counts["train"] // (STEPS_PER_EPOCH * group.size * settings.accumulate)
    limit = min(LARGEST, 1 << max(1, images.bit_length() - 1))  # a batch norm cannot normalize one image
    network = factory.build(architecture(settings, data)).to(group.device)
    with autocast(settings, group.device):
        if group.device.type == "cuda":
            size = _try_sizes(network, data, group, limit)
        else:
            size = min(limit, _compute_size(network, data, group.device))
    if size < 1:
        raise UserError(
            f"no step of {settings.network} fits into memory", "prepare smaller images or use a smaller network"
        )
    log.info(f"batch_size=auto is {size * group.size:,}")
    return size * group.size


def check_batch(settings: Settings, data: Dataset, group: ProcessGroup) -> None:
    """Raise UserError if a step with the given batch cannot fit into main memory, where it would be killed.

    It asks for the least that any network takes; a batch that needs a little more than there is may pass.
    """
    if group.device.type == "cuda" or settings.torch_compile:  # a GPU reports it; compiled, less is saved
        return
    before, images = resident_memory(), settings.batch_size // group.size
    network = factory.build(architecture(settings, data))
    freeze_stages(network, settings.frozen_stages)
    with autocast(settings, group.device):
        saved, weights = _saved_for_backward(network, data, group.device)
    needed = before + (LEAST_WEIGHT_COPIES + 1) * weights + LEAST_ACTIVATION_COPIES * saved * images
    if needed > total_memory():
        _, height, width = data.image_shape
        raise UserError(
            f"a batch of {images:,} images of {height} x {width} pixels needs {needed / GIB:.1f} GiB or more to train "
            f"{settings.network}, and there are {total_memory() / GIB:.1f}",
            "give batch_size=auto, or a smaller batch_size with accumulate for the same steps, or, in a cluster, more "
            "train_memory=",
        )


def _try_sizes(network: nn.Module, data: Dataset, group: ProcessGroup, limit: int) -> int:
    """Return the largest power of two with which a step does not run out of the GPU's memory; 0 if there is none.

    What a training holds there besides the step is allocated too: its other weights, the buckets of gradients for the
    other processes, and the data.
    """
    device, size, largest = group.device, 0, 0
    allocated: list[nn.Module | Tensor] = []
    torch.cuda.set_per_process_memory_fraction(GPU_SHARE, device)
    try:
        allocated += [copy.deepcopy(network) for _ in range(WEIGHT_COPIES + (group.size > 1))]
        resident = [split for split in ("train", "val") if is_resident(data, split)]
        for size_of_split in (split_bytes(data, split) for split in resident):
            if fits_on(device, size_of_split):
                allocated.append(torch.empty(size_of_split, dtype=torch.uint8, device=device))
        while size < limit:
            size = 2 * size or 2
            _loss(network, data, device, size).backward()  # type: ignore[no-untyped-call]
            largest = size
    except torch.OutOfMemoryError:
        pass
    finally:
        allocated.clear()
        network.zero_grad()
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    return largest


def _compute_size(network: nn.Module, data: Dataset, device: torch.device) -> int:
    """Return the largest power of two whose step takes at most MEMORY_SHARE of the memory; 0 if there is none."""
    saved, weights = _saved_for_backward(network, data, device)
    available = min(MEMORY_SHARE * total_memory(), FREE_SHARE * free_memory()) - (WEIGHT_COPIES + 1) * weights
    images = int(available / (ACTIVATION_COPIES * saved))
    return 1 << images.bit_length() - 1 if images > 0 else 0


def _saved_for_backward(network: nn.Module, data: Dataset, device: torch.device) -> tuple[float, int]:
    """Return the bytes that are saved for the backward pass of an image, and those of the weights."""
    saved: dict[int, int] = {}  # address -> bytes

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        loss = _loss(network, data, device, PROBE)
    for parameter in network.parameters():
        saved.pop(parameter.untyped_storage().data_ptr(), None)
    del loss
    return sum(saved.values()) / PROBE, sum(parameter.nbytes for parameter in network.parameters())


def _loss(network: nn.Module, data: Dataset, device: torch.device, size: int) -> Tensor:
    logits = network(torch.zeros(size, *data.image_shape, device=device))
    return functional.cross_entropy(logits, torch.zeros(size, dtype=torch.int64, device=device))
