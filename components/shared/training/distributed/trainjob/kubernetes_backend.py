"""TrainJobs in a namespace of a cluster, by the Kubernetes API.

The SDK can neither refer to Secrets in a job's variables nor select jobs by label, so jobs are created, listed and
deleted as custom objects.
"""

import json
import logging
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from kubeflow.trainer import KubernetesBackendConfig, TrainerClient
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.shared.core.errors import UserError
from components.shared.core.workflow import RUN_LABEL
from components.shared.storage.retry import TRANSIENT, Retries, reason_of
from components.shared.training.distributed.trainjob.backend import POLL_SECONDS, JobState, Trouble
from components.shared.training.distributed.trainjob.log_tail import tail_log
from components.shared.training.distributed.trainjob.manifest import (
    GROUP,
    PLURAL,
    RUNTIME,
    RUNTIME_MANIFESTS,
    RUNTIMES,
    VERSION,
    JobSpec,
    TaskConfig,
    manifest,
)

TIMEOUT_SECONDS = (5, 30)  # to connect, to answer
RANK = "batch.kubernetes.io/job-completion-index"  # Kubernetes' label of a node's pod
ENDS_WITHIN = 60  # polls, in which the nodes of a job with a result end
CONFLICT = 409
SUSPEND = {"spec": {"suspend": True}}  # a merge patch, by which a JobSet that Trainer makes again has no pods


class _NotFound(Exception):
    """The API answered 404."""


class _Conflict(Exception):
    """The API answered 409: the object exists already, or was just changed by another."""


