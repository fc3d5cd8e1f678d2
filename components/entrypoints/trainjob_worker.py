"""One process of a training on many machines, started and restarted by torchrun on each node of a TrainJob.

torchrun ... -m components.entrypoints.trainjob_worker s3://bucket/prefix/jobs/<name>

It exits with 0, so that nothing restarts it, once the model or an error is in the store, or if the step that waits for
it is gone.
"""

import os
import sys
import tempfile
from pathlib import Path

from components.shared.core import log
from components.shared.core.errors import TransientError, UserError
from components.shared.storage.client import open_store
from components.shared.storage.lease import Lease
from components.shared.training.distributed.handoff import FOLDER, Job


def main(uri: str) -> None:
    """Run the job in the store; the first process delivers the model. Raises TransientError for torchrun to retry."""
    store, _, name = uri.rpartition(f"/{FOLDER}/")
    job = Job(open_store(store, os.environ), name)
    lease = Lease(open_store(store, os.environ), job.lease)
    if job.result() is not None or lease.is_lapsed():
        log.info(f"nothing is left to do for {uri}")
        return
    lease.watch(_stop)
    try:
        with tempfile.TemporaryDirectory() as folder:
            job.read().train(Path(folder))
            if os.environ.get("RANK", "0") == "0":
                job.succeed(Path(folder))
    except TransientError:
        raise
    except UserError as error:
        job.fail(error)


def _stop() -> None:
    """End this process at once: it may be waiting for another one that has ended."""
    log.info("stopped: the step that waited for it is gone; checkpoints stay in the store")
    os._exit(0)


if __name__ == "__main__":
    with log.named("train"):
        main(sys.argv[1])
