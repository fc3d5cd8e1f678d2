"""Prediction in batches beside ONNX Runtime alone: `python bench/prediction.py` (3 minutes, on an idle machine).

By turns: ONNX Runtime on pictures in memory, in batches of 256 and with its own settings; all that `predict` does with
the same pictures, once with batches that are in memory already, to the table, the page and the drift, and once from a
prepared dataset. Beside it the rate at which PNG files are read and decoded. The networks have random weights, which
take the same time.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import median, write_result
from packages import SHAPES, write_package
from pictures import write_pictures

from components.shared.core.resources import thread_count
from components.shared.data.layout.reading import Reading
from components.shared.data.raw import write_raw
from components.shared.data.sources.schemes import open_source
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.inference import Classify
from components.shared.prediction.batch import predict_all
from components.shared.prediction.inputs import Batch, Inputs
from components.shared.prediction.rows import open_program
from tests.dataset_writer import DatasetWriter

COUNTS = {"lenet5": 50_000, "resnet18": 512}
BATCH, ROUNDS, FILES = 256, 5, 1_700


def main() -> None:
    """Measure, print, and write `bench/results/prediction.json`."""
    load, found = os.getloadavg()[0], {}
    with tempfile.TemporaryDirectory() as folder:
        for network, count in COUNTS.items():
            found[network] = _measure(Path(folder) / network, network, count)
            print(network, found[network]["medians"], flush=True)
        decoded = _decoding(Path(folder), Path(folder) / "lenet5" / "package")
    print(f"{decoded:,.0f} files/s read and decoded")
    load = os.getloadavg()[0]
    write_result(
        "prediction", {"load_average": load, "batch": BATCH, "networks": found, "decoded_files_per_second": decoded}
    )


def _measure(scratch: Path, network: str, count: int) -> dict[str, Any]:
    scratch.mkdir()
    write_package(scratch / "package", network)
    images = np.random.default_rng(0).integers(0, 256, (count, *SHAPES[network]), np.uint8)
    package = PackageDocument.read(scratch / "package" / "package.json")
    _write_dataset(scratch / "dataset", package.classes, images)
    threads = thread_count(0)
    program = open_program(scratch / "package" / "model.onnx", scratch / "package" / "package.json", "m", threads)
    classify = _onnxruntime(scratch / "package" / "model.onnx", threads)
    read, kept = Inputs(scratch / "dataset", package), _Kept(scratch / "dataset", package)
    rounds = []
    for number in range(ROUNDS + 1):
        folder = scratch / f"predictions-{number}"
        alone = _seconds(lambda: [classify(images[row : row + BATCH]) for row in range(0, count, BATCH)])
        whole = _seconds(lambda: predict_all(kept, program, folder / "kept"))  # noqa: B023
        from_dataset = _seconds(lambda: predict_all(read, program, folder / "read"))  # noqa: B023
        rates = {"onnxruntime": count / alone, "predict": count / whole, "with_reading": count / from_dataset}
        rounds.append(rates | {"share": rates["predict"] / rates["onnxruntime"]})
    rounds = rounds[1:]  # the first one warms up
    return {
        "images": count,
        "medians": {name: median(one[name] for one in rounds) for name in rounds[0]},
        "rounds": rounds,
    }


class _Kept(Inputs):
    """The pictures of a dataset, in memory."""

    def __init__(self, folder: Path, package: PackageDocument) -> None:
        super().__init__(folder, package)
        self._kept = [*super().batches()]

    def batches(self, first: int = 0, end: int | None = None) -> Iterator[Batch]:
        """Yield them all."""
        return iter(self._kept)


def _onnxruntime(path: Path, threads: int) -> Classify:
    """Return what ONNX Runtime is by itself."""
    import onnxruntime  # once its telemetry is off

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def _write_dataset(folder: Path, classes: list[str], images: Any) -> None:
    folder.mkdir()
    counts = {"train": 0, "val": 0, "test": len(images)}
    writer = DatasetWriter(folder, classes=classes, image_shape=images.shape[1:], counts=counts)
    writer.append("test", images, np.zeros(len(images), np.int64))
    writer.finish(name="noise", seconds={"download": 0.0, "preprocess": 0.0})


def _decoding(scratch: Path, package: Path) -> float:
    """Return how many PNG files of digits are read and decoded in a second."""
    write_pictures(scratch / "pictures", FILES)
    source = open_source(str(scratch / "pictures"))
    (scratch / "raw").mkdir()
    found = source.fetch(scratch / "raw", Reading(needs_labels=False))
    write_raw(scratch / "raw", source="digits", version=source.version(), seconds=0.0, **found)
    inputs = Inputs(scratch / "raw", PackageDocument.read(package / "package.json"))
    return FILES / median(_seconds(lambda: [None for _ in inputs.batches()]) for _ in range(ROUNDS))


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
