"""Where TrainJobs run: in the cluster that this pod is in, or else as processes of this machine.

Both backends use the SDK `kubeflow`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import NamedTuple, Protocol

from components.shared.core.pod import is_in_cluster
from components.shared.training.distributed.trainjob.manifest import JobSpec, TaskConfig

WAITING = "waiting for a node"  # the start of what step train-distributed says of a node that does not start
POLL_SECONDS = 1.0  # between two requests, while a backend waits for an end or for log lines


class JobState(Enum):
    """The state of a job; the last two are also the types of a TrainJob's conditions."""

    ABSENT = "Absent"
    ACTIVE = "Active"
    COMPLETE = "Complete"
    FAILED = "Failed"


class Trouble(NamedTuple):
    """What Kubernetes tells of the nodes of a job; empty where nothing is wrong."""

    pending: str = ""  # why one does not start
    killed: str = ""  # which one was killed for want of memory, and its limit


class TrainJobBackend(Protocol):
    """Submits, follows and deletes jobs."""

    def state(self, name: str) -> JobState:
        """Return the state of a job."""

    def submit(self, name: str, spec: JobSpec) -> None:
        """Create a job, unless another process has just created one of that name."""

    def delete(self, name: str) -> None:
        """Let a job end, for at most a minute, delete it if it exists, and wait until it is gone."""

    def trouble(self, name: str) -> Trouble:
        """Return what keeps a job's nodes from starting, or has ended one."""

    def show_logs(self, name: str) -> AbstractContextManager[None]:
        """Print what the first node prints, until the context ends."""


@contextmanager
def open_backend(config: TaskConfig, poll_seconds: float = POLL_SECONDS) -> Iterator[TrainJobBackend]:
    """Yield the backend of this pod's namespace, whose jobs' pods get what `config` says; else that of this machine."""
    if is_in_cluster():
        from components.shared.training.distributed.trainjob.kubernetes_backend import KubernetesBackend

        yield KubernetesBackend(config, poll_seconds)
        return
    from components.shared.training.distributed.trainjob.local_backend import LocalBackend

    local = LocalBackend(poll_seconds)
    try:
        yield local
    finally:
        local.close()


def delete_jobs(run_id: str) -> list[str]:
    """Delete the jobs that a run has submitted, and return their names: none without a cluster or Trainer in it."""
    if not is_in_cluster():
        return []
    from components.shared.training.distributed.trainjob.kubernetes_backend import KubernetesBackend

    return KubernetesBackend().delete_all(run_id)
