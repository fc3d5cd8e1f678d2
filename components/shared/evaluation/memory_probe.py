"""How much memory a program takes for a batch: measured with a few images, before a pod is killed by many."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from components.shared.core.errors import UserError
from components.shared.core.resources import resident_memory, total_memory
from components.shared.evaluation.inference import Classify

PROBE = 4  # images: their memory and that of one tell that of more
PROBE_PIXELS = 2**17  # of more images, if they are small: what a library sets up for a new shape must not count
INTERVAL = 0.001  # seconds between two looks at the memory
LATENCY_SHARE = 0.5  # of what is left, for a batch that only serves to measure the time
GIB = 2**30


class Need(NamedTuple):
    """The bytes that a program takes: for the first image, and for each other one."""

    first: int
    other: int

    def of(self, images: int) -> int:
        """Return the bytes for a batch."""
        return self.first + (images - 1) * self.other


def measure_need(program: Classify, image_shape: Sequence[int], batch: int) -> Need:
    """Measure what a program takes for batches of up to `batch` images, by far smaller ones."""
    few = min(max(PROBE, PROBE_PIXELS // (image_shape[1] * image_shape[2])), batch // 2)
    before = resident_memory()
    first = _peak_of(program, image_shape, 1)
    if few < 2:
        return Need(first - before, first - before)
    return Need(first - before, max(0, _peak_of(program, image_shape, few) - first) // (few - 1))


def check_need(programs: Iterable[Need], network: str, image_shape: Sequence[int], batch: int) -> None:
    """Raise UserError if a batch of a program does not fit into what the process may still use."""
    needed, left = max(need.of(batch) for need in programs), _left()
    if needed > left:
        size = " x ".join(map(str, image_shape[1:]))
        raise UserError(
            f"{network} needs about {needed / GIB:.1f} GiB to predict {batch} images of {size} pixels at once, and "
            f"{left / GIB:.1f} of {total_memory() / GIB:.1f} GiB are left",
            "give a smaller image_size= or network=, or, in a cluster, more memory to the steps that predict "
            "(evaluate, export, register): RESOURCES in pipeline.py",
        )


def latency_batch(programs: Sequence[Need], largest: int) -> int:
    """Return the largest batch, `largest` or a half, a quarter ... of it, that all programs have ample memory for."""
    size, room = largest, LATENCY_SHARE * _left()
    while size > 1 and max(need.of(size) for need in programs) > room:
        size //= 2
    return size


def _left() -> int:
    """Return the bytes that the process may still use, whatever others use, so that a retry finds the same."""
    return max(0, total_memory() - resident_memory())


def _peak_of(program: Classify, image_shape: Sequence[int], images: int) -> int:
    batch = np.zeros((images, *image_shape), np.uint8)
    return _peak_while(lambda: program(batch))


def _peak_while(call: Callable[[], object]) -> int:
    """Return the most resident memory of the process while it runs a call, which gives way to other threads."""
    seen, ended = [resident_memory()], threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            seen.append(resident_memory())

    with ThreadPoolExecutor(1) as thread:
        watching = thread.submit(watch)
        try:
            call()
        finally:
            ended.set()
        watching.result()  # raises what the thread did: without its looks the peak would not be known
    return max(*seen, resident_memory())
