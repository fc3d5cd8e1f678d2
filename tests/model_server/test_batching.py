"""Batching: what is predicted together, and when."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from components.shared.core.errors import UserError
from components.shared.model_server import batching
from components.shared.model_server.batching import Batcher
from components.shared.model_server.metrics import Metrics
from components.shared.model_server.program import Served
from tests.small_packages import CLASSES, package_of

SHAPE = (1, 4, 4)


class Program:
    """A program that predicts of each image its first pixel, notes its batches, and waits while it is held."""

    def __init__(self, version: str = "1", error: UserError | None = None) -> None:
        self.batches: list[int] = []
        self.is_free, self.has_begun = threading.Event(), threading.Event()
        self.is_free.set()
        self._error = error
        self.served = Served("m", version, package_of(classes=CLASSES, image_shape=SHAPE), self._classify)

    def _classify(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.has_begun.set()
        self.batches.append(len(images))
        assert self.is_free.wait(10)
        if self._error:
            raise self._error
        return np.repeat(images[:, 0, 0, :1].astype(np.float32), 2, axis=1)


def _images(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones(SHAPE, np.uint8)


def _run(use: Callable[[Batcher], Coroutine[Any, Any, None]], max_batch: int = 8, max_delay: float = 10.0) -> None:
    async def main() -> None:
        batcher = Batcher(max_batch, max_delay, Metrics())
        try:
            await asyncio.wait_for(use(batcher), 10)
        finally:
            batcher.close()

    asyncio.run(main())


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


async def _held(batcher: Batcher, program: Program) -> asyncio.Task[Any]:
    """Let the program be busy with an image of 9, until it is freed."""
    program.is_free.clear()
    task = asyncio.create_task(batcher.predict(program.served, _images(9)))
    await _until(program.has_begun.is_set)
    return task


def test_an_idle_program_predicts_at_once() -> None:
    program = Program()

    async def use(batcher: Batcher) -> None:
        for value in (3, 4):
            assert (await batcher.predict(program.served, _images(value))).tolist() == [[value, value]]

    _run(use)  # within seconds: the delay of ten is for requests that had to wait
    assert program.batches == [1, 1]


def test_requests_that_wait_fill_a_batch() -> None:
    program = Program()

    async def use(batcher: Batcher) -> None:
        first = await _held(batcher, program)
        others = [asyncio.create_task(batcher.predict(program.served, _images(n, n + 1))) for n in range(0, 16, 2)]
        await asyncio.sleep(0)
        program.is_free.set()
        found = [np.asarray(await task)[:, 0].tolist() for task in (first, *others)]
        assert found == [[9], *([n, n + 1] for n in range(0, 16, 2))]

    _run(use)
    assert program.batches == [1, 8, 8]


def test_a_batch_that_is_not_full_waits_for_the_delay() -> None:
    program = Program()

    async def use(batcher: Batcher) -> None:
        first = await _held(batcher, program)
        waiting = asyncio.create_task(batcher.predict(program.served, _images(1)))
        await asyncio.sleep(0)
        program.is_free.set()
        await first
        joining = asyncio.create_task(batcher.predict(program.served, _images(2)))
        assert [(await task).tolist() for task in (waiting, joining)] == [[[1, 1]], [[2, 2]]]

    _run(use, max_delay=0.5)
    assert program.batches == [1, 2]


def test_a_large_request_goes_alone_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program()
    monkeypatch.setattr(Served, "images_at_once", property(lambda _: 4))

    async def use(batcher: Batcher) -> None:
        found = await batcher.predict(program.served, _images(*range(10)))
        assert found[:, 0].tolist() == [*range(10)]

    _run(use)
    assert program.batches == [4, 4, 2]


def test_each_request_is_answered_by_one_version() -> None:
    old, new = Program("1"), Program("2")

    async def use(batcher: Batcher) -> None:
        first = await _held(batcher, old)
        programs = [old, old, new, new]
        tasks = [asyncio.create_task(batcher.predict(p.served, _images(n))) for n, p in enumerate(programs)]
        await asyncio.sleep(0)
        old.is_free.set()
        await first
        assert [(await task)[0, 0] for task in tasks] == [0, 1, 2, 3]

    _run(use, max_delay=0)
    assert (old.batches, new.batches) == ([1, 2], [2])


def test_a_failure_reaches_its_requests_and_no_others() -> None:
    program, broken = Program(), Program(error=UserError("it fails"))

    async def use(batcher: Batcher) -> None:
        with pytest.raises(UserError, match="it fails"):
            await batcher.predict(broken.served, _images(1))
        assert (await batcher.predict(program.served, _images(5)))[0, 0] == 5

    _run(use)


def test_a_client_that_is_gone_is_not_predicted_for() -> None:
    program = Program()

    async def use(batcher: Batcher) -> None:
        first = await _held(batcher, program)
        gone, kept = (asyncio.create_task(batcher.predict(program.served, _images(n))) for n in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        program.is_free.set()
        await first
        assert (await kept)[0, 0] == 2

    _run(use, max_delay=0)
    assert program.batches == [1, 1]


def test_a_quick_program_is_not_handed_to_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []
    program = Program()
    classify = program.served.classify

    def noted(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        threads.append(threading.current_thread() is threading.main_thread())
        return classify(images)

    served = program.served._replace(classify=noted)

    async def use(batcher: Batcher) -> None:
        for _ in range(2):
            assert (await batcher.predict(served, _images(3)))[0, 0] == 3
        monkeypatch.setattr(batching, "QUICK_SECONDS", 0)
        assert (await batcher.predict(served, _images(3)))[0, 0] == 3

    monkeypatch.setattr(batching, "QUICK_SECONDS", 10)
    _run(use)
    assert threads == [False, True, False]
