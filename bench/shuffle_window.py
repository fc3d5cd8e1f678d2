"""Compare the order within a window, by which large data are read, with a full shuffle.

python bench/shuffle_window.py

LeNet-5 is trained on Fashion-MNIST from a store, with equal seeds by a full shuffle and by a window of a tenth of the
train split. The shards hold the images in the order of the source, which is random, or class after class, as folders of
classes give them; the window has 16 of them, or 128. By the pipeline's defaults it has more: 223 of colour pictures of
224 x 224. Writes `bench/results/shuffle-window-<data>.json` after each training, and takes up what an earlier call with
the same settings left there: the mean difference of test accuracy with the 95 % interval of the paired t-test. `--data
mnist` or `--data kmnist` takes another set.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from measure import ROOT, write_result
from mnist import prepare
from scipy.stats import ttest_1samp
from training import measure_ours

from components.shared.data.dataset import SPLITS, Dataset, open_dataset, write_document
from components.shared.storage.client import Store, open_store
from runner.local.s3_server import STORE, shared
from tests.dataset_writer import DatasetWriter

WINDOW_SHARE = 10
SHARDS = {"full": 16, "window": 16, "window_by_class": 16, "window_by_class_of_128": 128}  # in the window, by the kind
Run = dict[str, Any]


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--seeds", type=int, default=8, help="how many seeds, from 0")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, shared(Path(folder) / "runs") as variables:
        scratch, name = Path(folder), f"shuffle-window-{arguments.data}"
        data = prepare(scratch, arguments.data)
        os.environ.update(variables())
        store = open_store(f"{STORE}/datasets/shards", os.environ)
        window = data.counts["train"] // WINDOW_SHARE
        settings = {"epochs": arguments.epochs, "threads": arguments.threads}
        runs = _earlier(name, {**settings, "window": window})
        for kind, shards in SHARDS.items():
            stored = _store(data, scratch / kind, store, window // shards, "by_class" in kind)
            changes = settings if kind == "full" else {**settings, "shuffle_window": window}
            for seed in range(arguments.seeds):
                run = next((run for run in runs if run["seed"] == seed), None) or {"seed": seed}
                if kind not in run:
                    run[kind] = measure_ours(stored, scratch, seed, changes)["test_accuracy"]
                    runs = [*(other for other in runs if other["seed"] != seed), run]
                    figures = {**settings, "window": window, "shards_in_window": SHARDS, **_summary(runs), "runs": runs}
                    print(run, write_result(name, figures).relative_to(ROOT), flush=True)


def _earlier(name: str, settings: Run) -> list[Run]:
    """Return the runs of an earlier call with these settings."""
    path = ROOT / "bench" / "results" / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return found["runs"] if found and all(found[name] == value for name, value in settings.items()) else []


def _store(data: Dataset, folder: Path, store: Store, shard: int, by_class: bool) -> Dataset:
    """Put the images into the store, in shards of so many, and return the remote dataset."""
    folder.mkdir()
    size = shard * int(np.prod(data.image_shape))
    writer = DatasetWriter(
        folder, classes=data.classes, image_shape=data.image_shape, counts=data.counts, shard_bytes=size
    )
    for split in SPLITS:
        images, labels = data.load(split)
        order = np.argsort(labels, kind="stable") if by_class and split == "train" else np.arange(len(labels))
        writer.append(split, images[order], labels[order])
    document = writer.finish(name=data.document.name, seconds={"download": 0.0, "preprocess": 0.0})
    for entry in open_dataset(folder).files():
        store.put_file(folder / entry.path, f"{entry.sha256}.npy", entry.sha256)
        (folder / entry.path).unlink()
    write_document(folder, document.model_copy(update={"shards": store.uri()}))
    return open_dataset(folder)


def _summary(runs: list[Run]) -> Run:
    """Return the mean test accuracies and, of two runs or more, the differences from the full shuffle."""
    found: Run = {}
    for kind in SHARDS:
        accuracies = [run[kind] for run in runs if kind in run]
        differences = [run[kind] - run["full"] for run in runs if kind in run and "full" in run]
        if accuracies:
            found[f"mean_{kind}"] = fmean(accuracies)
        if kind != "full" and len(differences) > 1:
            low, high = ttest_1samp(differences, 0.0).confidence_interval(0.95)
            found[f"{kind}_minus_full"] = {"mean": fmean(differences), "low": float(low), "high": float(high)}
    return found


if __name__ == "__main__":
    main()
