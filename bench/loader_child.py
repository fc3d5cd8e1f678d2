"""An epoch of one loader in a process of its own, for bench/loader.py: prints its figures.

python -P bench/loader_child.py KIND < spec.json      # our kinds in .venv, those of others in .venv-loaders
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

Spec = dict[str, Any]
Batch = tuple[Tensor, Tensor]


def main() -> None:
    """Take one epoch, with or without learning from it, and print the figures."""
    kind, spec = sys.argv[1], json.load(sys.stdin)
    os.sched_setaffinity(0, spec["cpus"])
    torch.set_num_threads(len(spec["cpus"]))
    learn = _learner(spec["image_shape"]) if spec["learns"] else None
    opened, read = OPENERS[kind](spec), [0]
    for folder in spec["cold"]:
        _drop_pages(Path(folder))
    print(
        json.dumps({**_epoch(opened, learn, spec["seconds"]), "bytes_read": spec.get("bytes_read", read)[0]}),
        flush=True,
    )
    os._exit(0)  # an epoch that was cut has worker processes and threads that go on


def _epoch(
    opened: Callable[[], Iterator[Batch]], learn: Callable[[Tensor, Tensor], None] | None, limit: float
) -> dict[str, Any]:
    """Take batches; return the seconds to the first one, and after it images per second and the share of waiting.

    Labels that no image has are counted: MosaicML Streaming returns some with two workers.
    """
    started = time.perf_counter()
    batches, count, waited, wrong = opened(), 0, 0.0, 0
    next(batches)
    begun = time.perf_counter()
    while is_whole := time.perf_counter() - begun < limit:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        images, labels = batch
        count += len(labels)
        wrong += int(((labels < 0) | (labels > 9)).sum())
        if learn:
            learn(images, labels.clamp(0, 9))
    seconds = time.perf_counter() - begun
    figures = {"images_per_second": count / seconds, "first_batch": begun - started, "data_wait": waited / seconds}
    return {**figures, "images": count, "wrong_labels": wrong, "is_whole": is_whole}


def _learner(shape: list[int]) -> Callable[[Tensor, Tensor], None]:
    """Return what takes a step of LeNet-5 on images whose side is a multiple of 32, which are averaged to 32 pixels."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.AvgPool2d(shape[1] // 32), nn.Conv2d(shape[0], 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU()),
        *(nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)

    def learn(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images.float() / 255), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return learn


def _drop_pages(folder: Path) -> None:
    """Let the system's cache hold nothing of the files in a folder; none of them is mapped by a process that read it.

    They were synced to the disk when they were written, for only such pages can be dropped.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _ours(spec: Spec, *, streamed: bool) -> Callable[[], Iterator[Batch]]:
    """Open our dataset as a training does, of which nothing fits into the memory."""
    from components.shared.data import shard_cache
    from components.shared.data.dataset import open_dataset
    from components.shared.parameters.training import Settings
    from components.shared.training import batches
    from components.shared.training.streaming.plan import plan_streaming

    batches.RESIDENT_SHARE = 0.0
    data, size = open_dataset(spec["folder"]), spec["batch"]
    steps = data.counts["train"] // size
    settings = Settings.of(batch_size=size, shuffle_window=spec["window"])
    spec["bytes_read"] = read = [0]
    fetch = shard_cache.StoredShards.fetch

    def counted(stored: Any, sha256: str, size: int, path: Path) -> Any:
        read[0] += size
        return fetch(stored, sha256, size, path)

    patch.object(shard_cache.StoredShards, "fetch", counted).start()

    def opened(source: Any, order: Tensor) -> Iterator[Batch]:
        yield from source.each(order[: steps * size].view(steps, size))

    if not streamed:
        source = batches.open_batches(data, "train", torch.device("cpu"), None, seed=0)
        return lambda: opened(source, torch.randperm(data.counts["train"]))

    def streaming() -> Iterator[Batch]:
        planned = plan_streaming(data, settings, processes=1, on_machine=1, batches=steps, seed=0)
        assert planned
        source = batches.open_batches(data, "train", torch.device("cpu"), planned, seed=0)
        return opened(source, torch.from_numpy(planned.order.epoch(1)))

    return streaming


def _collate(samples: list[Any]) -> Batch:
    """Join images and labels in the fastest way that there is for these loaders."""
    images = np.stack([sample[0] for sample in samples])
    return torch.from_numpy(images), torch.tensor([sample[1] for sample in samples])


def _mosaicml(spec: Spec) -> Callable[[], Iterator[Batch]]:
    streaming = import_module("streaming")  # the package, and not bench/streaming.py
    streaming.base.util.clean_stale_shared_memory()  # of an epoch that was cut

    def opened() -> Iterator[Batch]:
        dataset = streaming.StreamingDataset(
            remote=spec["remote"],
            local=spec["cache"],
            batch_size=spec["batch"],
            shuffle=True,
            shuffle_algo="py1e",
            shuffle_block_size=spec["window"],
            num_canonical_nodes=1,
        )
        collate = partial(_of_columns)
        workers = spec["workers"]
        return iter(DataLoader(dataset, spec["batch"], num_workers=workers, drop_last=True, collate_fn=collate))

    return opened


def _of_columns(samples: list[dict[str, Any]]) -> Batch:
    return _collate([(sample["image"], sample["label"]) for sample in samples])


def _webdataset(spec: Spec) -> Callable[[], Iterator[Batch]]:
    import webdataset

    def opened() -> Iterator[Batch]:
        workers = spec["workers"]
        dataset = (
            webdataset.WebDataset(spec["urls"], shardshuffle=len(spec["urls"]))
            .shuffle(spec["window"] // workers)
            .to_tuple("bin", "cls")
            .map(partial(_decoded, tuple(spec["image_shape"])))
            .batched(spec["batch"], collation_fn=_collate, partial=False)
        )
        return iter(DataLoader(dataset, batch_size=None, num_workers=workers))

    return opened


def _decoded(shape: tuple[int, ...], sample: tuple[bytes, bytes]) -> tuple[Any, int]:
    return np.frombuffer(sample[0], np.uint8).reshape(shape), int(sample[1])


OPENERS: dict[str, Callable[[Spec], Callable[[], Iterator[Batch]]]] = {
    "ours_s3": partial(_ours, streamed=True),
    "ours_disk": partial(_ours, streamed=False),
    "mosaicml": _mosaicml,
    "webdataset": _webdataset,
}

if __name__ == "__main__":
    main()
