"""The batches of a split: pytest tests/training/test_batches.py"""

from pathlib import Path

import pytest
import torch

from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
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


def test_batches_of_many_shards_hold_the_chosen_images(digits: Path, tmp_path: Path) -> None:
    data = open_dataset(digits)
    images, labels = map(torch.from_numpy, data.load("train"))
    (tmp_path / "cut").mkdir()
    counts = {"train": 400, "val": 0, "test": 0}
    writer = DatasetWriter(
        tmp_path / "cut", classes=data.classes, image_shape=data.image_shape, counts=counts, shard_bytes=99 * 1024
    )
    writer.append("train", *data.load("train"))
    writer.finish(name="cut", seconds={})
    mapped = batches.MappedSplit(open_dataset(tmp_path / "cut"), "train")
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
