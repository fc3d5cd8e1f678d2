"""Measure images per second of the input path: `python bench/input.py`.

torchvision's MNIST with per-image transforms through a DataLoader (in this process, and with a worker on each core; the
faster of the two counts) against batches gathered from one uint8 tensor and normalized as a whole, as the step train
does. Each makes one pass over the training images, in turn.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from measure import ROOT, hardware, median, write_result
from mnist import prepare, torchvision_mnist
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import Compose, Normalize, Pad, ToTensor

from components.shared.data.dataset import Dataset
from components.shared.models.normalize import normalize

BATCH = 256
OURS = "gathered"

Pass = Callable[[], Iterator[Tensor]]


def main() -> None:
    """Measure, print, and write `bench/results/input.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="passes of each kind")
    parser.add_argument("--images", type=int, default=50_000, help="images in a pass")
    arguments = parser.parse_args()
    torch.set_num_threads(hardware()["cores"])
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        passes = _passes(prepare(Path(scratch)), Path(scratch), arguments.images)
        for _ in range(arguments.runs):
            for name, batches in passes.items():
                rates.setdefault(name, []).append(_images_per_second(batches))
                print(f"{name}: {rates[name][-1]:,.0f} images/s", flush=True)
    medians = {name: median(found) for name, found in rates.items()}
    ratio = medians[OURS] / max(rate for name, rate in medians.items() if name != OURS)
    print(f"{ratio:.0f} times as fast as torchvision")
    document = {"times_as_fast": ratio, "images_per_second": medians, "batch_size": BATCH, "runs": rates}
    print(write_result("input", document).relative_to(ROOT))


def _passes(data: Dataset, scratch: Path, count: int) -> dict[str, Pass]:
    mean, std = torch.tensor(data.document.mean), torch.tensor(data.document.std)
    images = torch.from_numpy(data.load("train")[0][:count])
    transform = Compose([Pad(2), ToTensor(), Normalize(mean, std)])
    per_image = Subset(torchvision_mnist(data, scratch, transform)[0], range(len(images)))
    return {
        OURS: partial(_gather, images, mean, std),
        "torchvision": partial(_load, per_image, 0),
        "torchvision, a worker on each core": partial(_load, per_image, hardware()["cores"]),
    }


def _gather(images: Tensor, mean: Tensor, std: Tensor) -> Iterator[Tensor]:
    for chosen in torch.split(torch.randperm(len(images)), BATCH):
        yield normalize(images.index_select(0, chosen), mean, std)


def _load(images: Subset[tuple[Tensor, int]], workers: int) -> Iterator[Tensor]:
    for batch, _ in DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=workers):
        yield batch


def _images_per_second(batches: Pass) -> float:
    started = time.perf_counter()
    count = sum(len(batch) for batch in batches())
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
