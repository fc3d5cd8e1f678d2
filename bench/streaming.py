"""Measure training from memory-mapped shards: `python bench/streaming.py`.

MNIST's 60,000 training images are written 1, 10 and 100 times, and LeNet-5 is trained on them for a number of steps in
a process of its own: streamed from the shards and, if it fits, loaded into memory. Only the anonymous memory of the
process counts; the pages of mapped files belong to the system's cache, which drops them when memory is short.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import ROOT, median, write_result

COPIES = (1, 10, 100)
HELD_COPIES = 10  # at most, in memory
BATCH = 256


def main() -> None:
    """Measure, print, and write `bench/results/streaming.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    parser.add_argument("--runs", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # FOLDER,SHARE,STEPS of one training
    arguments = parser.parse_args()
    if arguments.child:
        return _child(*arguments.child.split(","))
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        from mnist import prepare

        data = prepare(Path(scratch))
        for copies in COPIES:
            folder = Path(scratch) / "copies"
            count = _write_copies(data, folder, copies)
            kinds = {"streamed": 0.0, "held": 1.0} if copies <= HELD_COPIES else {"streamed": 0.0}
            found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
            for _ in range(arguments.runs):
                for kind, share in kinds.items():
                    found[kind].append(_in_a_process(folder, share, arguments.steps))
                    print(copies, kind, found[kind][-1], flush=True)
            shutil.rmtree(folder)
            for kind, runs in found.items():
                medians = {name: round(median([run[name] for run in runs]), 2) for name in runs[0]}
                rows.append({"pictures": count, "kind": kind, **medians, "runs": runs})
    print(write_result("streaming", {"batch": BATCH, "steps": arguments.steps, "rows": rows}).relative_to(ROOT))


def _write_copies(data: Any, folder: Path, copies: int) -> int:
    """Write a dataset whose train split is that of `data` and its val split, `copies` times; return its size."""
    from components.shared.data.dataset import SPLITS
    from tests.dataset_writer import DatasetWriter

    folder.mkdir()
    sources = {name: ["train", "val"] * copies if name == "train" else [name] for name in SPLITS}
    counts = {name: sum(data.counts[source] for source in sources[name]) for name in SPLITS}
    writer = DatasetWriter(folder, classes=data.classes, image_shape=data.image_shape, counts=counts)
    for name in SPLITS:
        for source in sources[name]:
            for images, labels in data.shards(source):
                writer.append(name, images, labels)
    writer.finish(name=data.document.name, seconds={})
    return int(counts["train"])


def _in_a_process(folder: Path, share: float, steps: int) -> dict[str, float]:
    command = [sys.executable, "bench/streaming.py", "--child", f"{folder},{share},{steps}"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def _child(folder: str, share: str, steps: str) -> None:
    """Train for some steps, and print images per second and the memory that the training has added, in MiB."""
    from components.shared.data.dataset import open_dataset
    from components.shared.parameters.training import Settings
    from components.shared.training import batches
    from components.shared.training.distributed.process_group import SINGLE
    from components.shared.training.loop import Training

    batches.RESIDENT_SHARE = float(share)
    before = _anonymous_mib()
    settings = Settings.of(batch_size=BATCH, epochs=1000)
    training = Training(settings, open_dataset(folder), SINGLE, seed=0)
    most, started = 0.0, time.perf_counter()
    for number, _ in enumerate(training.steps(), 1):
        if number % 50 == 0:
            most = max(most, _anonymous_mib())
        if number == int(steps):
            break
    rate = int(steps) * BATCH / (time.perf_counter() - started)
    print(json.dumps({"images_per_second": round(rate, 1), "added_mib": round(most - before, 1)}))


def _anonymous_mib() -> float:
    """Return the anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


if __name__ == "__main__":
    main()
