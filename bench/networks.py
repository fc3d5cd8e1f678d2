"""Measure images per second of each network, by the engine and by a plain loop: `python bench/networks.py`.

The plain loop is what a user writes: torchvision's MNIST enlarged by a transform, a DataLoader with a worker on each
core, torch.optim.SGD, cross entropy. Both train the same network on the same images in batches of one size, each in a
process of its own, in turn; the first two steps are not counted.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measure import ROOT, median, write_result
from mnist import prepare, torchvision_mnist
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, Pad, Resize, ToTensor

from components.shared.core.torch_runtime import prepare_process
from components.shared.data.dataset import Dataset, open_dataset
from components.shared.models import factory
from components.shared.models.catalogue import ZOO
from components.shared.parameters.training import Settings
from components.shared.training.distributed.process_group import SINGLE
from components.shared.training.initialize import architecture
from components.shared.training.loop import Training

RATE = "images/s: "
SMALL = 32  # pixels, to which the pipeline enlarges MNIST


def main() -> None:
    """Measure, print, and write `bench/results/networks-<size>.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["lenet5", *ZOO], metavar="NAME")
    parser.add_argument("--size", type=int, default=SMALL, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4, help="of a round at least, and two steps at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # KIND FOLDER of one of the two
    arguments = parser.parse_args()
    if arguments.child:
        kind, folder = arguments.child
        return _child(kind, Path(folder), arguments)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in {SMALL, arguments.size}:
            (Path(scratch) / str(size)).mkdir()
            prepare(Path(scratch) / str(size), image_size=size)
        for name in arguments.networks:
            rows.append(_measure(name, scratch, arguments))
            print(rows[-1], flush=True)
            settings = {key: getattr(arguments, key) for key in ("size", "batch", "seconds", "rounds")}
            write_result(f"networks-{arguments.size}", {**settings, "networks": rows})
    print((ROOT / "bench" / "results" / f"networks-{arguments.size}.json").relative_to(ROOT))


def _measure(name: str, scratch: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return images per second of both in each round, and the median of how many times as fast the engine is."""
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    given = [f"--{key}={getattr(arguments, key)}" for key in ("size", "batch", "seconds")]
    command = [sys.executable, __file__, f"--networks={name}", *given, "--child"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with (
        subprocess.Popen([*command, "ours", scratch], **pipes) as ours,
        subprocess.Popen([*command, "plain", scratch], **pipes) as plain,
    ):
        children = {"ours": ours, "plain": plain}
        for child in children.values():
            _next_rate(child)  # not counted: the first step allocates its memory
        for number in range(arguments.rounds):
            for kind in list(children)[:: -1 if number % 2 else 1]:
                rates[kind].append(_next_rate(children[kind]))
        for child in children.values():
            child.communicate()
    times = round(median([ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]), 3)
    return {"network": name, "times_as_fast": times, **rates}


def _next_rate(child: subprocess.Popen[str]) -> float:
    """Let a child take its next steps."""
    assert child.stdin and child.stdout
    child.stdin.write("go\n")
    for line in child.stdout:
        if line.startswith(RATE):
            return float(line.removeprefix(RATE))
    raise RuntimeError(f"a child ended with {child.wait()}")


def _child(kind: str, scratch: Path, arguments: argparse.Namespace) -> None:
    """Take two steps at the first line of stdin, and a round of steps at each other one; print images per second."""
    (name,) = arguments.networks
    data = open_dataset(scratch / str(arguments.size) / "dataset")
    if kind == "ours":
        prepare_process(0)
        work = _ours(name, data, arguments.batch)
    else:
        torch.set_num_threads(os.cpu_count() or 1)
        transform = Compose([Pad(2), Resize(arguments.size), ToTensor(), Normalize((0.1307,), (0.3081,))])
        small = open_dataset(scratch / str(SMALL) / "dataset")
        pictures, _ = torchvision_mnist(small, scratch, transform)
        work = _plain(name, data, pictures, arguments.batch)
    for number, _ in enumerate(sys.stdin):
        steps, started = 0, time.perf_counter()
        while steps < 2 or (number and time.perf_counter() - started < arguments.seconds):
            next(work)
            steps += 1
        print(f"{RATE}{steps * arguments.batch / (time.perf_counter() - started):.2f}", flush=True)


def _ours(name: str, data: Dataset, batch: int) -> Iterator[None]:
    changes: dict[str, Any] = {"network": name, "optimizer": "sgd", "learning_rate": 0.001, "batch_size": batch}
    plain: dict[str, Any] = {"shift": 0.0, "label_smoothing": 0.0, "epochs": 1000}
    yield from Training(Settings.of(**changes, **plain), data, SINGLE, seed=0).steps()


def _plain(name: str, data: Dataset, pictures: MNIST, batch: int) -> Iterator[None]:
    network = factory.build(architecture(Settings.of(network=name), data))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    loader = DataLoader(pictures, batch, shuffle=True, num_workers=os.cpu_count() or 1)
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield


if __name__ == "__main__":
    main()
