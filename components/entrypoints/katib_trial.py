"""A trial of a Katib experiment: one training on a prepared dataset in the store, with a log that Katib reads.

python -m components.entrypoints.katib_trial dataset=s3://bucket/prefix/datasets/<recipe> learning_rate=0.02 ...

All parameters of a training are required; manifests/katib/experiment.yaml gives them. After each epoch it prints a line
such as `validation_accuracy=0.9831`. The model is not stored: to get one, run the pipeline with the best parameters.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.dataset_store import open_stored_dataset
from components.shared.parameters import check
from components.shared.training.engine import train_model
from components.shared.training.history import Epoch
from components.shared.training.settings import Settings, read_settings

TEXTS = ("batch_size", "gpus")  # parameters of the pipeline that are texts, although numbers as settings
RUN: dict[str, type] = {"dataset": str, "seed": int, "threads": int}


def run(words: Sequence[str]) -> None:
    """Train with the parameters in `words`, `name=value` each. Raises UserError if one is wrong, missing or unknown."""
    parameters = _read_parameters(words)
    dataset, seed, threads = (parameters.pop(name) for name in RUN)
    check(seed=seed, threads=threads)
    settings = read_settings(parameters)
    with tempfile.TemporaryDirectory() as scratch:
        data, folder = open_stored_dataset(dataset, Path(scratch)), Path(scratch) / "model"
        folder.mkdir()
        arguments: dict[str, Any] = {"seed": seed, "threads": threads, "store": "", "checkpoint_seconds": 1}
        train_model(settings, data, **arguments, folder=folder, stop=_print_accuracy)


def _read_parameters(words: Sequence[str]) -> dict[str, Any]:
    kinds = {field.name: str if field.name in TEXTS else field.type for field in fields(Settings)} | RUN
    given = dict(word.partition("=")[::2] for word in words)
    if given.keys() != kinds.keys():
        missing, unknown = sorted(kinds.keys() - given.keys()), sorted(given.keys() - kinds.keys())
        raise UserError(f"parameters missing: {missing}, unknown: {unknown}", f"give each of {', '.join(kinds)} once")
    return {name: _value(name, given[name], kind) for name, kind in kinds.items()}


def _print_accuracy(epochs: Sequence[Epoch]) -> None:
    """Print the last accuracy with fixed digits: Katib's filter accepts no exponent."""
    print(f"validation_accuracy={epochs[-1].val_accuracy:.6f}", flush=True)


def _value(name: str, text: str, kind: Any) -> Any:
    try:
        return {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UserError(f"{name}={text} has the wrong type", f"give a value of type {kind.__name__}") from None


if __name__ == "__main__":
    try:
        with log.named("trial"):
            run(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
