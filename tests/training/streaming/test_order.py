"""The windowed order of the images: pytest tests/training/streaming/test_order.py"""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.streaming.order import AUTO_BYTES, WindowedOrder, count_streams, window_size

COUNTS = [100] * 41 + [37]
IMAGES = sum(COUNTS)
BATCH, WINDOW = 64, 1600
SHARD_OF = np.repeat(np.arange(len(COUNTS)), COUNTS)


def order(processes: int = 1, *, seed: int = 0, batch: int = BATCH, window: int = WINDOW) -> WindowedOrder:
    """The order of a training by so many processes."""
    streams = count_streams(batch, processes)
    return WindowedOrder(COUNTS, window, streams, batch, IMAGES // batch, seed)


def streams_of(found: NDArray[np.int64], streams: int, batch: int = BATCH) -> NDArray[np.int64]:
    """The images of each stream, in the order in which they are read."""
    return found.reshape(-1, streams, batch // streams).transpose(1, 0, 2).reshape(streams, -1)


@pytest.mark.parametrize(("batch", "window"), [(64, 1600), (64, 1), (7, 900), (IMAGES, 4000), (1000, 50), (24, 4136)])
def test_each_image_comes_once_at_most(batch: int, window: int) -> None:
    found = order(batch=batch, window=window).epoch(1)
    assert len(found) == IMAGES // batch * batch
    assert len(np.unique(found)) == len(found) and found.min() >= 0 and found.max() < IMAGES


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    first = order().epoch(1)
    np.testing.assert_array_equal(first, order().epoch(1))
    others = [order().epoch(2), order(seed=1).epoch(1), order(seed=1).epoch(2)]
    assert all((first != other).mean() > 0.9 for other in others)
    left_out = [{*range(IMAGES)} - {*found.tolist()} for found in (first, *others)]
    assert len({frozenset(images) for images in left_out}) == len(left_out), "other images are left out each time"


def test_an_order_stays_what_it_was() -> None:
    """A resumed training reads on in the same order, with any version of NumPy."""
    small = WindowedOrder([5, 5, 3], 8, 2, 4, 3, seed=7)
    assert small.epoch(1).tolist() == [5, 9, 3, 1, 6, 7, 4, 0, 8, 12, 11, 10]


@pytest.mark.parametrize(
    ("batch", "processes", "streams"), [(256, 1, 8), (256, 8, 8), (50, 1, 2), (50, 5, 5), (96, 3, 3)]
)
def test_the_number_of_streams(batch: int, processes: int, streams: int) -> None:
    assert count_streams(batch, processes) == streams
    assert batch % streams == 0 and streams % processes == 0


def test_any_processes_that_divide_the_streams_read_the_same() -> None:
    one = torch.from_numpy(order(1).epoch(3)).view(-1, BATCH)
    for size in (2, 4, 8):
        whole = torch.from_numpy(order(size).epoch(3)).view(-1, BATCH)
        assert whole.equal(one)
        shares = [
            [ProcessGroup(rank, size, torch.device("cpu")).shard(batch) for batch in whole] for rank in range(size)
        ]
        assert {len(share) for share in shares} == {IMAGES // BATCH}
        read = [{SHARD_OF[i] for part in share for i in part.tolist()} for share in shares]
        assert sum(map(len, read)) <= len(COUNTS) + size - 1, "only shards that are cut are read by two"


@pytest.mark.parametrize(("processes", "batch"), [(3, 96), (5, 50), (6, 48)])
def test_any_number_of_processes_takes_equal_steps(processes: int, batch: int) -> None:
    """Together they read each image once, but for those that are too few for another batch."""
    found = order(processes, batch=batch)
    whole = torch.from_numpy(found.epoch(1)).view(-1, batch)
    groups = [ProcessGroup(rank, processes, torch.device("cpu")) for rank in range(processes)]
    shares = [torch.stack([group.shard(part) for part in whole]) for group in groups]
    assert {share.shape for share in shares} == {(IMAGES // batch, batch // processes)}
    assert len({*torch.cat(shares).flatten().tolist()}) == IMAGES // batch * batch
    streams = streams_of(found.epoch(1), found.streams, batch)
    for share, own in zip(shares, np.split(streams, processes), strict=True):
        np.testing.assert_array_equal(np.sort(share.flatten()), np.sort(own.flatten()))


def test_at_any_time_few_shards_are_open() -> None:
    """A shard is open from its first image to its last; the window bounds the images in open shards."""
    found = order()
    for number in range(1, 20):
        for stream in streams_of(found.epoch(number), found.streams):
            shards = SHARD_OF[stream]
            places = [np.flatnonzero(shards == shard) for shard in np.unique(shards)]
            is_open = sum((np.arange(len(stream)) >= p[0]) & (np.arange(len(stream)) <= p[-1]) for p in places)
            assert np.max(is_open) <= math.ceil(WINDOW / found.streams / 100) + 2


def test_images_spread_over_the_window() -> None:
    """As many shards are mixed as the window holds, and an image moves by a quarter of it on average."""
    found = WindowedOrder(COUNTS, WINDOW, 1, BATCH, IMAGES // BATCH, seed=0)
    middle = found.epoch(1).reshape(-1, BATCH)[12:-12]
    mixed = np.mean([len(np.unique(SHARD_OF[batch])) for batch in middle])
    assert 13 < mixed <= 17
    shards = SHARD_OF[found.epoch(1)]
    spread = [np.ptp(np.flatnonzero(shards == shard)) for shard in np.unique(shards[12 * BATCH : -12 * BATCH])]
    assert np.median(spread) == pytest.approx(WINDOW, rel=0.1) and max(spread) < WINDOW * 1.2
    narrow = WindowedOrder(COUNTS, 1, 1, BATCH, IMAGES // BATCH, seed=0).epoch(1)
    assert np.count_nonzero(np.diff(SHARD_OF[narrow])) < len(COUNTS), "shard after shard"


def test_cut_shards_are_read_in_both_streams_at_one_time() -> None:
    found = order()
    read = streams_of(found.epoch(1), found.streams)
    for one, other in itertools.pairwise(read):
        for cut in {*SHARD_OF[one]} & {*SHARD_OF[other]}:
            halves = [np.flatnonzero(SHARD_OF[stream] == cut).mean() > len(stream) / 2 for stream in (one, other)]
            assert halves[0] == halves[1]


def test_zero_takes_two_gibibytes_of_pixels() -> None:
    image = 3 * 224 * 224
    assert window_size(0, 10**9, image) == AUTO_BYTES // image
    assert window_size(5000, 10**9, image) == 5000
    assert window_size(0, 1000, image) == window_size(1000, 1000, image) == 0, "a full shuffle"
