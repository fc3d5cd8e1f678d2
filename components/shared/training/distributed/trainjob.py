"""TrainJobs of Kubeflow Trainer 2: submitted, followed and deleted; without a cluster, processes of this machine.

Both by the SDK `kubeflow`. It can neither refer to Secrets in a job's variables nor select jobs by label, so that in a
cluster jobs are made, listed and deleted as custom objects.
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.shared.core.errors import TransientError, UserError
from components.shared.core.files import Document
from components.shared.storage.retry import ATTEMPTS, TRANSIENT, pause, reason_of

READS = ("components.entrypoints.trainjob_worker",)
(WORKER,) = READS  # that runs on the nodes

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
RUNTIME, RUNTIMES = "torch2kubeflow", "trainingruntimes"  # manifests/trainer/runtime.yaml
NODE = "node"  # what the runtime calls its job and its container
FIRST = (f"{NODE}-0", "train")  # what the SDK calls the first node, in a cluster and on this machine
RUN_LABEL = "pipeline/runid"  # as on the pods of a run
OURS = {"app.kubernetes.io/part-of": "torch2kubeflow"}
ABSENT, ACTIVE, COMPLETE, FAILED = "absent", "active", "Complete", "Failed"
SECONDS = (5, 30)  # to connect, to answer
RESTARTS = 3  # of the processes in a pod, before the pod is lost
LOG_SECONDS = 1.0
MANIFESTS = "manifests/trainer"


class TaskConfig(Protocol):
    """What KFP would have given to a step's pod, as `kfp.dsl.TaskConfig`; all None on this machine."""

    resources: Document | None
    node_selector: dict[str, str] | None
    tolerations: list[Document] | None
    env: list[Document] | None
    volumes: list[Document] | None
    volume_mounts: list[Document] | None


class Work(NamedTuple):
    """What the nodes of a job do: run so many processes each on the job at an address, for a run of the pipeline."""

    uri: str
    nodes: int
    processes: int  # of each node
    run_id: str
    image: str
    account: str  # the service account of its pods

    def command(self, python: str, *options: str) -> list[str]:
        """The command of each node; torchrun reads the others' addresses from the variables that Trainer sets."""
        torchrun = [python, "-m", "torch.distributed.run", *options, "--max-restarts", str(RESTARTS)]
        return [*torchrun, "-m", WORKER, self.uri]


class TrainJobs(Protocol):
    """Where jobs run."""

    def state(self, name: str) -> str:
        """ABSENT, ACTIVE, COMPLETE or FAILED."""

    def submit(self, name: str, work: Work) -> None:
        """Make a job; one of that name that another has made just now is left as it is."""

    def delete(self, name: str) -> None:
        """Delete a job with its processes, if it is there, and wait until it is gone."""

    def obstacle(self, name: str) -> str:
        """What keeps an active job from starting; empty where nothing does."""

    def show_logs(self, name: str) -> AbstractContextManager[None]:
        """A block in which what the first node prints is printed here too."""


@contextmanager
def open_jobs(config: TaskConfig) -> Iterator[TrainJobs]:
    """The jobs of the namespace this pod is in, with what `config` gives to their pods; else those of this machine."""
    from kubeflow.trainer import LocalProcessBackendConfig, TrainerClient

    if _is_in_cluster():
        yield ClusterJobs(_cluster_client(), config)
        return
    local = LocalJobs(TrainerClient(LocalProcessBackendConfig()))
    try:
        yield local
    finally:
        local.end()


def delete_jobs(run_id: str) -> list[str]:
    """Delete the jobs that a run has submitted, and return their names; none without a cluster or a Trainer in it."""
    return ClusterJobs(_cluster_client()).delete_all(run_id) if _is_in_cluster() else []


def _is_in_cluster() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ


def _cluster_client() -> "TrainerClient":
    from kubeflow.trainer import KubernetesBackendConfig, TrainerClient

    logging.getLogger("kubeflow").setLevel(logging.ERROR)  # that it may not read Trainer's version is no matter
    return TrainerClient(KubernetesBackendConfig())


