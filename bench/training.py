"""Measure accuracy and seconds of LeNet-5 on MNIST, over several seeds.

python bench/training.py                              # all three parts: hours
python bench/training.py --part defaults --seeds 5    # the pipeline's defaults
python bench/training.py --part accurate              # the settings ACCURATE below
python bench/training.py --part baseline              # seconds to 99 %: QUICK below and the plain recipe, in turn

The plain recipe is the MNIST example of the PyTorch project: its network, torchvision's dataset with per-image
transforms through a DataLoader, batches of 64, Adadelta. Our settings were chosen on the validation split. Each part
writes `bench/results/training-<part>.json` after every seed, so that a long run may be interrupted.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, median, write_result
from mnist import prepare, torchvision_mnist
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adadelta
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor

from components.shared.data.dataset import Dataset
from components.shared.models import saved_model
from components.shared.models.normalize import normalize
from components.shared.parameters.training import TrainingRecipe
from components.train import train

# Changes of the defaults for the most accurate LeNet-5 in five minutes on two cores.
ACCURATE: dict[str, Any] = {
    "epochs": 40,
    "learning_rate": 0.01,
    "weight_decay": 0.1,
    "rotation": 11.5,
    "shift": 2.5,
    "scale": 0.12,
    "shear": 0.2,
    "ema_decay": 0.998,
}
# Changes of the defaults to reach 99 % soonest: the validation accuracy of each of five seeds is above it.
QUICK: dict[str, Any] = {
    "epochs": 1,
    "learning_rate": 0.025,
    "weight_decay": 0.1,
    "batch_size": 128,
    "label_smoothing": 0.2,
    "shift": 0.0,
    "ema_decay": 0.985,
}
TARGET = 0.99
EXAMPLE_EPOCHS = 14

Run = dict[str, Any]


def main() -> None:
    """Measure, print, and write the results of the parts."""
    parts: dict[str, Callable[[Dataset, Path, int], Run]] = {
        "defaults": lambda data, scratch, seed: measure_ours(data, scratch, seed, {}),
        "accurate": lambda data, scratch, seed: measure_ours(data, scratch, seed, ACCURATE),
        "baseline": _side_by_side,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=parts, action="append", help="one part (all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds, from 0")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(Path(scratch))
        for part in arguments.part or parts:
            runs: list[Run] = []
            for seed in range(arguments.seeds):
                runs.append(parts[part](data, Path(scratch), seed))
                print(write_result(f"training-{part}", _summary(runs)).relative_to(ROOT), runs[-1], flush=True)


def _summary(runs: list[Run]) -> Run:
    """Return the medians over the runs, the lowest test accuracy, and the runs themselves."""
    names = [name for name, value in runs[0].items() if isinstance(value, float)]
    medians = {f"median_{name}": median(run[name] for run in runs) for name in names}
    return {**medians, "lowest_test_accuracy": min(run["test_accuracy"] for run in runs), "runs": runs}


def measure_ours(data: Dataset, scratch: Path, seed: int, changes: Run) -> Run:
    """Train by the function of the step; the seconds are those of the whole step, without imports."""
    recipe = TrainingRecipe.of(**changes, seed=seed).text()
    started = time.monotonic()
    train(dataset=data.folder, recipe=recipe, model=scratch / "model")
    seconds = time.monotonic() - started
    return {
        "seed": seed,
        "seconds": seconds,
        "test_accuracy": _test_accuracy(data, saved_model.load(scratch / "model")),
    }


def _test_accuracy(data: Dataset, model: saved_model.Model) -> float:
    images, labels = map(torch.from_numpy, data.load("test"))
    with torch.no_grad():
        logits = torch.cat([model.module(normalize(part, model.mean, model.std)) for part in torch.split(images, 1000)])
    return _share(logits.argmax(1) == labels)


def _side_by_side(data: Dataset, scratch: Path, seed: int) -> Run:
    """Train with QUICK, and then by the plain recipe until its test accuracy, measured after each epoch, is TARGET."""
    ours = measure_ours(data, scratch, seed, QUICK)
    torch.manual_seed(seed)
    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
    train_set, test_set = torchvision_mnist(data, scratch, transform)
    network = PlainNetwork()
    optimizer = Adadelta(network.parameters(), lr=1.0)
    schedule = StepLR(optimizer, step_size=1, gamma=0.7)
    seconds, accuracy, epoch = 0.0, 0.0, 0
    while accuracy < TARGET and epoch < EXAMPLE_EPOCHS:
        started = time.monotonic()
        _plain_epoch(network, optimizer, DataLoader(train_set, batch_size=64, shuffle=True))
        schedule.step()
        accuracy = _plain_accuracy(network, DataLoader(test_set, batch_size=1000))
        seconds, epoch = seconds + time.monotonic() - started, epoch + 1
        print(f"plain recipe: epoch {epoch}, test accuracy {accuracy:.2%}, {seconds:.0f} s", flush=True)
    plain = {"plain_seconds": seconds, "plain_epochs": epoch, "plain_test_accuracy": accuracy}
    return {**ours, **plain, "times_as_fast": seconds / ours["seconds"]}


class PlainNetwork(nn.Sequential):
    """The network of the PyTorch project's MNIST example: 1,199,882 weights."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
            *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
        )


def _plain_epoch(network: nn.Module, optimizer: Adadelta, batches: DataLoader[Any]) -> None:
    network.train()
    for images, labels in batches:
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _plain_accuracy(network: nn.Module, batches: DataLoader[Any]) -> float:
    network.eval()
    with torch.no_grad():
        return _share(torch.cat([network(images).argmax(1) == labels for images, labels in batches]))


def _share(right: Tensor) -> float:
    return float(right.double().mean())


if __name__ == "__main__":
    main()
