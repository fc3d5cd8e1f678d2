"""The settings of a process that computes with PyTorch, to apply before the first operation, and its processor."""

import ctypes
import platform
import resource
from contextlib import suppress

import torch

from components.shared.core.resources import thread_count

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
LARGEST_INT = 2**31 - 1


def prepare_process(threads: int) -> None:
    """Compute with `threads` threads (0: one for each CPU that this process may use), and reuse freed memory.

    As many files may be open as the system allows.
    """
    torch.set_num_threads(thread_count(threads))
    _reuse_freed_memory()
    _allow_open_files()


def processor(device: torch.device) -> str:
    """Return the kind of processor that computes on a device: another kind may round otherwise."""
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{cpu}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else cpu


def _reuse_freed_memory() -> None:
    """Make glibc's malloc hold on to freed memory (mallopt(3)); other C libraries stay as they are.

    By default it returns each large block to the kernel at once, although the next training step asks for the same
    blocks again: clearing their pages each time takes a third of LeNet-5's time, and half of MobileNetV2's. The peak
    memory stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
        mallopt(M_MMAP_MAX, 0)


def _allow_open_files() -> None:
    """Raise the limit of open files, of which a mapped shard takes two or three, as far as it may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS accepts less than it reports
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
