"""What a process that computes with PyTorch takes of its machine: called before the first operation."""

import ctypes

import torch

from components.shared.core.resources import thread_count

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MOST = 2**31 - 1


def prepare_process(threads: int) -> None:
    """Compute with so many threads, 0 for one on each CPU that this process may use, and keep memory that is freed."""
    torch.set_num_threads(thread_count(threads))
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc's malloc keep what is freed for what is asked for next (mallopt(3)); other C libraries do as they do.

    It gives each large block back at once, and a step of a training asks for the same blocks as the one before: the
    kernel would clear their pages anew each time, which takes a third of LeNet-5's time, and half of MobileNetV2's. The
    most that a process takes stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, MOST)
        mallopt(M_MMAP_MAX, 0)
