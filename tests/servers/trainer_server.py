"""Kubeflow Trainer on the loopback interface: its part of the Kubernetes API, and processes instead of pods.

Requests are checked against the SDK's models, which are generated from Trainer's CRDs. The pods of a job start
together; if one fails, all are restarted, as often as the runtime in manifests/trainer allows: so does JobSet with a
failurePolicy. Defaults and states are those that recorded/trainjob.json shows of Trainer 2.3.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from kubernetes import client

from tests.servers.kube_server import KubeHandler, Refusal
from tests.servers.web_server import serving

ROOT = Path(__file__).parents[2]
NAMESPACE = "team"
PATH = re.compile(
    r"/(?:api/v1|apis/trainer.kubeflow.org/v1alpha1)/(?:namespaces/(?P<namespace>[^/]+)/)?(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>log))?"
)
POD_SECONDS = 0.05


TIME = "2026-01-01T00:00:00Z"


@dataclass
class Pods:
    """The processes of a job, node by node."""

    job: dict[str, Any]
    environment: Mapping[str, str]
    folder: Path
    max_restarts: int
    restarts: int = 0
    jobsets: int = 1  # made for the job so far
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    is_deleted: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)  # held while processes start or end

    @property
    def conditions(self) -> list[dict[str, str]]:
        """The conditions of the job: none before its end."""
        return list(self.job.get("status", {}).get("conditions", []))

    def start(self) -> None:
        """Start each node's process."""
        trainer, nodes = self.job["spec"]["trainer"], self.job["spec"]["trainer"]["numNodes"]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        given = {v["name"]: v["value"] for v in trainer["env"] if "value" in v}
        peers = {"PET_NNODES": str(nodes), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
        command = [sys.executable if word == "python3" else word for word in trainer["command"]]
        for rank in range(nodes):
            own = {"PET_NODE_RANK": str(rank), "PET_NPROC_PER_NODE": "auto"}
            with open(self.log(rank), "wb") as log:
                process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env={**os.environ, **self.environment, **given, **peers, **own, "PYTHONPATH": str(ROOT)},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.processes.append(process)
        self.set_status(active=1, ready=1)

    def log(self, rank: int) -> Path:
        """The log of a node's current pod."""
        return self.folder / f"{self.pod(rank)}.log"

    def pod(self, rank: int) -> str:
        """The name of a node's current pod."""
        return f"{self.job['metadata']['name']}-node-0-{rank}-{self.jobsets}{self.restarts}"

    def kill(self) -> None:
        """End all processes of all nodes, torchrun first so that it starts no others."""
        with self.lock:
            for process in self.processes:
                process.kill()
                process.wait()
            for worker in workers(self.job["spec"]["trainer"]["command"][-1]):
                kill(worker)
            self.processes.clear()

    def restart_failed(self) -> None:
        """Restart all pods whenever one has failed, until the job ends."""
        while not self._has_ended():
            threading.Event().wait(POD_SECONDS)

    def _has_ended(self) -> bool:
        with self.lock:
            if self.is_deleted:
                return True
            codes = [process.poll() for process in self.processes]
            if any(codes):
                if self.restarts == self.max_restarts:
                    self.set_status("Failed", failed=1)
                    return True
                self.kill()
                self.restarts += 1
                self.start()
            elif all(code == 0 for code in codes):
                self.set_status("Complete", succeeded=1)
                return True
            return False

    def set_status(self, condition: str = "", **counts: int) -> None:
        """Set how many of the job's one replicated job are in a state, and with `condition` how the job ended."""
        states = dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), 0)
        status: dict[str, Any] = {"jobsStatus": [{"name": "node", **states, **counts}]}
        if condition:
            ended = {"type": condition, "status": "True", "reason": "Jobs", "message": "", "lastTransitionTime": TIME}
            status["conditions"] = [ended]
        self.job["status"] = status


