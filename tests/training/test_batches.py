"""The batches of a split: pytest tests/training/test_batches.py"""

import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from components.shared.core.files import sha256_file
from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.training import batches
from tests.dataset_writer import DatasetWriter
from tests.trained_digits import trained


@pytest.mark.slow
def test_memory_mapped_shards_give_the_same_weights(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(digits, tmp_path / "held")
    monkeypatch.setattr(batches, "free_memory", lambda: 0)
    trained(digits, tmp_path / "mapped")
    assert sha256_file(tmp_path / "held/model.json") == sha256_file(tmp_path / "mapped/model.json")


def cut(digits: Path, folder: Path, of_shard: int) -> Dataset:
    """Return the train split in shards of so many images."""
    data = open_dataset(digits)
    folder.mkdir()
    shape: dict[str, Any] = {"image_shape": data.image_shape, "shard_bytes": of_shard * 1024}
    writer = DatasetWriter(folder, classes=data.classes, counts={"train": 400, "val": 0, "test": 0}, **shape)
    writer.append("train", *data.load("train"))
    writer.finish(name="cut", seconds={})
    return open_dataset(folder)


def test_more_shards_are_mapped_than_may_be_open_by_default(digits: Path, tmp_path: Path) -> None:
    data, limits = cut(digits, tmp_path / "cut", of_shard=1), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 100, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            batches.MappedSplit(data, "train")
        prepare_process(1)
        batches.MappedSplit(data, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_batches_of_many_shards_hold_the_chosen_images(digits: Path, tmp_path: Path) -> None:
    images, labels = map(torch.from_numpy, open_dataset(digits).load("train"))
    mapped = batches.MappedSplit(cut(digits, tmp_path / "cut", of_shard=99), "train")
    some = batches.Batches(mapped, 400, torch.device("cpu"), prefetch=True)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    found = list(some.each(order.split(30)))  # type: ignore[no-untyped-call]
    assert torch.cat([i for i, _ in found]).equal(images[order]) and torch.cat([n for _, n in found]).equal(
        labels[order]
    )
    assert next(some.each(order.split(30)))[1].equal(labels[order[:30]])  # type: ignore[no-untyped-call]
    shares = [torch.cat([n for _, n in some.in_order(150, rank, 3)]) for rank in range(3)]
    assert [len(share) for share in shares] == [134, 133, 133]
    assert shares[1].equal(labels[1::3])
    few = batches.Batches(mapped, 2, torch.device("cpu"), prefetch=True)
    assert [[len(n) for _, n in few.in_order(150, rank, 4)] for rank in range(4)] == [[1], [1], [], []]
