"""A training by a TrainJob: submit it, wait for its end, and fetch the model through the store."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.storage import lease
from components.shared.storage.client import open_store
from components.shared.storage.errors import NoSuchObject
from components.shared.training.distributed.handoff import Job, job_name
from components.shared.training.distributed.task import Result, TaskDocument
from components.shared.training.distributed.trainjob.backend import (
    WAITING,
    JobState,
    TrainJobBackend,
    Trouble,
    open_backend,
)
from components.shared.training.distributed.trainjob.manifest import WORKER, JobSpec, TaskConfig

SUBMISSIONS = 3  # of a job that is deleted by others or ends without a result
AGAIN = "run it again to continue from the newest checkpoint"
MORE_MEMORY = "give more train_memory="


class Timing(NamedTuple):
    """How to wait for a job."""

    pause: Callable[[], object] = partial(time.sleep, 5.0)  # between two polls of its state
    log_seconds: float = 1.0  # between two polls of its log
    renewal_seconds: float = lease.RENEWAL_SECONDS  # of the lease under which its nodes work
    lapse_seconds: float = lease.LAPSE_SECONDS


TIMING = Timing()


def run_trainjob(task: TaskDocument, nodes: int, config: TaskConfig, folder: Path, timing: Timing = TIMING) -> None:
    """Do a task, whose dataset is a document, on several nodes, and fetch the model into `folder`.

    A job that an earlier call has submitted is resumed. Raises UserError if Trainer or a permission is missing or a
    node reports an error, and TransientError if processes die too often; checkpoints stay in the store.
    """
    name = job_name(
        **task.parameters,
        seed=task.seed,
        threads=task.threads,
        nodes=nodes,
        dataset=task.open_dataset().digest,
        code_version=code_digest(WORKER),
    )
    job = Job(open_store(task.store, os.environ), name)
    spec = _spec(job, task, nodes)
    try:
        with open_backend(config, timing.log_seconds) as backend:
            with lease.hold(
                open_store(task.store, os.environ), job.lease, timing.renewal_seconds, timing.lapse_seconds
            ):
                result = _wait(backend, job, task, spec, timing.pause)
            _finish(backend, job, result, folder)
    except CorruptDataError:
        job.remove()  # or another attempt would find the same
        raise


def _spec(job: Job, task: TaskDocument, nodes: int) -> JobSpec:
    processes = max(1, int(task.parameters["gpus"]))
    run_id, image, account = (os.environ.get(name, "") for name in ("RUN_ID", "STEP_IMAGE", "SERVICE_ACCOUNT"))
    return JobSpec(job.uri, nodes, processes, run_id, image, account)


def _wait(backend: TrainJobBackend, job: Job, task: TaskDocument, spec: JobSpec, pause: Callable[[], object]) -> Result:
    """Submit the job if it does not exist, wait, and return its result. Raises TransientError if it keeps dying."""
    submissions, told = 0, Trouble()
    if backend.state(job.name) == JobState.ACTIVE:
        log.info(f"resumed TrainJob {job.name}, which an earlier attempt submitted")
    with backend.show_logs(job.name):
        while True:
            state = backend.state(job.name)  # before the result: a job that has ended has written it by now
            result = job.result()
            if result is not None:
                return result
            trouble = backend.trouble(job.name)
            told = _log_trouble(trouble, told)
            if state == JobState.FAILED and submissions:
                raise _failure(job.name, trouble.killed)
            if state != JobState.ACTIVE and submissions == SUBMISSIONS:
                raise TransientError(f"TrainJob {job.name} was lost {submissions} times", AGAIN)
            if state != JobState.ACTIVE:
                _submit(backend, job, task, spec, state)
                submissions += 1
            pause()


def _submit(backend: TrainJobBackend, job: Job, task: TaskDocument, spec: JobSpec, state: JobState) -> None:
    if state != JobState.ABSENT:  # it ended without a result, for example because nobody waited for it
        backend.delete(job.name)
    job.write(task)
    backend.submit(job.name, spec)
    log.info(f"submitted TrainJob {job.name}: {spec.nodes} nodes with {spec.processes} processes each")


def _log_trouble(now: Trouble, told: Trouble) -> Trouble:
    """Log what is new, and return what was logged."""
    if now.pending and now.pending != told.pending:
        log.info(f"{WAITING}: {now.pending}")
    if now.killed and now.killed != told.killed:
        log.info(f"{now.killed}; {MORE_MEMORY}")
    return Trouble(now.pending or told.pending, now.killed or told.killed)


def _failure(name: str, killed: str) -> TransientError:
    if killed:
        return TransientError(f"TrainJob {name} failed: {killed}", f"{MORE_MEMORY}, and {AGAIN}")
    return TransientError(f"TrainJob {name} failed: a process died too often, see above", AGAIN)


def _finish(backend: TrainJobBackend, job: Job, result: Result, folder: Path) -> None:
    """Fetch the model, then delete the job and its files. Raises the error that ended the training, if one did."""
    if not isinstance(result, UserError):
        try:
            job.fetch(result, folder)
        except NoSuchObject:
            raise TransientError(f"another run has just fetched the model of TrainJob {job.name}", AGAIN) from None
    backend.delete(job.name)
    job.remove()
    if isinstance(result, UserError):
        raise result
