"""The step train, on the digits that scikit-learn carries: pytest tests/steps/test_train.py"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.core.torch_runtime import processor
from components.shared.data.dataset import open_dataset
from components.shared.models import factory, saved_model
from components.shared.models.normalize import normalize
from components.shared.parameters.training import Optimizer
from components.shared.training.schedules import SCHEDULES
from tests.trained_digits import SETTINGS, trained, training_recipe, write_digits

ROOT = Path(__file__).parents[2]


def val_accuracy(model: saved_model.Model, dataset: Path) -> float:
    images, labels = map(torch.from_numpy, open_dataset(dataset).load("val"))
    with torch.no_grad():
        logits = model.module(normalize(images, model.mean, model.std))
    return float((logits.argmax(1) == labels).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_every_optimizer_learns_the_digits(digits: Path, tmp_path: Path, optimizer: str) -> None:
    rate = {"muon": 0.02, "sgd": 0.05, "adamw": 0.01}[optimizer]
    model = trained(digits, tmp_path / "model", optimizer=optimizer, learning_rate=rate, epochs=8)
    assert model.document.val_accuracy > 0.7


def test_the_document_describes_how_the_model_was_trained(digits: Path, tmp_path: Path) -> None:
    model = trained(digits, tmp_path / "model", seed=3)
    data, document = open_dataset(digits), model.document
    assert document.dataset_digest == data.digest
    assert (model.classes, model.image_shape) == (data.classes, data.image_shape)
    assert (document.mean, document.std) == (data.document.mean, data.document.std)
    assert (document.seed, document.threads, document.torch) == (3, 1, torch.__version__)
    others = ("seed", "threads", "store", "checkpoint_seconds", "shuffle_window")  # of data in memory
    assert document.parameters == {k: v for k, v in SETTINGS.items() if k not in others}


@pytest.mark.slow
def test_the_checkpoint_key_depends_on_what_determines_weights(digits: Path, tmp_path: Path) -> None:
    def key(**settings: Any) -> str:
        document = trained(digits, tmp_path / "model", **{"epochs": 1, "batch_size": "400", **settings}).document
        return str(document.checkpoint_key)

    others: list[dict[str, Any]] = [{"seed": 1}, {"threads": 2}, {"shift": 2.0}, {"patience": 3}, {"optimizer": "sgd"}]
    assert len({key(), *(key(**settings) for settings in others)}) == 1 + len(others)
    assert key() == key(checkpoint_seconds=7)


@pytest.mark.slow
def test_the_checkpoint_key_depends_on_processor_and_library(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(network: str = "lenet5", **replaced: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in replaced.items():
                patch.setattr(name.replace("__", "."), lambda *_, value=value: value)
            model = trained(digits, tmp_path / "model", epochs=1, batch_size="400", network=network)
        return str(model.document.checkpoint_key)

    assert key() == key()
    others: list[dict[str, str]] = [{"torch__backends__cpu__get_cpu_capability": "AVX9"}, {"platform__machine": "z80"}]
    assert len({key(), *(key(**replaced) for replaced in others)}) == 1 + len(others)
    zoo = {"network": "squeezenet1_1"}
    library = "components__shared__models__catalogue__version"
    assert len({key(**zoo), key(**zoo, **{library: "9.9"}), key(**zoo, **{library: "9.10"})}) == 3
    assert key() == key(**{library: "9.9"}), "our own networks need no library"


def test_the_processor_of_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "NVIDIA H200")
    cpu = processor(torch.device("cpu"))
    assert cpu and processor(torch.device("cuda")) == f"{cpu}, NVIDIA H200"


@pytest.mark.slow
def test_the_history_has_each_epoch_and_the_seconds_of_all_steps(digits: Path, tmp_path: Path) -> None:
    history = trained(digits, tmp_path / "model", epochs=3).history
    assert [epoch.epoch for epoch in history.epochs] == [1, 2, 3]
    rates = [epoch.learning_rate for epoch in history.epochs]
    assert SETTINGS["learning_rate"] > rates[0] > rates[1] > rates[2] > 0
    assert history.epochs[2].train_loss < history.epochs[0].train_loss
    assert all(epoch.images_per_second > 0 and epoch.seconds > 0 for epoch in history.epochs)
    assert history.seconds["download"] == 0.5 and history.seconds["train"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "learning_rate"), [("sgd", 0.3), ("adamw", 0.1)])
def test_the_weights_of_the_best_epoch_are_saved(
    digits: Path, tmp_path: Path, optimizer: str, learning_rate: float
) -> None:
    # The first rate makes the accuracy jump up and down; the second leaves it at one value in most epochs.
    settings = {"optimizer": optimizer, "learning_rate": learning_rate, "epochs": 6, "ema_decay": 0.0}
    model = trained(digits, tmp_path / "model", **settings)
    best = max(model.history.epochs, key=lambda e: (e.val_accuracy, -e.val_loss))
    assert best.epoch == model.history.best_epoch == model.document.best_epoch
    assert val_accuracy(model, digits) == pytest.approx(best.val_accuracy) == model.document.val_accuracy


@pytest.mark.slow
def test_averaged_weights_soon_forget_the_initial_ones(digits: Path, tmp_path: Path) -> None:
    raw = trained(digits, tmp_path / "raw", epochs=6, ema_decay=0.0)
    averaged = trained(digits, tmp_path / "averaged", epochs=6, ema_decay=0.9999)
    assert averaged.document.weights_sha256 != raw.document.weights_sha256
    assert averaged.document.val_accuracy > 0.6


@pytest.mark.slow
def test_training_stops_when_patience_is_spent(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"optimizer": "adamw", "learning_rate": 0.5, "ema_decay": 0.0, "epochs": 30, "patience": 2}
    history = trained(digits, tmp_path / "model", **settings).history
    assert len(history.epochs) == history.best_epoch + 2 < 30
    assert f"[train] stopped early: no better epoch since epoch {history.best_epoch}" in capsys.readouterr().out


def test_progress_shows_loss_and_images_per_second(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(digits, tmp_path / "model", epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[train] epoch 1/1: 100 % (400/400 images, ") and "images/s, loss " in lines[0]
    assert lines[-2].startswith("[train] best epoch 1: val accuracy ")


@pytest.mark.slow
def test_equal_inputs_give_bit_identical_files(digits: Path, tmp_path: Path) -> None:
    for name, seed in {"first": 0, "second": 0, "other": 1}.items():
        trained(digits, tmp_path / name, seed=seed)
    for file in ("model.safetensors", "model.json"):
        first, second, other = (sha256_file(tmp_path / name / file) for name in ("first", "second", "other"))
        assert first == second != other


@pytest.mark.slow
def test_another_process_gives_bit_identical_files(digits: Path, tmp_path: Path) -> None:
    trained(digits, tmp_path / "here", threads=2)
    recipe = training_recipe(threads=2)
    arguments = {"dataset": str(digits), "recipe": recipe, "model": str(tmp_path / "there")}
    code = f"from components.train import train; train(**{arguments!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
    for file in ("model.safetensors", "model.json"):
        assert sha256_file(tmp_path / "here" / file) == sha256_file(tmp_path / "there" / file)


@pytest.mark.slow
def test_training_does_not_import_pytorchs_compiler(digits: Path, tmp_path: Path) -> None:
    arguments = {"dataset": str(digits), "recipe": training_recipe(), "model": str(tmp_path / "model")}
    code = (
        f"import sys; from components.train import train; train(**{arguments!r}); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300, capture_output=True)
    assert done.stdout.split()[-1] == b"False"


@pytest.mark.slow
def test_the_smallest_set_of_options_trains_too(digits: Path, tmp_path: Path) -> None:
    none = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0, "label_smoothing": 0.0, "ema_decay": 0.0}
    model = trained(digits, tmp_path / "model", bias=False, activation="tanh", pooling="avg", epochs=6, **none)
    assert model.document.val_accuracy > 0.7


@pytest.mark.slow
def test_batch_norm_statistics_are_saved_with_averaged_weights(small_digits: Path, tmp_path: Path) -> None:
    settings = {"network": "resnet18", "optimizer": "adamw", "learning_rate": 0.003, "shift": 0.0, "epochs": 6}
    model = trained(small_digits, tmp_path / "model", **settings)
    assert model.document.architecture.name == model.document.parameters["network"] == "resnet18"
    assert val_accuracy(model, small_digits) == pytest.approx(model.document.val_accuracy)
    assert model.document.val_accuracy > 0.7
    statistics = dict(model.module.named_buffers())
    assert all(values.isfinite().all() for values in statistics.values())
    assert statistics["bn1.num_batches_tracked"] == 8 * model.document.best_epoch
    assert statistics["layer4.1.bn2.running_mean"].std() > 0 and statistics["layer4.1.bn2.running_var"].std() > 0


def test_a_network_learns_by_its_own_loss(digits: Path, tmp_path: Path) -> None:
    plain = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0, "label_smoothing": 0.5}
    one_step = {"network": "lenet5_1998", "batch_size": "400", "epochs": 1, **plain}
    model = trained(digits, tmp_path / "model", **one_step)
    torch.manual_seed(SETTINGS["seed"])
    initial = factory.build(model.document.architecture)
    images, labels = map(torch.from_numpy, open_dataset(digits).load("train"))
    expected = initial.loss(initial(normalize(images, model.mean, model.std)), labels)  # type: ignore[operator]
    assert model.history.epochs[0].train_loss == pytest.approx(expected.item())


@pytest.mark.slow
def test_batch_norm_refuses_a_batch_of_one_image(small_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"resnet18 normalizes .* give batch_size=2 or more"):
        trained(small_digits, tmp_path / "model", network="resnet18", batch_size="1")


def test_a_loss_that_is_not_finite_ends_the_training(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"loss became (nan|inf) in epoch 1, step \d at learning_rate=10000000000.0; give a low"
    ):
        trained(digits, tmp_path / "model", optimizer="sgd", learning_rate=1e10)
    assert not list(tmp_path.iterdir())


def test_a_batch_larger_than_the_train_split_is_refused(digits: Path, tmp_path: Path) -> None:
    trained(digits, tmp_path / "model", batch_size="400", epochs=1)
    with pytest.raises(UserError, match="batch_size=401 is more than the 400 images of the train split; give a small"):
        trained(digits, tmp_path / "model", batch_size="401")
    assert not list(tmp_path.iterdir())


def test_a_dataset_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not 24 x 24; .*image_size=32"):
        trained(write_digits(tmp_path / "small", enlarge=3), tmp_path / "model")


def test_a_folder_that_is_not_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        trained(tmp_path, tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 0), ("learning_rate", float("nan")), ("learning_rate", -1.0), ("optimizer", "lion")]
)
def test_a_parameter_out_of_range_is_refused_at_once(tmp_path: Path, name: str, value: object) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=f"{name}={value} is not accepted"):
        trained(tmp_path, tmp_path / "model", **{name: value})
    assert (tmp_path / "model").is_dir()


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_stay_between_0_and_the_peak(name: str) -> None:
    shares = [SCHEDULES[name](step, 100) for step in range(100)]
    assert max(shares) == 1 and min(shares) > 0
    assert shares[:5] == sorted(shares[:5]) and shares[4:] == sorted(shares[4:], reverse=True)
    assert SCHEDULES[name](0, 1) == 1


def test_history_and_model_documents_name_their_format(digits: Path, tmp_path: Path) -> None:
    trained(digits, tmp_path / "model", epochs=1)
    for name in ("history", "model"):
        assert json.loads((tmp_path / f"model/{name}.json").read_text())["format"] == f"torch2kubeflow/{name}"
