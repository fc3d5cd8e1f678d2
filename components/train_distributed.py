"""Step train-distributed: a prepared dataset -> a model folder as step train makes it, trained by a job of many nodes.

The nodes are those of a TrainJob of Kubeflow Trainer. They read the data from the store and hand the model over by it;
this step only waits. A retried step goes on waiting for the job that is there.
"""

import os
import time
from pathlib import Path

from components.shared.core import log
from components.shared.core.code_digest import code_digest
from components.shared.core.errors import CorruptDataError, TransientError, UserError
from components.shared.core.files import Document, new_folder
from components.shared.core.step import step
from components.shared.data.dataset import open_dataset
from components.shared.parameters import check
from components.shared.storage import lease
from components.shared.storage.client import open_store
from components.shared.storage.errors import NoSuchObject
from components.shared.training.distributed.handoff import Job, job_name
from components.shared.training.distributed.trainjob import (
    ABSENT,
    ACTIVE,
    FAILED,
    WORKER,
    TaskConfig,
    TrainJobs,
    Work,
    open_jobs,
)

SECONDS = 5.0  # between two looks at the job
RENEWAL_SECONDS, LAPSE_SECONDS = 30.0, 300.0  # of the lease under which the nodes work
SUBMISSIONS = 3  # of a job that is lost or stops by itself
KEPT = "what checkpoints hold is kept, run it again"


@step
def train_distributed(
    *,
    dataset: str | Path,
    network: str,
    activation: str,
    pooling: str,
    bias: bool,
    pretrained: str,
    frozen_stages: int,
    optimizer: str,
    schedule: str,
    learning_rate: float,
    weight_decay: float,
    batch_size: str,
    accumulate: int,
    clip_norm: float,
    epochs: int,
    label_smoothing: float,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
    flip: bool,
    mixup: float,
    cutmix: float,
    ema_decay: float,
    patience: int,
    precision: str,
    torch_compile: bool,
    deterministic: bool,
    seed: int,
    threads: int,
    nodes: int,
    gpus: str,
    store: str,
    checkpoint_seconds: int,
    task_config: TaskConfig,
    model: str | Path,
) -> None:
    """Train as step train does, on `nodes` machines with `gpus` GPUs each, and fetch the model to folder `model`.

    The job's pods get what `task_config` says. Raises UserError if a parameter is out of its range, there is no
    `store`, the dataset is not in it, Trainer or a right is missing, or a node reports one, and TransientError if their
    processes died too often; the checkpoints stay in the store.
    """
    given = dict(locals())
    run = {name: given.pop(name) for name in ("seed", "threads", "checkpoint_seconds")}
    for name in ("dataset", "nodes", "store", "task_config", "model"):
        del given[name]
    check(**given, **run, nodes=nodes, store=store)
    if not store:
        raise UserError("store= is empty, by which nodes get the data and hand over the model; give store=s3://...")
    data = open_dataset(dataset)
    if "shards" not in data.document:
        raise UserError(f"{dataset} holds the data itself, which other nodes cannot read; prepare it by handover_mib=0")
    determining = {**given, **run, "nodes": nodes, "dataset": data.digest, "code_version": code_digest(WORKER)}
    del determining["checkpoint_seconds"]
    job = Job(open_store(store, os.environ), job_name(**determining))
    run_id, image, account = (os.environ.get(name, "") for name in ("RUN_ID", "STEP_IMAGE", "SERVICE_ACCOUNT"))
    work = Work(job.uri, nodes, max(1, int(gpus)), run_id, image, account)
    with open_jobs(task_config) as jobs, new_folder(model) as folder:
        with lease.hold(open_store(store, os.environ), job.lease, RENEWAL_SECONDS, LAPSE_SECONDS):
            result = _wait(jobs, job, {"dataset": data.document, "parameters": given, **run}, work)
        _hand_over(jobs, job, result, folder)


def _wait(jobs: TrainJobs, job: Job, task: Document, work: Work) -> Document:
    """Submit the job if it does not exist, wait, and return its result. Raises TransientError if it keeps dying."""
    submissions, told = 0, ""
    if jobs.state(job.name) == ACTIVE:
        log.info(f"goes on with TrainJob {job.name}, which an earlier attempt has submitted")
    with jobs.show_logs(job.name):
        while True:
            state = jobs.state(job.name)  # first: what has ended by now has told how
            result = job.result()
            if result:
                return result
            if state == FAILED and submissions:
                raise TransientError(
                    f"TrainJob {job.name} failed, for a process of it died too often, see above; {KEPT}"
                )
            if state == ACTIVE:
                told = _tell(jobs.obstacle(job.name), told)
            elif submissions == SUBMISSIONS:
                raise TransientError(f"TrainJob {job.name} was lost {submissions} times; {KEPT}")
            else:
                _submit(jobs, job, task, work, state)
                submissions += 1
            time.sleep(SECONDS)


def _submit(jobs: TrainJobs, job: Job, task: Document, work: Work, state: str) -> None:
    if state != ABSENT:  # it ended without a result, as where nobody waited for it
        jobs.delete(job.name)
    job.write(task)
    jobs.submit(job.name, work)
    log.info(f"submitted TrainJob {job.name}: {work.nodes} nodes with {work.processes} processes each")


def _tell(obstacle: str, told: str) -> str:
    if obstacle and obstacle != told:
        log.info(f"waits for a node: {obstacle}")
    return obstacle or told


def _hand_over(jobs: TrainJobs, job: Job, result: Document, folder: Path) -> None:
    """Fetch the model, and leave neither the job nor its files behind; UserError with the mistake that it told."""
    try:
        job.fetch(result.get("files", {}), folder)
    except NoSuchObject:
        raise TransientError(f"another run has just taken the model of TrainJob {job.name}; {KEPT}") from None
    except CorruptDataError:
        job.remove()  # or another attempt would find the same
        raise
    jobs.delete(job.name)
    job.remove()
    if "mistake" in result:
        raise UserError(result["mistake"])
