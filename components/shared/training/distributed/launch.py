"""A training by several processes of this machine, started by torchrun and restarted when one dies."""

import os
import subprocess
import sys
from pathlib import Path

from components.shared.core.errors import TransientError, UserError
from components.shared.parameters.training import Settings
from components.shared.training.distributed.process_group import check_gpus
from components.shared.training.distributed.task import RESULT, TASK, TaskDocument, read_result

READS = ("components.entrypoints.local_worker",)
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
    """Train as train_model does, by several processes; after one died, all continue from the newest checkpoint.

    Raises UserError as train_model does, and TransientError if processes die too often.
    """
    check_gpus(settings.gpus)
    path = str(Path(dataset).resolve())
    task = TaskDocument(
        dataset=path,
        parameters=settings.values(),
        seed=seed,
        threads=threads,
        store=store,
        checkpoint_seconds=checkpoint_seconds,
    )
    task.write(folder / TASK)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *torchrun, "-m", WORKER, str(folder)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # until each process sets its own
    for _ in range(1 + RESTARTS):
        if subprocess.run(command, env=environment, check=False).returncode == 0:
            (folder / TASK).unlink()
            return
        if (folder / RESULT).is_file():
            result = read_result((folder / RESULT).read_bytes(), str(folder / RESULT))
            assert isinstance(result, UserError)  # a model lies in the folder itself
            raise result
    raise TransientError(
        f"one of the {processes} processes of the training died {RESTARTS + 1} times, see above",
        "run it again to continue from the newest checkpoint" if store else "run it again",
    )
