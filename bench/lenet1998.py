"""Measure the test error of LeNet-5 as published in 1998, on plain and distorted MNIST.

python bench/lenet1998.py                      # both parts
python bench/lenet1998.py --part distorted     # one of them

The paper's 20 passes by AdamW in small batches, instead of its diagonal Levenberg-Marquardt method image by image. As
in the paper, distortions are shifts, scaling, squeezing and shear, drawn for each image and pass. The weights are those
of the pass with the lowest validation error; only they are tested. Each part writes
`bench/results/lenet1998-<part>.json`.
"""

import argparse
import copy
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, write_result
from mnist import prepare
from torch import Tensor

from components.shared.data.dataset import Dataset
from components.shared.models.lenet1998 import LeNet5Of1998
from components.shared.models.normalize import normalize
from components.shared.training.augmentation import draw_maps, warp
from components.shared.training.optimizers import Optimizer
from components.shared.training.schedules import one_cycle

PASSES = 20
BATCH_SIZE = 64
LEARNING_RATE = 0.003
PARTS: dict[str, dict[str, float]] = {
    "plain": {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0},
    "distorted": {"rotation": 0.0, "shift": 2.0, "scale": 0.15, "shear": 0.2},
}
PUBLISHED = {"plain": 0.95, "distorted": 0.8}  # percent of the test split

Split = tuple[Tensor, Tensor]  # normalized images (float32, N x 1 x 32 x 32) and labels (int64, N)


def main() -> None:
    """Train, print, and write the results of the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="one part (both)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="equal seeds and threads give equal weights")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(Path(scratch))
        for part in arguments.part or PARTS:
            result = {"seed": arguments.seed, "threads": arguments.threads, **_run(data, part, arguments.seed)}
            print(write_result(f"lenet1998-{part}", result).relative_to(ROOT), result, flush=True)


def _run(data: Dataset, part: str, seed: int) -> dict[str, Any]:
    """Train once; return errors in percent, passes, and seconds of the clock and of the processor."""
    started, processor_started = time.monotonic(), time.process_time()
    train, val, test = (_load(data, name) for name in ("train", "val", "test"))
    best, val_errors = _train(train, val, part, seed)
    return {
        "test_error": _error(best, test),
        "published_test_error": PUBLISHED[part],
        "val_error": min(val_errors),
        "best_pass": val_errors.index(min(val_errors)) + 1,
        "seconds": time.monotonic() - started,
        "processor_seconds": time.process_time() - processor_started,
        "settings": {"passes": PASSES, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, **PARTS[part]},
        "images": dict(data.counts),
        "val_errors": val_errors,
    }


def _load(data: Dataset, name: str) -> Split:
    images, labels = map(torch.from_numpy, data.load(name))
    return normalize(images, torch.tensor(data.document.mean), torch.tensor(data.document.std)), labels


def _train(train: Split, val: Split, part: str, seed: int) -> tuple[LeNet5Of1998, list[float]]:
    """Return the network after its best pass, and the validation error of every pass in percent."""
    torch.manual_seed(seed)
    network = LeNet5Of1998(num_classes=10, image_shape=(1, 32, 32)).to(memory_format=torch.channels_last)
    optimizer = Optimizer("adamw", network, LEARNING_RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    errors: list[float] = []
    for number in range(PASSES):
        loss = _pass(network, optimizer, train, generator, PARTS[part], number)
        errors.append(_error(network, val))
        print(f"{part}: pass {number + 1}, loss {loss:.4f}, validation error {errors[-1]:.2f} %", flush=True)
        if errors[-1] < min(errors[:-1], default=100.0):
            best = copy.deepcopy(network)
    return best, errors


def _pass(
    network: LeNet5Of1998,
    optimizer: Optimizer,
    train: Split,
    generator: torch.Generator,
    limits: dict[str, float],
    number: int,
) -> float:
    """Take a step for each whole batch of the train split; return the mean loss."""
    images, labels = train
    batches = torch.randperm(len(labels), generator=generator)[: len(labels) // BATCH_SIZE * BATCH_SIZE].view(
        -1, BATCH_SIZE
    )
    total = 0.0
    for step, chosen in enumerate(batches, number * len(batches)):
        batch = warp(images.index_select(0, chosen), draw_maps(BATCH_SIZE, generator, flip=False, **limits))
        loss = network.loss(network(batch), labels[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(one_cycle(step, PASSES * len(batches)))
        total += loss.item()
    return total / len(batches)


@torch.no_grad()
def _error(network: LeNet5Of1998, split: Split) -> float:
    """Return the percentage of a split that is misclassified."""
    images, labels = split
    found = torch.cat([network(batch).argmax(dim=1) for batch in torch.split(images, 1000)])
    return round(100 * (found != labels).double().mean().item(), 4)


if __name__ == "__main__":
    main()
