"""How much of the cache of shards a training needs: pytest tests/training/streaming/test_plan.py"""

import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from components.shared.training.streaming.order import WindowedOrder, count_streams
from components.shared.training.streaming.plan import Streaming
from components.shared.training.streaming.streamed_split import _Uses


def dataset(counts: list[int]) -> Any:
    """What a plan knows of a dataset whose shards have so many images, of a byte."""
    shards = [SimpleNamespace(count=count, files=[SimpleNamespace(bytes=count)]) for count in counts]
    splits = {"train": SimpleNamespace(shards=shards), "val": SimpleNamespace(shards=[])}
    return SimpleNamespace(document=SimpleNamespace(splits=splits))


def drawn(seed: int) -> Streaming:
    """A plan for shards of one size but for the last, or of many sizes, and for any batch, window and processes."""
    draw = random.Random(seed)
    most = draw.choice([3, 10, 50, 100])
    counts = [most if seed % 3 else draw.randint(1, most) for _ in range(draw.randint(1, 40))] + [draw.randint(1, most)]
    images = sum(counts)
    batch = draw.randint(1, min(images, 64))
    processes = draw.choice([size for size in (1, 2, 3, 4, 8) if batch % size == 0])
    window = draw.choice([draw.randint(1, images), 1, most, 2 * most])
    order = WindowedOrder(counts, window, count_streams(batch, processes), batch, images // batch, seed)
    return Streaming(dataset(counts), order, window, processes, on_machine=1)


def most_held(order: WindowedOrder, batches: list[Any]) -> int:
    """The most images that open shards have, if each is opened when it is needed and closed after its last use."""
    ends = np.cumsum(order.counts)
    uses, opened, held, most = _Uses(ends, batches), set[int](), 0, 0
    for number, indices in enumerate(batches):
        for turn in np.unique(uses.turns[np.searchsorted(ends, indices, side="right")]).tolist():
            shard = uses.sequence[turn]
            assert shard in opened or turn == len(opened), "in the sequence in which they are fetched"
            held += 0 if shard in opened else order.counts[shard]
            opened.add(shard)
            most = max(most, held)
            held -= order.counts[shard] if uses.last[shard] == number else 0
    assert held == 0
    return most


@pytest.mark.parametrize("seed", range(0, 300, 30))
def test_a_process_never_needs_more_than_it_has_reserved(seed: int) -> None:
    """Else it would wait for ever: neither in a whole epoch nor in what is left of one after a resume."""
    for planned in map(drawn, range(seed, seed + 30)):
        order, room = planned.order, planned._bytes(planned.order.window)
        whole = order.epoch(1).reshape(order.batches, planned.processes, -1)
        for rank in range(planned.processes):
            for begun in {0, order.batches // 3}:
                assert most_held(order, [*whole[begun:, rank]]) <= room


@pytest.mark.slow
def test_the_room_grows_with_the_window() -> None:
    rooms = [
        Streaming(dataset([100] * 400), WindowedOrder([100] * 400, window, 8, 64, 600, 0), window, 4, 4)._bytes(window)
        for window in (800, 1600, 3200)
    ]
    assert rooms == [2 * (window // 8 + 200) for window in (800, 1600, 3200)]
    assert all(one < other for one, other in pairwise(rooms))