class TrainerServer(ThreadingHTTPServer):
    """The server; tests read and set its attributes."""

    daemon_threads = True

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.folder, self.environment = folder, environment
        documents = yaml.safe_load_all((ROOT / "manifests/trainer/runtime.yaml").read_text())
        self.runtimes = {found["metadata"]["name"]: found for found in documents}
        self.has_trainer = True
        self.is_old = False  # Trainer 2.1, without patches of a runtime
        self.denied: set[str] = set()  # for example "create trainjobs"
        self.failures = 0  # requests about jobs to answer with 503
        self.quota = ""  # why admission refuses a job
        self.unscheduled = ""  # why no pod is scheduled
        self.out_of_memory: set[int] = set()  # nodes whose container was killed at its limit
        self.jobs: dict[str, Pods] = {}
        self.submitted: list[dict[str, Any]] = []
        self.made_again: list[str] = []  # jobs whose pods started again while they were deleted
        self.conflicts = 0  # deletions to answer with 409
        self.breaches: list[str] = []

    def to_json(self, model: Any) -> Any:
        """Return a model of the API as JSON."""
        return client.ApiClient(client.Configuration()).sanitize_for_serialization(model)

    def write_kubeconfig(self, path: Path) -> None:
        """Write the file by which a client finds this server."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "loopback",
            "clusters": [{"name": "loopback", "cluster": {"server": self.url}}],
            "users": [{"name": "ada", "user": {"token": "a-token"}}],
            "contexts": [
                {"name": "loopback", "context": {"cluster": "loopback", "user": "ada", "namespace": NAMESPACE}}
            ],
        }
        path.write_text(yaml.safe_dump(document))

    def answer(self, verb: str, plural: str, name: str, query: dict[str, str], body: Any) -> Any:
        """Return the answer as JSON. Raises Refusal if the API would refuse."""
        if self.failures and plural == "trainjobs":
            self.failures -= 1
            raise Refusal(503, "etcd has no leader")
        if f"{verb} {plural}" in self.denied:
            raise Refusal(403, f'{plural}.trainer.kubeflow.org is forbidden: User "ada" cannot {verb} resource')
        if plural == "trainingruntimes" and self.has_trainer and name in self.runtimes:
            return {**self.runtimes[name], "metadata": {**self.runtimes[name]["metadata"], "namespace": NAMESPACE}}
        if plural == "trainjobs" and self.has_trainer:
            return self._answer_jobs(verb, name, query, body)
        if plural == "pods":
            jobset = re.search(r"jobset-name=([^,]+)", query.get("labelSelector", ""))
            found = self.jobs.get(jobset[1]) if jobset else None
            return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods(found))}
        raise Refusal(404, f'{plural} "{name}" not found')

    def _answer_jobs(self, verb: str, name: str, query: dict[str, str], body: Any) -> Any:
        if verb == "create":
            return self._create(query, body)
        if verb == "list":
            selector = query.get("fieldSelector") or query.get("labelSelector") or ""
            key, _, value = selector.partition("=")
            found = [p.job for p in list(self.jobs.values()) if value in (p.job["metadata"]["labels"].get(key), None)]
            if key == "metadata.name":
                found = [pods.job for own, pods in list(self.jobs.items()) if own == value]
            return {"kind": "TrainJobList", "apiVersion": "v1", "metadata": {}, "items": found}
        if name not in self.jobs:
            raise Refusal(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        if verb == "patch":
            return self._patch(self.jobs[name], body)
        if verb == "delete":
            if self.conflicts:
                self.conflicts -= 1
                raise Refusal(409, f'Operation cannot be fulfilled on trainjobs.trainer.kubeflow.org "{name}"')
            self._delete(name, is_foreground=query.get("propagationPolicy") == "Foreground")
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        return self.jobs[name].job

    def _create(self, query: dict[str, str], body: dict[str, Any]) -> Any:
        from kubeflow_trainer_api import models

        if self.is_old and query.get("fieldValidation") == "Strict":
            raise Refusal(400, 'strict decoding error: unknown field "spec.runtimePatches"')
        model = models.TrainerV1alpha1TrainJob.from_dict(body)
        assert _bare(model.to_dict()) == _bare(body), "fields that the API does not know"
        if self.quota:
            raise Refusal(403, f"trainjobs.trainer.kubeflow.org is forbidden: {self.quota}")
        name = body["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 63
        (patch,) = body["spec"]["runtimePatches"]
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
        assert "env" not in container, "Trainer refuses variables of the container node in a patch"
        if name in self.jobs:
            raise Refusal(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        _default(body)
        limit = self.runtimes["torch2kubeflow"]["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"]
        pods = self.jobs[name] = Pods(body, self.environment, self.folder, limit)
        self.submitted.append(body)
        pods.set_status(active=1)
        if not self.unscheduled:
            pods.start()
            threading.Thread(target=pods.restart_failed, daemon=True).start()
        return body

    def _delete(self, name: str, is_foreground: bool) -> None:
        """Delete a job; in the foreground it is still listed, at last without a status, until its pods are gone.

        If it has not ended and is not suspended, Trainer then makes its JobSet again, which makes new pods.
        """
        pods = self.jobs[name]
        pods.is_deleted = True
        pods.kill()
        if not is_foreground:
            del self.jobs[name]
            return
        times = {"deletionTimestamp": TIME, "deletionGracePeriodSeconds": 0}
        pods.job["metadata"] |= {**times, "finalizers": ["foregroundDeletion"], "generation": 2}
        if not pods.conditions and not pods.job["spec"]["suspend"]:
            pods.jobsets += 1
            self.made_again.append(name)
        threading.Thread(target=self._vanish, args=(name, pods.job), daemon=True).start()

    def _vanish(self, name: str, job: dict[str, Any]) -> None:
        """Take the status of a job away, and then the job."""
        threading.Event().wait(POD_SECONDS)
        job.pop("status", None)
        threading.Event().wait(POD_SECONDS)
        self.jobs.pop(name, None)

    def _patch(self, pods: Pods, body: Any) -> dict[str, Any]:
        """Suspend a job, which ends its pods."""
        assert body == {"spec": {"suspend": True}}
        pods.job["spec"]["suspend"] = True
        pods.is_deleted = True
        pods.kill()
        pods.set_status(suspended=1)
        return pods.job

    def _pods(self, found: Pods | None) -> Iterator[dict[str, Any]]:
        for rank in range(found.job["spec"]["trainer"]["numNodes"] if found else 0):
            assert found
            labels = {
                "jobset.sigs.k8s.io/jobset-name": found.job["metadata"]["name"],
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
                "batch.kubernetes.io/job-completion-index": str(rank),
            }
            condition = {"type": "PodScheduled", "status": str(not self.unscheduled), "message": self.unscheduled}
            phase = "Pending" if self.unscheduled or found.jobsets > 1 else "Running"
            pod = {
                "metadata": {"name": found.pod(rank), "labels": labels, "creationTimestamp": TIME},
                "spec": {"containers": [{"name": "node"}]},
                "status": {"phase": phase, "conditions": [condition]},
            }
            yield _killed_for_memory(pod, found.job) if rank in self.out_of_memory else pod

    def end(self) -> None:
        """End all processes."""
        for pods in list(self.jobs.values()):
            pods.is_deleted = True
            pods.kill()


def _killed_for_memory(pod: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Return the pod of a node as Kubernetes leaves it when the kernel has killed its container."""
    resources = job["spec"]["trainer"]["resourcesPerNode"]
    ended = {"reason": "OOMKilled", "exitCode": 137, "startedAt": TIME, "finishedAt": TIME}
    required = {"image": "torch", "imageID": "", "ready": False, "restartCount": 0}
    status = {"name": "node", "state": {"terminated": ended}, **required}
    pod["spec"]["containers"][0]["resources"] = resources
    pod["status"] |= {"phase": "Failed", "containerStatuses": [status]}
    return pod


