"""Whether a training streams its data set, in which order, and how much of the cache of shards that takes."""

import math
from dataclasses import dataclass
from functools import cached_property

from components.shared.core.errors import UserError
from components.shared.data.dataset import Dataset
from components.shared.data.pictures.kept import JPEG_SHARE
from components.shared.data.shard_cache import CACHE_VARIABLE
from components.shared.data.shard_reader import shard_bytes
from components.shared.data.shard_room import NoRoom, Room
from components.shared.parameters.training import Settings
from components.shared.training.streaming.order import STREAMS, WindowedOrder, count_streams, window_size

MIB = 2**20
AHEAD = 2  # shards in a stream, besides the window: one that it has begun, and one that is fetched


@dataclass(frozen=True)
class Streaming:
    """A training that reads a remote dataset in a windowed order, each shard once an epoch and process."""

    data: Dataset
    order: WindowedOrder
    asked: int  # the parameter shuffle_window
    processes: int
    on_machine: int  # how many of the processes share this machine's cache

    @cached_property
    def room(self) -> Room:
        """Return what this process has of the cache, for one split at a time. Raises UserError if that is too small."""
        size = self._bytes(self.order.window)
        try:
            return self.data.stored.reserve(size, besides=_digests(self.data))
        except NoRoom as error:
            window = f"shuffle_window={self.asked}" + ("" if self.asked else f" ({self.order.window:,} images)")
            count = self.on_machine
            each = "each process" if count == 1 else f"each of {count} processes"
            needs = f"{window} and the shards read ahead need {{}} MiB of the cache of shards in {each}"
            # What other trainings leave of it, at most: others of this one may have their parts already.
            left = min(self.data.stored.cache_bytes, error.free + (count - 1) * size)
            smaller = ", or a smaller shuffle_window" if count * self._bytes(1) <= left else ""
            raise _refusal(needs, size, error.free, self.data, count * size - left, smaller) from None

    def _bytes(self, window: int) -> int:
        """Return the bytes that are on the disk at the same time.

        Of the shards whose images spread over a place in a stream, the middles lie within a window around it, so that
        they have as many images as the window and half of the first and of the last one; at the ends of a stream lie
        pieces of shards, which are on the disk whole. The val split, in its own order, needs AHEAD shards.
        """
        splits = self.data.document.splits
        shards, of_val = splits["train"].shards, [shard_bytes(shard) for shard in splits["val"].shards]
        of_image = max(shard_bytes(shard) / shard.count for shard in shards)
        of_shard = max(map(shard_bytes, shards))
        of_stream = math.ceil(window / self.order.streams * of_image) + AHEAD * of_shard
        of_train = of_stream * self.order.streams // self.processes
        return max(min(of_train, sum(map(shard_bytes, shards))), min(AHEAD * max(of_val, default=0), sum(of_val)))


def plan_streaming(
    data: Dataset, settings: Settings, *, processes: int, on_machine: int, batches: int, seed: int
) -> Streaming | None:
    """Return how to stream a dataset with so many batches in an epoch; None if it is shuffled as a whole.

    Of the processes, `on_machine` share the cache of shards.
    """
    images, asked = data.counts["train"], settings.shuffle_window
    image_bytes = math.prod(data.image_shape) // (JPEG_SHARE if data.document.keep == "jpeg" else 1)
    window = window_size(asked, images, image_bytes) if data.is_remote else 0
    if not window:
        return None
    order = WindowedOrder(
        counts=[shard.count for shard in data.document.splits["train"].shards],
        window=window,
        streams=count_streams(settings.batch_size, processes),
        batch=settings.batch_size,
        batches=batches,
        seed=seed,
    )
    return Streaming(data, order, asked, processes, on_machine)


def check_room_for_all(data: Dataset) -> None:
    """Raise UserError if the cache is too small for the splits of a training that shuffles them as a whole."""
    shards = [shard for split in ("train", "val") for shard in data.document.splits[split].shards]
    size, largest = sum(map(shard_bytes, shards)), max(map(shard_bytes, shards))
    if size > (free := data.stored.free_bytes(besides=_digests(data))):
        needs = "the full shuffle needs all {} MiB in the cache of shards"
        window = ", or set shuffle_window to fewer images" if STREAMS * AHEAD * largest < free else ""
        raise _refusal(needs, size, free, data, size - free, window)


def _digests(data: Dataset) -> set[str]:
    """Return the digests of all shards, which other processes of the training may have open at this moment."""
    return {file.sha256 for file in data.files()}


def _refusal(needs: str, size: int, free: int, data: Dataset, missing: int, other: str) -> UserError:
    """Return the error of a cache with too few free bytes for those that are needed; `missing` are to be added.

    `other` continues the remedy.
    """
    given = data.stored.cache_bytes // MIB
    needed, left = math.ceil(size / MIB * 10) / 10, max(0, free * 10 // MIB) / 10
    remedy = f"give it {given + math.ceil(missing / MIB):,} or more"
    return UserError(
        f"{needs.format(f'{needed:,}')}, and {CACHE_VARIABLE}={given} has room for {left:,}",
        remedy + other,
    )
