"""The steps of graph bigdata up to its training, one after the other in a process that may be killed at any moment.

python -m tests.faults.bigdata_run FOLDER SOURCE STORE

It says at each step's begin that it begins, and in the end what it ends in. A unit has a few pictures, and nothing is
loaded whole, so that the training streams its shards.
"""

import json
import sys
from pathlib import Path
from typing import Any

from components.bigdata.partition import partition
from components.bigdata.prepare import prepare
from components.bigdata.settle import settle
from components.shared.core.files import sha256_file
from components.shared.data.dataset import open_dataset
from components.shared.data.preparation import unit
from components.shared.data.sources.schemes import open_source
from components.shared.parameters.common import PartRecipe
from components.shared.parameters.preparation import PreprocessRecipe, ReadingRecipe
from components.shared.parameters.training import TrainingRecipe
from components.shared.training import batches
from components.train import train

SIZE = 32
UNIT = 16  # pictures
PARTS = 2
STEPS = ("partition", "prepare", "settle", "train")
TRAINING: dict[str, Any] = {"epochs": 4, "batch_size": 48, "shuffle_window": 200, "threads": 1, "checkpoint_seconds": 1}


def main(folder: Path, source: str, store: str) -> None:
    """Take all steps."""
    unit.UNIT_BYTES = UNIT * 3 * SIZE**2
    vars(batches)["free_memory"] = int  # 0
    listing, dataset, model = str(folder / "listing"), str(folder / "dataset"), folder / "model"
    parts = [str(folder / f"part{number}") for number in range(PARTS)]
    _begin("partition")
    recipe = PreprocessRecipe.of(image_size=SIZE, store=store, test_fraction=0.1, val_fraction=0.1).text()
    version = open_source(source).version()
    partition(data=source, version=version, reading=ReadingRecipe().text(), recipe=recipe, listing=listing)
    _begin("prepare")
    for number, part in enumerate(parts):
        prepare(listing=listing, planned=PartRecipe.of(part=number, parts=PARTS).text(), part=part)
    reused = sum(json.loads((Path(part) / "part.json").read_text())["reused"] for part in parts)
    _begin("settle")
    settle(listing=listing, parts=parts, dataset=dataset)
    _begin("train")
    train(dataset=dataset, recipe=TrainingRecipe.of(**TRAINING, store=store).text(), model=model)
    document = open_dataset(dataset).document.model_copy(update={"seconds": {}}).sealed().checksum
    weights = sha256_file(model / "model.safetensors")
    print(json.dumps({"dataset": document, "weights": weights, "reused": reused}), flush=True)


def _begin(step: str) -> None:
    print(f"begin {step}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