def _default(job: dict[str, Any]) -> None:
    """Add the fields that the API and Trainer's webhook add to a new job."""
    job["metadata"] |= {"namespace": NAMESPACE, "creationTimestamp": TIME, "generation": 1, "resourceVersion": "1"}
    job["metadata"]["uid"] = "1"
    job["spec"] |= {"managedBy": "trainer.kubeflow.org/trainjob-controller", "suspend": False}
    job["spec"]["runtimeRef"]["apiGroup"] = "trainer.kubeflow.org"
    for patch in job["spec"]["runtimePatches"]:
        patch["time"] = TIME


def _bare(value: Any) -> Any:
    """Return a value without its empty fields."""
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items() if item not in (None, {}, [])}
    return [_bare(item) for item in value] if isinstance(value, list) else value


class Handler(KubeHandler):
    """Answers as the Kubernetes API does."""

    server: TrainerServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        found = PATH.fullmatch(parts.path)
        assert found, parts.path
        if found["sub"]:
            self._log(found["name"])
            return
        verbs = {"GET": "get" if found["name"] else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
        query, sent = dict(parse_qsl(parts.query)), json.loads(body) if body else None
        try:
            if self.command == "PATCH":
                assert self.headers["Content-Type"] == "application/merge-patch+json", self.headers["Content-Type"]
            answer = self.server.answer(verbs[self.command], found["plural"], found["name"] or "", query, sent)
            self.reply(200, answer)
        except Refusal as refusal:
            self.refuse(refusal)
        except AssertionError as breach:
            self.server.breaches.append(str(breach))
            self.refuse(Refusal(400, str(breach)))

    do_POST = do_PATCH = do_DELETE = do_GET

    def _log(self, pod: str) -> None:
        """Send a pod's log until its end."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        pods = next(p for p in list(self.server.jobs.values()) if pod.startswith(p.job["metadata"]["name"]))
        with open(pods.folder / f"{pod}.log", "rb") as file:
            while True:
                is_over = pods.is_deleted or pods.conditions or pods.pod(0) != pod
                self.wfile.write(file.read())
                self.wfile.flush()
                if is_over:
                    break
                threading.Event().wait(POD_SECONDS)
        self.close_connection = True


@contextmanager
def trainer_server(folder: Path, environment: Mapping[str, str]) -> Iterator[TrainerServer]:
    """Yield a running server; at the end of the context it is stopped with its processes."""
    with serving(TrainerServer(folder, environment)) as server:
        try:
            yield server
        finally:
            server.end()
        assert not server.breaches, server.breaches


def workers(uri: str) -> list[int]:
    """Return the processes that work on the job at `uri`, without those of torchrun."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if uri.encode() in words and b"torch.distributed.run" not in words:
            found.append(int(path.parent.name))
    return found


def kill(process: int) -> None:
    """End a process as a lack of memory does, if it still runs."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
