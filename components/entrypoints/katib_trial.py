"""A trial of a Katib experiment: one training on a prepared dataset in the store, with a log that Katib reads.

python -m components.entrypoints.katib_trial dataset=s3://bucket/prefix/datasets/<recipe> learning_rate=0.02 ...

All parameters of a training are required; manifests/katib/experiment.yaml gives them. After each epoch it prints a line
such as `validation_accuracy=0.9831`. The model is not stored: to get one, run the pipeline with the best parameters.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.data.dataset_store import open_stored_dataset
from components.shared.models.document import Epoch
from components.shared.parameters.common import Seed, Threads
from components.shared.parameters.recipe import parameter
from components.shared.parameters.training import Settings
from components.shared.training.engine import train_model


class KatibTrial(Threads, Seed, Settings):
    """The parameters of one trial."""

    dataset: str = parameter("", "The recipe in the store of a prepared dataset.")


def run(words: Sequence[str]) -> None:
    """Train with the parameters in `words`, `name=value` each. Raises UserError if one is wrong, missing or unknown."""
    given = KatibTrial.from_words(words)
    with tempfile.TemporaryDirectory() as scratch:
        data, folder = open_stored_dataset(given.dataset, Path(scratch)), Path(scratch) / "model"
        folder.mkdir()
        arguments: dict[str, Any] = {"seed": given.seed, "threads": given.threads, "store": "", "checkpoint_seconds": 1}
        train_model(given.as_settings(), data, **arguments, folder=folder, stop=_print_accuracy)


def _print_accuracy(epochs: Sequence[Epoch]) -> None:
    """Print the last accuracy with fixed digits: Katib's filter accepts no exponent."""
    print(f"validation_accuracy={epochs[-1].val_accuracy:.6f}", flush=True)


if __name__ == "__main__":
    try:
        with log.named("trial"):
            run(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
