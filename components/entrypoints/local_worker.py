"""One process of a training on this machine, started and restarted by torchrun, see launch.py.

python -m components.entrypoints.local_worker FOLDER
"""

import sys
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import UserError
from components.shared.core.files import new_file
from components.shared.training.distributed.task import RESULT, TASK, TaskDocument, result_json


def main(folder: Path) -> None:
    """Do the task in the folder and leave the model there; exit with 2 after a UserError, which is stored there."""
    try:
        TaskDocument.read(folder / TASK).train(folder)
    except UserError as error:
        with new_file(folder / RESULT) as file:
            file.write(result_json(error))
        sys.exit(2)


if __name__ == "__main__":
    with log.named("train"):
        main(Path(sys.argv[1]))
