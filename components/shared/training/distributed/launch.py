"""A training by several processes of this machine, which torchrun starts, and starts again when one dies."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from components.shared.core.errors import TransientError, UserError
from components.shared.training.distributed.process_group import check_gpus
from components.shared.training.distributed.worker import MISTAKE, TASK
from components.shared.training.settings import Settings

READS = ("components.shared.training.distributed.worker",)
(WORKER,) = READS

RESTARTS = 3


def launch(
    settings: Settings,
    dataset: str | Path,
    *,
    processes: int,
    seed: int,
    threads: int,
    store: str,
    checkpoint_seconds: int,
    folder: Path,
) -> None:
    """As train_model, by so many processes; one that dies is started again, and goes on from the newest checkpoint.

    UserError as there, and where the processes have died more often than they are started again.
    """
    check_gpus(settings.gpus)
    task = {
        "settings": asdict(settings),
        "dataset": str(Path(dataset).resolve()),
        "seed": seed,
        "threads": threads,
        "store": store,
        "checkpoint_seconds": checkpoint_seconds,
    }
    (folder / TASK).write_text(json.dumps(task))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *torchrun, "-m", WORKER, str(folder)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # until each process sets its own
    for _ in range(1 + RESTARTS):
        if subprocess.run(command, env=environment, check=False).returncode == 0:
            (folder / TASK).unlink()
            return
        if (folder / MISTAKE).is_file():
            told = json.loads((folder / MISTAKE).read_text())
            raise (TransientError if told["is_outage"] else UserError)(told["message"])
    raise TransientError(
        f"one of the {processes} processes of the training died {RESTARTS + 1} times, see above; "
        "what checkpoints hold is kept, run it again"
    )
