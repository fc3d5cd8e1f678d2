"""The training engine: pytest tests/training/test_engine.py"""

from pathlib import Path
from typing import Any

import pytest
import torch

from components.shared.core.errors import UserError
from components.shared.data.dataset import open_dataset
from components.shared.models import factory, saved_model
from components.shared.training import loop
from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.engine import train_model
from components.shared.training.loop import Training
from tests.trained_digits import RUN, SETTINGS, largest_difference, read_weights, settings, trained


@pytest.mark.slow
def test_accumulated_batches_equal_one_large_batch(digits: Path, tmp_path: Path) -> None:
    trained(digits, tmp_path / "whole", batch_size="100")
    trained(digits, tmp_path / "parts", batch_size="25", accumulate=4)
    assert largest_difference(tmp_path / "whole", tmp_path / "parts") < 1e-4
    with pytest.raises(UserError, match="batch_size=200 times accumulate=3 is more than the 400 images"):
        trained(digits, tmp_path / "model", batch_size="200", accumulate=3)


def test_gradients_are_clipped_to_the_given_norm(digits: Path, tmp_path: Path) -> None:
    one = {"optimizer": "sgd", "batch_size": "400", "epochs": 1, "learning_rate": 1.0, "ema_decay": 0.0}
    architecture = trained(digits, tmp_path / "clipped", clip_norm=0.01, **one).document.architecture
    torch.manual_seed(SETTINGS["seed"])
    initial = factory.build(architecture)
    after = read_weights(tmp_path / "clipped")
    moved = torch.cat([(after[name] - tensor).flatten() for name, tensor in initial.state_dict().items()]).norm()
    assert moved.item() == pytest.approx(0.01 * 1.9, rel=1e-3)  # Nesterov's first step is 1 + momentum times as long


@pytest.mark.slow
@pytest.mark.parametrize(
    "others",
    [{"mixup": 0.4}, {"cutmix": 1.0}, {"precision": "bfloat16"}, {"schedule": "cosine"}, {"flip": True}],
    ids=lambda others: next(iter(others)),
)
def test_each_option_learns_and_changes_the_weights(digits: Path, tmp_path: Path, others: dict[str, Any]) -> None:
    model = trained(digits, tmp_path / "model", epochs=8, **others)
    assert model.document.val_accuracy > 0.6
    assert all(tensor.dtype == torch.float32 for tensor in model.module.state_dict().values())
    plain = trained(digits, tmp_path / "plain", epochs=1)
    once = trained(digits, tmp_path / "once", epochs=1, **others)
    assert plain.document.weights_sha256 != once.document.weights_sha256


def test_mixup_and_cutmix_exclude_each_other() -> None:
    with pytest.raises(UserError, match=r"mixup=0\.2 and cutmix=1\.0 exclude each other"):
        settings(mixup=0.2, cutmix=1.0)


def test_the_history_has_memory_and_data_wait_of_each_epoch(digits: Path, tmp_path: Path) -> None:
    for epoch in trained(digits, tmp_path / "model").history.epochs:
        assert 0 <= epoch.data_wait < 0.5
        assert 100 < epoch.memory_mib < 24_000
        assert epoch.peak_share == 0, "the peak of a CPU is not known"


def test_weights_that_diverge_in_the_last_step_are_refused(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^the validation loss became (nan|inf) after epoch 1 at learning_rate=1e\+30; "
    ):
        trained(
            digits,
            tmp_path / "model",
            optimizer="sgd",
            learning_rate=1e30,
            batch_size="400",
            epochs=1,
            ema_decay=0.0,
            schedule="cosine",
        )


def test_stop_ends_the_training_by_its_reason_after_an_epoch(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(epochs: Any) -> str | None:
        return "enough" if len(epochs) == 2 else None

    (tmp_path / "model").mkdir()
    train_model(settings(epochs=5), open_dataset(digits), **RUN, folder=tmp_path / "model", stop=stop)
    history = saved_model.load(tmp_path / "model").history
    assert (len(history.epochs), history.stopped) == (2, "enough")
    assert "[log] stopped early: enough" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_running_out_of_memory_names_the_batch_size(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(loop, "warp", fail)
    with pytest.raises(UserError, match=r"batch_size=50 needs more memory than the cpu has; give a smaller batch_size"):
        trained(digits, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_batch_that_cannot_be_split_evenly_is_refused(digits: Path) -> None:
    with pytest.raises(UserError, match="batch_size=50 cannot be split evenly over 3 processes; give a multiple of 3"):
        Training(settings(), open_dataset(digits), ProcessGroup(0, 3, torch.device("cpu")), 0)