class ClusterJobs:
    """TrainJobs in a namespace."""

    def __init__(self, client: "TrainerClient", config: TaskConfig | None = None) -> None:
        self._client, self._config = client, config
        backend: Any = client.backend
        self._api, self._core, self._namespace = backend.custom_api, backend.core_api, backend.namespace

    def state(self, name: str) -> str:
        """See TrainJobs."""
        found = self._list(field_selector=f"metadata.name={name}")
        conditions = found[0].get("status", {}).get("conditions", []) if found else []
        ended = [c["type"] for c in conditions if c["status"] == "True" and c["type"] in (COMPLETE, FAILED)]
        return ended[0] if ended else ACTIVE if found else ABSENT

    def submit(self, name: str, work: Work) -> None:
        """See TrainJobs; UserError where Trainer, the runtime or a right is missing, or the job is refused."""
        place = f"namespace {self._namespace}"
        absent = f"there is no TrainingRuntime {RUNTIME} in {place}; kubectl apply -n {self._namespace} -k {MANIFESTS}"
        self._ask(absent, self._api.get_namespaced_custom_object, *self._place(RUNTIMES), RUNTIME)
        assert self._config
        body = manifest(name, work, self._config)
        with suppress(_Exists):  # strictly, or a Trainer before 2.2 would drop what it does not know, and say nothing
            create = self._api.create_namespaced_custom_object
            self._ask(_NO_TRAINER, create, *self._place(), body, field_validation="Strict")

    def delete(self, name: str) -> None:
        """See TrainJobs."""
        with suppress(_Absent):
            options = {"propagation_policy": "Foreground"}
            self._ask("", self._api.delete_namespaced_custom_object, *self._place(), name, **options)
        while self.state(name) != ABSENT:
            threading.Event().wait(LOG_SECONDS)

    def delete_all(self, run_id: str) -> list[str]:
        """Delete those with the label of a run, without waiting, and return their names."""
        try:
            names = [found["metadata"]["name"] for found in self._list(label_selector=f"{RUN_LABEL}={run_id}")]
        except _Absent:
            return []
        for name in names:
            with suppress(_Absent):
                self._ask("", self._api.delete_namespaced_custom_object, *self._place(), name)
        return names

    def obstacle(self, name: str) -> str:
        """See TrainJobs."""
        selector = f"jobset.sigs.k8s.io/jobset-name={name}"
        with suppress(UserError):  # no training should fail for that
            pods = self._ask("", self._core.list_namespaced_pod, self._namespace, label_selector=selector)
            return next(filter(None, map(_obstacle, pods.items)), "")
        return ""

    def show_logs(self, name: str) -> AbstractContextManager[None]:
        """See TrainJobs."""
        return _shown(self._client, name, follow=True)

    def _list(self, **selector: str) -> list[Document]:
        listed = self._ask(_NO_TRAINER, self._api.list_namespaced_custom_object, *self._place(), **selector)
        return list(listed["items"])

    def _place(self, plural: str = PLURAL) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self._namespace, plural

    def _ask(self, absent: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What the API answers, after failures by chance too; UserError with the text `absent` where it answers 404."""
        for failures in range(1, ATTEMPTS + 1):
            try:
                return call(*arguments, **options, _request_timeout=SECONDS)
            except ApiException as error:
                if error.status not in TRANSIENT:
                    raise _mistake(error, absent) from None
                reason = f"answered {error.status}"
            except HTTPError as error:
                reason = reason_of(error)
            if failures < ATTEMPTS:
                pause(f"the Kubernetes API {reason}", failures)
        raise TransientError(
            f"the Kubernetes API {reason} {ATTEMPTS} times; the job goes on for minutes: run it again soon"
        )


class LocalJobs:
    """Processes of this machine in place of nodes."""

    def __init__(self, client: "TrainerClient") -> None:
        self._client = client
        self._names: list[str] = []

    def state(self, name: str) -> str:
        """See TrainJobs."""
        if name not in self._names:
            return ABSENT
        status = self._client.get_job(name).status
        return status if status in (COMPLETE, FAILED) else ACTIVE

    def submit(self, name: str, work: Work) -> None:
        """See TrainJobs."""
        from kubeflow.trainer import CustomTrainer
        from kubeflow.trainer.options import Name

        processes = str(work.nodes * work.processes)
        command = work.command(sys.executable, "--standalone", "--nproc-per-node", processes)
        runtime = self._client.get_runtime("torch-distributed")
        runtime.trainer.framework = "python"  # the SDK's new virtual environment has Python, and no torchrun
        trainer = CustomTrainer(func=_start, func_args={"command": command}, env=dict(os.environ))
        self._names.append(self._client.train(runtime=runtime, trainer=trainer, options=[Name(name)]))

    def delete(self, name: str) -> None:
        """See TrainJobs."""
        if name not in self._names:
            return
        with suppress(TimeoutError):
            self._client.wait_for_job_status(name, {COMPLETE, FAILED}, timeout=30, polling_interval=1)
        self._names.remove(name)
        self._client.delete_job(name)
        for folder in Path(tempfile.gettempdir()).glob(f"{name}*"):  # the virtual environment
            shutil.rmtree(folder, ignore_errors=True)

    def obstacle(self, name: str) -> str:
        """See TrainJobs."""
        return ""

    def show_logs(self, name: str) -> AbstractContextManager[None]:
        """See TrainJobs."""
        return _shown(self._client, name, follow=False)  # by itself it would print, and then give all lines again

    def end(self) -> None:
        """Wait for none any longer."""
        for name in self._names:
            self._client.delete_job(name)


def manifest(name: str, work: Work, config: TaskConfig) -> Document:
    """The TrainJob: our image in `work.nodes` pods, with what KFP would have given to the step's own pod."""
    variables = [variable for variable in config.env or [] if variable["name"] not in ("RUN_ID", "STEP_IMAGE")]
    variables += [{"name": "RUN_ID", "value": work.run_id}, {"name": "STEP_IMAGE", "value": work.image}]
    volumes = [volume for volume in config.volumes or [] if "emptyDir" not in volume]  # the runtime has its own
    names = {volume["name"] for volume in volumes}
    mounts = [mount for mount in config.volume_mounts or [] if mount["name"] in names]
    pod = {
        "serviceAccountName": work.account,
        "nodeSelector": config.node_selector or {},
        "tolerations": config.tolerations or [],
        "volumes": volumes,
        "containers": [{"name": NODE, "volumeMounts": mounts}],
    }
    job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
    patch = {"template": {"spec": {"replicatedJobs": [job]}}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {"name": name, "labels": {**OURS, RUN_LABEL: work.run_id}},
        "spec": {
            "runtimeRef": {"name": RUNTIME, "kind": "TrainingRuntime"},
            "trainer": {
                "image": work.image,
                "command": work.command("python3", "--nproc-per-node", str(work.processes)),
                "numNodes": work.nodes,
                "resourcesPerNode": config.resources or {},
                "env": variables,
            },
            "runtimePatches": [{"manager": "torch2kubeflow/train-distributed", "trainingRuntimeSpec": patch}],
        },
    }


class _Absent(UserError):
    """The API answered 404."""


class _Exists(UserError):
    """The API answered 409."""


_NO_TRAINER = (
    "there is no Kubeflow Trainer 2 in this cluster; install it (2.2 or newer), or run the graph training, with nodes=1"
)


def _mistake(error: ApiException, absent: str) -> UserError:
    try:
        message = str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        message = str(error.reason)
    if error.status == 404:
        return _Absent(absent)
    if error.status == 409:
        return _Exists(message)
    remedies = {403: "grant that, see manifests/README.md", 400: "install Kubeflow Trainer 2.2 or newer"}
    remedy = remedies.get(error.status, "see python pipeline.py doctor --graph distributed")
    return UserError(f"the Kubernetes API refuses ({error.status}): {message}; {remedy}")


def _obstacle(pod: Any) -> str:
    """Why a pod is not scheduled, or its container not started."""
    conditions = pod.status.conditions or []
    unscheduled = [c.message for c in conditions if c.type == "PodScheduled" and c.status == "False" and c.message]
    waiting = [c.state.waiting for c in pod.status.container_statuses or [] if c.state and c.state.waiting]
    told = [*map(str, unscheduled), *(f"{w.reason}: {w.message}" for w in waiting if w.message)]
    return told[0] if told else ""


def _start(parameters: dict[str, list[str]]) -> None:
    """Become the command; the SDK runs the source of this function alone, in a Python of its own."""
    import os

    os.execv(parameters["command"][0], parameters["command"])


@contextmanager
def _shown(client: "TrainerClient", name: str, follow: bool) -> Iterator[None]:
    """A block in which a thread prints the log of a job's first node."""
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(client, name, follow, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10 * LOG_SECONDS)


def _show(client: "TrainerClient", name: str, follow: bool, ended: threading.Event) -> None:
    """Print each line once; a pod that takes the place of another begins a new log."""
    pod, shown, is_last = "", 0, False
    while not is_last:
        is_last = ended.is_set()
        with suppress(Exception):  # by which the SDK says, among others, that there is no job, no pod, or no log yet
            steps = [step for step in client.get_job(name).steps if step.name in FIRST]
            if steps and steps[0].pod_name != pod:
                pod, shown = steps[0].pod_name, 0
            for line in islice(client.get_job_logs(name, follow=follow), shown, None):
                print(line, flush=True)
                shown += 1
        ended.wait(LOG_SECONDS)
