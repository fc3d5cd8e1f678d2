"""Batching of requests that wait: while the program is busy they gather, and are then predicted together.

A request that finds the program idle is predicted at once. After a batch, those that wait are predicted as soon as they
fill a batch or the first of them has waited for the delay, so that others may join them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple

import numpy as np

from components.shared.core.errors import UserError
from components.shared.data.dataset import Images
from components.shared.evaluation.metrics import Probabilities
from components.shared.model_server.metrics import Metrics
from components.shared.model_server.program import Served

QUICK_SECONDS = 0.0005  # what takes less is predicted in the loop: to hand it to the thread and back takes as long

Answer = asyncio.Future[Probabilities]
Work = asyncio.Future[tuple[Probabilities, float]]


class _Request(NamedTuple):
    program: Served
    images: Images
    answer: Answer
    since: float


class Batcher:
    """Predicts the images of requests, one batch at a time. It belongs to the loop that calls it."""

    def __init__(self, max_batch: int, max_delay: float, metrics: Metrics) -> None:
        self._max_batch, self._max_delay, self._metrics = max_batch, max_delay, metrics
        self._waiting: deque[_Request] = deque()
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._pace: tuple[Served, float] | None = None  # the program of the last batch, and its seconds for an image
        self._thread = ThreadPoolExecutor(1, "predict")

    async def predict(self, program: Served, images: Images) -> Probabilities:
        """Return the probabilities of images (uint8, N x C x H x W) by a program. Raises UserError if it fails."""
        loop = asyncio.get_running_loop()
        request = _Request(program, images, loop.create_future(), loop.time())
        was_idle = not self._is_busy and not self._waiting
        self._waiting.append(request)
        self._start(at_once=was_idle)
        return await request.answer

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _start(self, at_once: bool = False) -> None:
        """Predict a batch if the program is free and the time has come, else be called again then."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._waiting[0].answer.done():  # its client is gone
            self._waiting.popleft()
        if self._is_busy or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        due = self._waiting[0].since + self._max_delay
        if at_once or loop.time() >= due or self._fills_a_batch():
            self._work(self._take())
        else:
            self._timer = loop.call_at(due, self._start)

    def _work(self, batch: Sequence[_Request]) -> None:
        """Predict a batch: in the thread, unless the last one lets expect that it is done at once."""
        program, images = batch[0].program, [request.images for request in batch]
        count, loop = sum(map(len, images)), asyncio.get_running_loop()
        if self._pace and self._pace[0] is program and count * self._pace[1] < QUICK_SECONDS:
            self._answer(batch, _done(loop.create_future(), images, program))
            return
        self._is_busy = True
        work = loop.run_in_executor(self._thread, _predict, images, program)
        work.add_done_callback(lambda done: self._answer(batch, done))

    def _limit(self, program: Served) -> int:
        return min(self._max_batch, program.images_at_once)

    def _fills_a_batch(self) -> bool:
        limit, images = self._limit(self._waiting[0].program), 0
        for request in self._waiting:
            images += len(request.images)
            if images >= limit or request.program is not self._waiting[0].program:
                return True
        return False

    def _take(self) -> list[_Request]:
        """Take the requests of the next batch, which are for one program; a large one is alone."""
        batch = [self._waiting.popleft()]
        program, images = batch[0].program, len(batch[0].images)
        while self._waiting and self._waiting[0].program is program:
            images += len(self._waiting[0].images)
            if images > self._limit(program):
                break
            request = self._waiting.popleft()
            if not request.answer.done():
                batch.append(request)
        return batch

    def _answer(self, batch: Sequence[_Request], work: Work) -> None:
        """Give each request its rows, and start the next batch."""
        self._is_busy = False
        error, start = work.exception(), 0
        if not error:
            found, seconds = work.result()
            self._pace = batch[0].program, seconds / len(found)
            self._metrics.predicted(batch[0].program, len(batch), found, seconds)
        for request in batch:
            end = start + len(request.images)
            if not request.answer.done():
                if error:
                    request.answer.set_exception(error)
                else:
                    request.answer.set_result(work.result()[0][start:end])
            start = end
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._start)


def _done(work: Work, images: Sequence[Images], program: Served) -> Work:
    """Do the work now."""
    try:
        work.set_result(_predict(images, program))
    except UserError as error:
        work.set_exception(error)
    return work


def _predict(images: Sequence[Images], program: Served) -> tuple[Probabilities, float]:
    """Return the probabilities of all images, and the seconds that it took; more than fit at once go in parts."""
    started = perf_counter()
    together = images[0] if len(images) == 1 else np.concatenate(images)
    size = program.images_at_once
    parts = [program.classify(together[row : row + size]) for row in range(0, len(together), size)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts), perf_counter() - started
