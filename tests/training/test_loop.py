"""The training loop: what it says of a loss that is not finite, and the figures that it measures."""

import time
from pathlib import Path

import pytest

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.shared.training.distributed.process_group import SINGLE
from components.shared.training.loop import Training
from tests.trained_digits import settings, trained


def test_the_first_loss_that_is_not_finite_is_named(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the loss became (nan|inf) in epoch 1, step 2 at learning_rate=1e\+30; give"):
        trained(digits, tmp_path / "model", optimizer="sgd", learning_rate=1e30)


@pytest.mark.slow
def test_times_of_a_training_add_up(digits: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    history = trained(digits, tmp_path / "model", epochs=3).history
    elapsed = time.monotonic() - started
    assert 0 < sum(epoch.seconds for epoch in history.epochs) <= history.seconds["train"] <= elapsed
    assert all(0 < epoch.data_wait < 1 for epoch in history.epochs)


def test_a_checkpoint_holds_the_seconds_so_far(digits: Path) -> None:
    started = time.monotonic()
    training = Training(settings(), open_dataset(digits), SINGLE, seed=0)
    next(training.steps())
    figures = training.state_dict().document
    elapsed = time.monotonic() - started
    assert 0 < figures.epoch_seconds <= elapsed and 0 < figures.seconds <= elapsed


def test_a_shuffle_window_changes_nothing_for_small_data(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their checkpoints keep the keys of a version that did not know it."""
    trained(digits, tmp_path / "without", epochs=1)
    assert "shuffle" not in capsys.readouterr().out
    model = trained(digits, tmp_path / "with", epochs=1, shuffle_window=100)
    told = "[train] shuffle_window=100 has no effect: the data set is not read from a store\n"
    assert told in capsys.readouterr().out
    assert sha256_file(tmp_path / "with/model.json") == sha256_file(tmp_path / "without/model.json")
    assert "shuffle_window" not in model.document.parameters
