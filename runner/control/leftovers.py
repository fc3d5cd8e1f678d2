"""What a run has in the cluster: its pods, and the TrainJobs of a distributed training with theirs."""

from collections.abc import Iterator
from typing import Any

import kubernetes

from components.shared.core.workflow import RUN_LABEL
from runner.cluster.connection import Connection
from runner.cluster.kube import kube_errors
from runner.cluster.rest import ApiError
from runner.cluster.watch.nodes import GROUP, JOB_LABEL, JOBS, VERSION

ACTIVE = "status.phase!=Succeeded,status.phase!=Failed"


class Leftovers:
    """The pods that have not ended, and the TrainJobs, of a run; `unseen` says by kind why they cannot be seen."""

    def __init__(self, connection: Connection, run_id: str, has_jobs: bool) -> None:
        self._kube: Any = connection.kube
        self._namespace, self._run_id = connection.namespace, run_id
        self._kinds = {"pods": self._pods, **({"TrainJobs": self._trainjobs} if has_jobs else {})}
        self._jobs: set[str] = set()  # seen so far: their pods outlive them
        self.unseen = {} if connection.kube else {"pods": "give --context to see them"}

    @property
    def seen(self) -> list[str]:
        """Return the kinds that can be seen."""
        return [kind for kind in self._kinds if kind not in self.unseen and "pods" not in self.unseen]

    def find(self) -> list[str] | None:
        """Return the names of what is there; None if nothing is, as far as it can be seen."""
        found = [name for kind in self.seen for name in self._names(kind)]
        return found or (None if self.unseen else [])

    def _names(self, kind: str) -> list[str]:
        try:
            return list(self._kinds[kind]())
        except ApiError as error:
            if error.status not in (401, 403):
                raise
            self.unseen[kind] = str(error)
            return []

    def _pods(self) -> Iterator[str]:
        return self._active_pods(f"{RUN_LABEL}={self._run_id}")

    def _active_pods(self, labels: str) -> Iterator[str]:
        with kube_errors(f"list pods in namespace {self._namespace}"):
            found = self._kube.list_namespaced_pod(
                self._namespace, label_selector=labels, field_selector=ACTIVE, _request_timeout=30
            )
        yield from (f"pod {pod.metadata.name}" for pod in found.items)

    def _trainjobs(self) -> Iterator[str]:
        names = [job["metadata"]["name"] for job in _trainjobs(self._kube, self._namespace, self._run_id)]
        self._jobs.update(names)
        yield from (f"TrainJob {name}" for name in names)
        for name in sorted(self._jobs):
            yield from self._active_pods(f"{JOB_LABEL}={name}")


def _trainjobs(kube: kubernetes.client.CoreV1Api, namespace: str, run_id: str) -> list[Any]:
    """Return the TrainJobs of a run; none without Trainer in the cluster."""
    api = kubernetes.client.CustomObjectsApi(kube.api_client)
    try:
        with kube_errors(f"list TrainJobs in namespace {namespace}"):
            found = api.list_namespaced_custom_object(
                GROUP, VERSION, namespace, JOBS, label_selector=f"{RUN_LABEL}={run_id}", _request_timeout=30
            )
    except ApiError as error:
        if error.status != 404:
            raise
        return []
    return list(found["items"])
