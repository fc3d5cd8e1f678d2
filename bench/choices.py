"""Measure how activation, pooling and depth change a network: `python bench/choices.py`.

activation   LeNet-5 with each activation: epochs until 99 % of the validation split are right
pooling      the same with max, average and root-mean-square pooling
depth        stacks of 2 to 56 convolutions with and without skip connections: the gradient that reaches the first one
             before any training, and the validation accuracy after it; drawn as docs/depth.svg

MNIST, one seed; the test split is not used.
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from measure import ROOT, write_result
from mnist import prepare
from torch import Tensor, nn
from torch.nn import functional

from components.shared.data.dataset import Dataset
from components.shared.models import saved_model
from components.shared.models.document import Epoch
from components.shared.models.layers import ACTIVATIONS, POOLINGS
from components.shared.models.normalize import normalize
from components.shared.parameters.training import Settings
from components.shared.training.engine import train_model
from components.shared.training.optimizers import Optimizer
from components.shared.training.schedules import one_cycle

TARGET = 0.99
DEPTHS = (2, 8, 20, 38, 56)
CHANNELS = 16
BATCH = 128
Row = dict[str, Any]


def main() -> None:
    """Measure, print, and write `bench/results/choices-<part>.json`."""
    parts: dict[str, Callable[[Dataset, Path, argparse.Namespace], list[Row]]] = {
        "activation": lambda data, scratch, arguments: [
            _until_target(data, scratch, arguments, activation=name) for name in ACTIVATIONS
        ],
        "pooling": lambda data, scratch, arguments: [
            _until_target(data, scratch, arguments, pooling=name) for name in POOLINGS
        ],
        "depth": lambda data, _, arguments: [
            _stack(data, arguments, depth, skips) for depth, skips in itertools.product(DEPTHS, (False, True))
        ],
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=parts, action="append", help="one part (all)")
    parser.add_argument("--epochs", type=int, default=20, help="at most, of LeNet-5")
    parser.add_argument("--steps", type=int, default=300, help="of a stack's training")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(Path(scratch))
        for part in arguments.part or parts:
            rows = parts[part](data, Path(scratch), arguments)
            print(write_result(f"choices-{part}", {"target": TARGET, "rows": rows}).relative_to(ROOT), flush=True)
            if part == "depth":
                _draw(rows, ROOT / "docs" / "depth.svg")


def _until_target(data: Dataset, scratch: Path, arguments: argparse.Namespace, **choice: str) -> Row:
    """Train LeNet-5 by the engine with the pipeline's defaults until TARGET, or for the most epochs allowed."""

    def stop(epochs: Sequence[Epoch]) -> str | None:
        return "reached" if epochs[-1].val_accuracy >= TARGET else None

    folder = scratch / "-".join(choice.values())
    folder.mkdir()
    settings = Settings.of(**choice, epochs=arguments.epochs)
    run: Row = {"seed": 0, "threads": 0, "store": "", "checkpoint_seconds": 1}
    train_model(settings, data, **run, folder=folder, stop=stop)
    accuracies = [epoch.val_accuracy for epoch in saved_model.load(folder).history.epochs]
    reached = len(accuracies) if accuracies[-1] >= TARGET else None
    row = {**choice, "epochs_to_target": reached, "val_accuracies": accuracies}
    print(row, flush=True)
    return row


class Stack(nn.Module):
    """`depth` convolutions of equal width, bridged by skip connections (He et al. 2016) or not, without norms."""

    def __init__(self, depth: int, skips: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, CHANNELS, 3, stride=2, padding=1)
        self.convolutions = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(depth - 1))
        self.head = nn.Linear(CHANNELS * 16, 10)
        self.skips = skips

    def forward(self, images: Tensor) -> Tensor:
        """Map images (float32, N x 1 x 32 x 32) to logits (N x 10)."""
        x = functional.relu(self.first(images))
        for convolution in self.convolutions:
            found = functional.relu(convolution(x))
            x = x + found if self.skips else found
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(x, 4).flatten(1))
        return logits


def _stack(data: Dataset, arguments: argparse.Namespace, depth: int, skips: bool) -> Row:
    """Return the norm of the first gradient of the first convolution, and the accuracy of a short training."""
    torch.manual_seed(0)
    network = Stack(depth, skips).to(memory_format=torch.channels_last)
    mean, std = map(torch.tensor, (data.document.mean, data.document.std))
    images, labels = map(torch.from_numpy, data.load("train"))
    optimizer = Optimizer("adamw", network, 0.002, weight_decay=0.0)
    generator, first = torch.Generator().manual_seed(0), 0.0
    for step in range(arguments.steps):
        chosen = torch.randint(len(labels), (BATCH,), generator=generator)
        loss = functional.cross_entropy(network(normalize(images[chosen], mean, std)), labels[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        if step == 0:
            assert network.first.weight.grad is not None
            first = network.first.weight.grad.norm().item()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step(one_cycle(step, arguments.steps))
    with torch.no_grad():
        images, labels = map(torch.from_numpy, data.load("val"))
        logits = torch.cat([network(normalize(part, mean, std)) for part in torch.split(images, 1000)])
    accuracy = float((logits.argmax(1) == labels).double().mean())
    row = {"depth": depth, "skips": skips, "first_gradient": first, "loss": loss.item(), "val_accuracy": accuracy}
    print(row, flush=True)
    return row


def _draw(rows: Sequence[Row], path: Path) -> None:
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for skips, style, label in ((False, "o--", "without skip connections"), (True, "o-", "with skip connections")):
        chosen = [row for row in rows if row["skips"] == skips]
        depths = [row["depth"] for row in chosen]
        left.plot(depths, [row["first_gradient"] for row in chosen], style, label=label)
        right.plot(depths, [100 * row["val_accuracy"] for row in chosen], style, label=label)
    left.set(xlabel="convolutions", ylabel="gradient of the first one (norm)", yscale="log")
    right.set(xlabel="convolutions", ylabel="validation accuracy, %", ylim=(0, 101))
    right.legend(loc="center right")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
