"""The rows of a table of predictions: the program of a package, and the parts that are written one after the other.

All that determines a row is reached from here: the digest of this code is part of the key of stored predictions.
"""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_file
from components.shared.data.dataset import Images
from components.shared.evaluation.exported_model import PackageDocument
from components.shared.evaluation.inference import Classify, load_onnx
from components.shared.evaluation.metrics import Probabilities
from components.shared.prediction.inputs import Batch, Inputs
from components.shared.prediction.table import Part, part_path


class Program(NamedTuple):
    """An exported model that predicts, and its name for the table."""

    package: PackageDocument
    classify: Classify
    model: str


class Timed:
    """A classifier that counts the seconds that it takes."""

    def __init__(self, classify: Classify) -> None:
        self._classify = classify
        self.seconds = 0.0

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Return the probabilities of the images."""
        started = time.monotonic()
        found = self._classify(images)
        self.seconds += time.monotonic() - started
        return found


def open_program(onnx: Path, package: Path, model: str, threads: int) -> Program:
    """Open a package's program. Raises UserError if it is missing, or not the one that `package.json` describes."""
    document = PackageDocument.read(package)
    if not onnx.is_file():
        raise UserError(f"{onnx} is missing beside package.json", "give the folder of a whole package")
    if sha256_file(onnx) != document.files["model.onnx"].sha256:
        raise UserError(f"{onnx} differs from its digest in {package}", "download or export it again")
    return Program(document, load_onnx(onnx, threads), model)


def write_parts(
    inputs: Inputs, program: Program, folder: Path, first: int, end: int | None, rows: int
) -> Iterator[int]:
    """Predict the pictures of the parts `first` to before `end`, or to the last one, each of so many `rows`.

    Yields the number of each part that was written to the folder.
    """
    package, number = program.package, first
    last = inputs.count if end is None else min(end * rows, inputs.count)
    progress = log.Progress("predict", max(last - first * rows, 0), "pictures")
    new = partial(Part, package.classes, package.input.sizes[0], program.model, package.digest)
    part = new()
    for batch, probabilities in _classified(inputs.batches(first * rows, None if end is None else end * rows), program):
        part.add(batch, probabilities)
        progress.advance(len(batch.names))
        if len(part) == rows:
            part.write(part_path(folder, number))
            yield number
            part, number = new(), number + 1
    if len(part):
        part.write(part_path(folder, number))
        yield number


def _classified(batches: Iterable[Batch], program: Program) -> Iterator[tuple[Batch, Probabilities]]:
    """Yield batches and the probabilities of their images; the program has the next one while one becomes rows."""
    none = np.zeros((0, len(program.package.classes)), np.float32)

    def classify(batch: Batch) -> tuple[Batch, Probabilities]:
        return batch, program.classify(batch.images) if len(batch.images) else none

    before = None
    with ThreadPoolExecutor(1, "predict") as thread:
        for batch in batches:
            work = thread.submit(classify, batch)
            if before:
                yield before.result()
            before = work
        if before:
            yield before.result()
