"""Measure the engine on one GPU: `python bench/gpu.py`.

lenet5     seconds of the training step until LeNet-5 has 99 % of MNIST's test split right, for five seeds
networks   images/s and share of the peak of ResNet-50 and ResNet-152 at 224 pixels in bfloat16: by the engine from a
           dataset on the device and from memory-mapped shards, and by the loop of timm's benchmark.py, which trains on
           one batch on the device and so reads no images; in turn, in one process

Without a GPU it exits with 2; `--device cpu` tries the code there, with a small `--size`.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from measure import ROOT, median, write_result
from mnist import prepare
from torch.nn import functional
from training import QUICK, measure_ours

from components.shared.data.dataset import Dataset, open_dataset
from components.shared.parameters.training import Settings
from components.shared.training import batches
from components.shared.training.distributed.process_group import ProcessGroup
from components.shared.training.loop import Training
from components.shared.training.utilization import peak_operations, training_operations
from tests.dataset_writer import DatasetWriter

NETWORKS = ("resnet50", "resnet152")
CLASSES = 1000
TARGET = 0.95  # of timm's images/s, with the whole input path
HELD = {"held": 1.0, "streamed": 0.0}  # share of the memory that a whole split may take


def main() -> int:
    """Measure, print, and write `bench/results/gpu-<part>.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("lenet5", "networks"), action="append", help="one part (both)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pictures", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=30, help="steps of a round, after ten that are not counted")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("error: there is no GPU; give --device cpu to try the code", file=sys.stderr)
        return 2
    parts = arguments.part or ("lenet5", "networks")
    device = torch.device(arguments.device, 0) if arguments.device == "cuda" else torch.device("cpu")
    about = {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"}
    with tempfile.TemporaryDirectory() as scratch:
        if "lenet5" in parts:
            gpus = "1" if device.type == "cuda" else "0"
            data = prepare(Path(scratch))
            runs = [measure_ours(data, Path(scratch), seed, {**QUICK, "gpus": gpus}) for seed in range(5)]
            seconds = median(run["seconds"] for run in runs)
            print(write_result("gpu-lenet5", {**about, "median_seconds": seconds, "runs": runs}).relative_to(ROOT))
        if "networks" in parts:
            data = _pictures(Path(scratch) / "pictures", arguments.pictures, arguments.size)
            rows = []
            for name in NETWORKS:
                rows.append(_measure(name, data, device, arguments))
                print(rows[-1], flush=True)
            settings = {key: getattr(arguments, key) for key in ("size", "batch", "pictures", "steps", "rounds")}
            document = {**about, **settings, "target": TARGET, "networks": rows}
            print(write_result("gpu-networks", document).relative_to(ROOT))
    return 0


def _pictures(folder: Path, count: int, size: int) -> Dataset:
    """Write a dataset of noise: the content of an image does not change the speed."""
    folder.mkdir()
    random, counts = np.random.default_rng(0), {"train": count, "val": 1, "test": 1}
    classes = [f"{number:03}" for number in range(CLASSES)]
    writer = DatasetWriter(folder, classes=classes, image_shape=(3, size, size), counts=counts)
    for split, of_split in counts.items():
        for start in range(0, of_split, 256):
            part = min(256, of_split - start)
            images = random.integers(0, 256, (part, 3, size, size), np.uint8)
            writer.append(split, images, random.integers(0, CLASSES, part))
    writer.finish(name="noise", seconds={})
    return open_dataset(folder)


def _measure(name: str, data: Dataset, device: torch.device, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return images per second of all three in each round, and the median ratios of the engine to timm's loop."""
    works = {kind: _ours(name, data, device, arguments.batch, share) for kind, share in HELD.items()}
    works["timm"] = _timm(name, device, data.image_shape[-1], arguments.batch)
    rates: dict[str, list[float]] = {kind: [] for kind in works}
    for work in works.values():
        _seconds(
            work, device, min(10, arguments.steps)
        )  # not counted: they allocate memory and find the fastest kernels
    for number in range(arguments.rounds):
        for kind in list(works)[:: -1 if number % 2 else 1]:
            seconds = _seconds(works[kind], device, arguments.steps)
            rates[kind].append(round(arguments.steps * arguments.batch / seconds, 1))
    times = {
        f"{kind}_of_timm": round(median([a / b for a, b in zip(rates[kind], rates["timm"], strict=True)]), 3)
        for kind in HELD
    }
    operations = training_operations(timm.create_model(name), data.image_shape)
    peak = peak_operations(device)
    shares = {f"{kind}_peak_share": round(median(rates[kind]) * operations / peak, 4) for kind in rates if peak}
    return {"network": name, **times, **shares, **rates}


def _seconds(work: Iterator[None], device: torch.device, steps: int) -> float:
    started = time.perf_counter()
    for _ in itertools.islice(work, steps):
        pass
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _ours(name: str, data: Dataset, device: torch.device, batch: int, share: float) -> Iterator[None]:
    changes: dict[str, Any] = {"network": name, "optimizer": "sgd", "learning_rate": 0.001, "batch_size": batch}
    plain: dict[str, Any] = {"shift": 0.0, "label_smoothing": 0.0, "precision": "bfloat16", "epochs": 10_000}
    gpus = "1" if device.type == "cuda" else "0"
    batches.RESIDENT_SHARE = share
    settings = Settings.of(**changes, **plain, gpus=gpus)
    yield from Training(settings, data, ProcessGroup(0, 1, device), seed=0).steps()


def _timm(name: str, device: torch.device, size: int, batch: int) -> Iterator[None]:
    """Train by the loop of `benchmark.py --bench train --amp --amp-dtype bfloat16 --channels-last` of timm."""
    network = timm.create_model(name, num_classes=CLASSES)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, nesterov=True)  # timm's choice for sgd
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch,), device=device)
    while True:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            loss = functional.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield


if __name__ == "__main__":
    sys.exit(main())
