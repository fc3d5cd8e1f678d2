"""One process of a training on other machines, which torchrun starts on each of them, and starts again when it dies.

torchrun ... -m components.entrypoints.trainjob_worker s3://bucket/prefix/jobs/<name>

It ends well, and so is not started again, once the model or a mistake has been handed over, and where the step that
waits for it is gone.
"""

import os
import sys
import tempfile
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import TransientError, UserError
from components.shared.data.dataset import Dataset, check_document
from components.shared.storage.client import open_store
from components.shared.storage.lease import Lease
from components.shared.training.distributed.handoff import FOLDER, Job


def main(uri: str) -> None:
    """Run the job in the store; the first process delivers the model. Raises TransientError for torchrun to retry."""
    store, _, name = uri.rpartition(f"/{FOLDER}/")
    job = Job(open_store(store, os.environ), name)
    lease = Lease(open_store(store, os.environ), job.lease)
    if job.result() or lease.is_lapsed():
        log.info(f"nothing is left to do for {uri}")
        return
    lease.watch(_stop)
    try:
        _train(job, store)
    except TransientError:
        raise
    except UserError as error:
        job.fail(str(error))


def _train(job: Job, store: str) -> None:
    from components.shared.training.engine import train_model
    from components.shared.training.settings import read_settings  # PyTorch, for which no restart should wait

    task = job.read()
    check_document(task["dataset"], job.uri)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        train_model(
            read_settings(task["parameters"]),
            Dataset(Path(scratch), task["dataset"]),
            seed=task["seed"],
            threads=task["threads"],
            store=store,
            checkpoint_seconds=task["checkpoint_seconds"],
            folder=folder,
        )
        if os.environ.get("RANK", "0") == "0":
            job.succeed(folder)


def _stop() -> None:
    """End this process at once: it may be waiting for another one that has ended."""
    log.info("stops, for the step that waits for it is gone; checkpoints are kept")
    os._exit(0)


if __name__ == "__main__":
    with log.named("train"):
        main(sys.argv[1])
