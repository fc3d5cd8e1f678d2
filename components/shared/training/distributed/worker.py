"""One process of a training, started by torchrun, see launch.py.

python -m components.shared.training.distributed.worker FOLDER
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import write_json

TASK, MISTAKE = "task.json", "mistake.json"  # in the folder


def main(folder: Path) -> None:
    """Do the task that lies in the folder, and leave the model there."""
    with mistakes_told(folder / MISTAKE):
        from components.shared.data.dataset import open_dataset
        from components.shared.training.engine import train_model
        from components.shared.training.settings import Settings

        task = json.loads((folder / TASK).read_text())
        train_model(
            Settings(**task["settings"]),
            open_dataset(task["dataset"]),
            seed=task["seed"],
            threads=task["threads"],
            store=task["store"],
            checkpoint_seconds=task["checkpoint_seconds"],
            folder=folder,
        )


@contextmanager
def mistakes_told(file: Path) -> Iterator[None]:
    """Write what the user can mend to a file, and exit by 2."""
    try:
        yield
    except UserError as error:
        write_json(file, {"message": str(error), "is_outage": isinstance(error, TransientError)})
        sys.exit(2)


if __name__ == "__main__":
    with log.named("train"):
        main(Path(sys.argv[1]))
