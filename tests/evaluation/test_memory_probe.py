"""What a program needs for a batch, and what is refused: pytest tests/evaluation/test_memory_probe.py"""

import mmap
import time

import numpy as np
import pytest

from components.shared.core.errors import UserError
from components.shared.core.resources import resident_memory
from components.shared.data.dataset import Images
from components.shared.evaluation import memory_probe
from components.shared.evaluation.memory_probe import Need, check_need, latency_batch, measure_need

MIB = 2**20
SHAPE = (3, 224, 224)


def hungry(images: Images) -> np.ndarray:
    """Occupy 32 MiB, and 16 for each image, for a moment, besides what malloc has."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    with mmap.mmap(-1, (32 + 16 * len(images)) * MIB, flags=flags):
        time.sleep(20 * memory_probe.INTERVAL)
    return np.zeros((len(images), 2), np.float32)


def leave(monkeypatch: pytest.MonkeyPatch, mib: float) -> None:
    """Let a limit leave so much to this process."""
    monkeypatch.setattr(memory_probe, "total_memory", lambda: resident_memory() + int(mib * MIB))


def test_few_images_tell_what_many_need() -> None:
    need = measure_need(hungry, (1, 8, 8), 20)
    assert need.other == pytest.approx(16 * MIB, rel=0.1)
    assert need.of(20) == pytest.approx((32 + 20 * 16) * MIB, rel=0.1)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_probe_is_smaller_than_the_batch(batch: int) -> None:
    seen: list[int] = []

    def classify(images: Images) -> np.ndarray:
        seen.append(len(images))
        return hungry(images)

    assert measure_need(classify, (1, 8, 8), batch).of(batch) == pytest.approx(batch * 48 * MIB, rel=0.1)
    assert seen == [1]


def test_a_look_at_the_memory_that_fails_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([0, 0])  # before the program, and as it starts

    def look() -> int:
        if (found := next(looks, None)) is None:
            raise OSError("no /proc")
        return found

    monkeypatch.setattr(memory_probe, "resident_memory", look)
    with pytest.raises(OSError, match="no /proc"):
        measure_need(hungry, (1, 8, 8), 1)


def test_a_batch_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 1024)
    needs = [Need(100 * MIB, 10 * MIB), Need(300 * MIB, 50 * MIB)]
    check_need(needs, "resnet18", SHAPE, 15)
    with pytest.raises(UserError) as refused:
        check_need(needs, "resnet18", SHAPE, 20)
    assert refused.value.message.startswith(
        "resnet18 needs about 1.2 GiB to predict 20 images of 224 x 224 pixels at once, and 1.0 of "
    )
    for word in ("image_size=", "network=", "RESOURCES in pipeline.py"):
        assert word in refused.value.remedy


@pytest.mark.parametrize(("mib", "batch"), [(100_000, 20), (1024, 10), (500, 2), (1, 1)])
def test_latency_is_measured_with_a_batch_that_fits(monkeypatch: pytest.MonkeyPatch, mib: int, batch: int) -> None:
    leave(monkeypatch, mib)
    assert latency_batch([Need(100 * MIB, 1 * MIB), Need(150 * MIB, 30 * MIB)], 20) == batch