class KubernetesBackend:
    """A TrainJobBackend for a cluster; each method does what TrainJobBackend says.

    All raise UserError if Trainer or a permission is missing, and TransientError if the API cannot be reached.
    """

    def __init__(self, config: TaskConfig | None = None, poll_seconds: float = POLL_SECONDS) -> None:
        """Connect to the cluster of this pod; `config` is needed to submit jobs."""
        logging.getLogger("kubeflow").setLevel(logging.ERROR)  # it warns if it may not read Trainer's version
        self._client = TrainerClient(KubernetesBackendConfig())
        self._config, self._poll_seconds = config, poll_seconds
        backend: Any = self._client.backend
        self._api, self._core, self._namespace = backend.custom_api, backend.core_api, backend.namespace

    def state(self, name: str) -> JobState:
        """Return the state of a job, by its conditions."""
        with _trainer_required():
            found = self._list(field_selector=f"metadata.name={name}")
        conditions = found[0].get("status", {}).get("conditions", []) if found else []
        types = {condition["type"] for condition in conditions if condition["status"] == "True"}
        for state in (JobState.COMPLETE, JobState.FAILED):
            if state.value in types:
                return state
        return JobState.ACTIVE if found else JobState.ABSENT

    def submit(self, name: str, spec: JobSpec) -> None:
        """Create a job. Raises UserError also if the runtime is missing or the API refuses the job."""
        self._check_runtime()
        assert self._config
        body = manifest(name, spec, self._config)
        with _trainer_required(), suppress(_Conflict):
            # Strictly: a Trainer before 2.2 would silently drop the fields that it does not know.
            create = self._api.create_namespaced_custom_object
            self._call(create, *self._path(PLURAL), body, field_validation="Strict")

    def delete(self, name: str) -> None:
        """Let the nodes of a job end, delete it, and wait until its pods are gone too.

        Trainer would make the JobSet, and so the pods, of a job again that is deleted while its nodes run.
        """
        for _ in range(ENDS_WITHIN):
            if self.state(name) != JobState.ACTIVE:
                break
            threading.Event().wait(self._poll_seconds)
        self._delete(name)
        while self.state(name) != JobState.ABSENT:
            threading.Event().wait(self._poll_seconds)

    def delete_all(self, run_id: str) -> list[str]:
        """Delete the jobs with the label of a run, without waiting, and return their names."""
        try:
            names = [found["metadata"]["name"] for found in self._list(label_selector=f"{RUN_LABEL}={run_id}")]
        except _NotFound:
            return []
        for name in names:
            with suppress(UserError, _NotFound, _Conflict):  # a Role of earlier versions has no right to it
                self._call(self._api.patch_namespaced_custom_object, *self._path(PLURAL), name, SUSPEND)
            self._delete(name)
        return names

    def _delete(self, name: str) -> None:
        """Delete a job, which stays until all that belongs to it is gone."""
        with suppress(_NotFound):
            delete = self._api.delete_namespaced_custom_object
            transient = {*TRANSIENT, CONFLICT}
            self._call(delete, *self._path(PLURAL), name, propagation_policy="Foreground", transient=transient)

    def trouble(self, name: str) -> Trouble:
        """Return why a pod is not scheduled or a container not started, and which was killed for want of memory."""
        selector = f"jobset.sigs.k8s.io/jobset-name={name}"
        with suppress(UserError, _NotFound):  # a training must not fail because of this
            pods = self._call(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
            reasons = (next(filter(None, map(find, pods.items)), "") for find in (_pending_reason, _killed_reason))
            return Trouble(*reasons)
        return Trouble()

    def show_logs(self, name: str) -> AbstractContextManager[None]:
        """Print the log of the first node's pod."""
        return tail_log(self._client, name, follow=True, poll_seconds=self._poll_seconds)

    def _check_runtime(self) -> None:
        try:
            self._call(self._api.get_namespaced_custom_object, *self._path(RUNTIMES), RUNTIME)
        except _NotFound:
            raise UserError(
                f"there is no TrainingRuntime {RUNTIME} in namespace {self._namespace}",
                f"kubectl apply -n {self._namespace} -k {RUNTIME_MANIFESTS}",
            ) from None

    def _list(self, **selector: Any) -> list[dict[str, Any]]:
        listed = self._call(self._api.list_namespaced_custom_object, *self._path(PLURAL), **selector)
        return list(listed["items"])

    def _path(self, plural: str) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self._namespace, plural

    def _call(
        self, call: Callable[..., Any], *arguments: Any, transient: Container[int] = TRANSIENT, **options: Any
    ) -> Any:
        """Return what the API answers; transient failures are retried."""
        retries = Retries("the Kubernetes API", "run it again within minutes, for as long a submitted job continues")
        while True:
            try:
                return call(*arguments, **options, _request_timeout=TIMEOUT_SECONDS)
            except ApiException as error:
                if error.status not in transient:
                    raise _refusal(error) from None
                retries.failed(f"answered {error.status}")
            except HTTPError as error:
                retries.failed(reason_of(error))


@contextmanager
def _trainer_required() -> Iterator[None]:
    try:
        yield
    except _NotFound:
        raise UserError(
            "there is no Kubeflow Trainer 2 in this cluster",
            "install it (2.2 or newer), or run the graph training with nodes=1",
        ) from None


def _refusal(error: ApiException) -> Exception:
    try:
        message = str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        message = str(error.reason)
    if error.status == 404:
        return _NotFound(message)
    if error.status == CONFLICT:
        return _Conflict(message)
    return UserError(f"the Kubernetes API refuses ({error.status}): {message}", _remedy(error.status, message))


def _remedy(status: int, message: str) -> str:
    if status == 403 and " cannot " in message:  # by RBAC; admission and quotas answer 403 too
        return "grant this permission, see docs/cluster.md"
    if "strict decoding error" in message:
        return "install Kubeflow Trainer 2.2 or newer"
    return "see python pipeline.py doctor --graph distributed"


def _pending_reason(pod: Any) -> str:
    conditions = pod.status.conditions or []
    unscheduled = [c.message for c in conditions if c.type == "PodScheduled" and c.status == "False" and c.message]
    waiting = [c.state.waiting for c in pod.status.container_statuses or [] if c.state and c.state.waiting]
    reasons = [*map(str, unscheduled), *(f"{w.reason}: {w.message}" for w in waiting if w.message)]
    return reasons[0] if reasons else ""


def _killed_reason(pod: Any) -> str:
    for status in pod.status.container_statuses or []:
        if status.state and status.state.terminated and status.state.terminated.reason == "OOMKilled":
            container = next(one for one in pod.spec.containers if one.name == status.name)
            limit = ((container.resources and container.resources.limits) or {}).get("memory", "its machine's")
            return f"node {pod.metadata.labels[RANK]} was killed for want of memory: its limit is {limit}"
    return ""
