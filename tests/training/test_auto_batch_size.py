"""The largest batch that fits into memory: pytest tests/training/test_auto_batch_size.py"""

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch

from components.shared.core.errors import UserError
from components.shared.data.dataset import open_dataset
from components.shared.training import auto_batch_size
from components.shared.training.distributed.process_group import ProcessGroup
from tests.trained_digits import settings, trained

SetMemory = Callable[[int, int], None]


@pytest.fixture
def set_memory(monkeypatch: pytest.MonkeyPatch) -> SetMemory:
    """Sets the whole memory and the free part of it, in bytes."""

    def patch(total: int, free: int) -> None:
        monkeypatch.setattr(auto_batch_size, "total_memory", lambda: total)
        monkeypatch.setattr(auto_batch_size, "free_memory", lambda: free)

    return patch


@pytest.mark.slow
def test_the_largest_batch_leaves_ten_steps_in_an_epoch(
    digits: Path, tmp_path: Path, set_memory: SetMemory, capsys: pytest.CaptureFixture[str]
) -> None:
    set_memory(2**40, 2**40)
    model = trained(digits, tmp_path / "model", batch_size="auto", epochs=1)
    assert "batch_size=auto is 32\n" in capsys.readouterr().out
    assert model.document.parameters["batch_size"] == "32", "32 times 10 is within 400"
    given = trained(digits, tmp_path / "given", batch_size="32", epochs=1)
    assert given.document == model.document, "the search leaves no trace"


@pytest.mark.slow
def test_the_largest_batch_follows_from_the_free_memory(small_digits: Path, set_memory: SetMemory) -> None:
    data, group = open_dataset(small_digits), ProcessGroup(0, 1, torch.device("cpu"))
    sizes = []
    for mib in (480, 500, 2_000):
        set_memory(mib * 2**20, mib * 2**20)
        sizes.append(auto_batch_size.largest_batch(settings(network="resnet18", batch_size="auto"), data, group))
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] == 32
    set_memory(500 * 2**20, 300 * 2**20)
    assert auto_batch_size.largest_batch(settings(network="resnet18", batch_size="auto"), data, group) == sizes[1], (
        "as before"
    )
    set_memory(2**20, 2**20)
    with pytest.raises(UserError, match="no step of resnet18 fits into memory; prepare smaller images"):
        auto_batch_size.largest_batch(settings(network="resnet18", batch_size="auto"), data, group)


@pytest.mark.slow
def test_a_batch_that_cannot_fit_is_refused_before_training(
    small_digits: Path, tmp_path: Path, set_memory: SetMemory
) -> None:
    big: dict[str, Any] = {"network": "resnet18", "batch_size": "256", "epochs": 1}
    set_memory(600 * 2**20, 0)  # whatever is in use
    with pytest.raises(UserError) as refused:
        trained(small_digits, tmp_path / "model", **big)
    message = "a batch of 256 images of 8 x 8 pixels needs ?.? GiB or more to train resnet18, and there are 0.6"
    assert fnmatch(refused.value.message, message)
    assert "batch_size=auto" in refused.value.remedy and "train_memory=" in refused.value.remedy
    assert not (tmp_path / "model").exists()
