"""Images per second of each network, by the engine and by a plain loop: `python bench/networks.py`.

The plain loop is what a user writes: torchvision's MNIST enlarged by a transform, a DataLoader with a worker on each
core, torch.optim.SGD, cross entropy. Both train the same network on the same pictures in batches of one size, in turn;
a round counts the steps after the first one.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, median, write_result
from mnist import defaults, prepare, torchvision_mnist
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, Pad, Resize, ToTensor

from components.shared import models
from components.shared.dataset import Dataset
from components.shared.networks import ZOO
from components.shared.ranks import ALONE
from components.shared.training import read_settings
from components.shared.training.loop import Training

SMALL = 32  # pixels, to which the pipeline brings MNIST


def main() -> None:
    """Measure, print, and write `bench/results/networks-<size>.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["lenet5", *ZOO], metavar="NAME")
    parser.add_argument("--size", type=int, default=SMALL, help="height and width of the pictures")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        transform = Compose([Pad(2), Resize(arguments.size), ToTensor(), Normalize((0.1307,), (0.3081,))])
        for size in {SMALL, arguments.size}:
            (Path(scratch) / str(size)).mkdir()
        pictures, _ = torchvision_mnist(prepare(Path(scratch) / str(SMALL)), Path(scratch), transform)
        data = prepare(Path(scratch) / str(arguments.size), image_size=arguments.size)
        for name in arguments.networks:
            rows.append(_measure(name, data, pictures, arguments))
            print(rows[-1], flush=True)
            settings = {key: getattr(arguments, key) for key in ("size", "batch", "steps", "rounds")}
            write_result(f"networks-{arguments.size}", {**settings, "networks": rows})
    print((ROOT / "bench" / "results" / f"networks-{arguments.size}.json").relative_to(ROOT))


def _measure(name: str, data: Dataset, pictures: MNIST, arguments: argparse.Namespace) -> dict[str, Any]:
    """Images a second of both, each round's, and the median of how many times as fast ours is."""
    works = {"ours": _ours(name, data, arguments.batch), "plain": _plain(name, data, pictures, arguments.batch)}
    rates: dict[str, list[float]] = {kind: [] for kind in works}
    for kind in works:
        next(works[kind])  # not counted: the first step finds its memory
    for number in range(arguments.rounds):
        for kind in list(works)[:: -1 if number % 2 else 1]:
            started = time.perf_counter()
            for _ in itertools.islice(works[kind], arguments.steps):
                pass
            rates[kind].append(round(arguments.steps * arguments.batch / (time.perf_counter() - started), 2))
    times = round(median([ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]), 3)
    return {"network": name, "times_as_fast": times, **rates}


def _ours(name: str, data: Dataset, batch: int) -> Iterator[None]:
    changes = {"network": name, "optimizer": "sgd", "learning_rate": 0.001, "batch_size": str(batch)}
    plain = {"shift": 0.0, "label_smoothing": 0.0}
    yield from Training(read_settings({**defaults(), **changes, **plain}), data, ALONE, seed=0).steps()


def _plain(name: str, data: Dataset, pictures: MNIST, batch: int) -> Iterator[None]:
    architecture = {"name": name, "num_classes": 10, "image_shape": list(data.image_shape)}
    network = models.build({**architecture, "activation": "default", "pooling": "default", "bias": True})
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    for images, labels in DataLoader(pictures, batch, shuffle=True, num_workers=os.cpu_count() or 1):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield


if __name__ == "__main__":
    main()
