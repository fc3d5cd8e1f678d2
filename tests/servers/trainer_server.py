"""Kubeflow Trainer on the loopback interface: its part of the Kubernetes API, and processes in place of pods.

What is sent is held to the models of the SDK, which are made from Trainer's CRDs. A job's pods begin together; where
one fails, all begin anew, as often as the runtime in manifests/trainer allows: so does JobSet with a failurePolicy.
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

from tests.servers.kube_server import Refusal, _Handler
from tests.servers.loopback import serving

ROOT = Path(__file__).parents[2]
NAMESPACE = "team"
PATH = re.compile(
    r"/(?:api/v1|apis/trainer.kubeflow.org/v1alpha1)/(?:namespaces/(?P<namespace>[^/]+)/)?(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>log))?"
)
POD_SECONDS = 0.05


@dataclass
class Pods:
    """The processes of a job, node by node."""

    job: dict[str, Any]
    environment: Mapping[str, str]
    folder: Path
    max_restarts: int
    restarts: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    is_deleted: bool = False

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

    def log(self, rank: int) -> Path:
        """The log of a node's present pod."""
        return self.folder / f"{self.pod(rank)}.log"

    def pod(self, rank: int) -> str:
        """The name of a node's present pod."""
        return f"{self.job['metadata']['name']}-node-0-{rank}-{self.restarts}"

    def kill(self) -> None:
        """End all processes of all nodes, torchrun first, lest it start others."""
        for process in self.processes:
            process.kill()
            process.wait()
        for worker in workers(self.job["spec"]["trainer"]["command"][-1]):
            kill(worker)
        self.processes.clear()

    def look_after(self) -> None:
        """Begin all anew where one has failed, until the end."""
        while not self.is_deleted:
            codes = [process.poll() for process in self.processes]
            if any(codes):
                if self.restarts == self.max_restarts:
                    return self.end("Failed")
                self.kill()
                self.restarts += 1
                self.start()
            elif all(code == 0 for code in codes):
                return self.end("Complete")
            threading.Event().wait(POD_SECONDS)

    def end(self, how: str) -> None:
        """Tell how the job ended."""
        condition = {"type": how, "status": "True", "reason": "Jobs", "message": "", "lastTransitionTime": TIME}
        self.job["status"] = {"conditions": [condition]}


TIME = "2026-01-01T00:00:00Z"


class TrainerServer(ThreadingHTTPServer):
    """The server; what is in it may be read and set by a test."""

    daemon_threads = True

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.folder, self.environment = folder, environment
        documents = yaml.safe_load_all((ROOT / "manifests/trainer/runtime.yaml").read_text())
        self.runtimes = {found["metadata"]["name"]: found for found in documents}
        self.has_trainer = True
        self.is_old = False  # Trainer 2.1, which knows no patches of a runtime
        self.denied: set[str] = set()  # "create trainjobs" and the like
        self.unscheduled = ""  # why no pod finds a node
        self.jobs: dict[str, Pods] = {}
        self.submitted: list[dict[str, Any]] = []
        self.breaches: list[str] = []

    def to_json(self, model: Any) -> Any:
        """As the API's models are sent."""
        return client.ApiClient(client.Configuration()).sanitize_for_serialization(model)

    def write_kubeconfig(self, path: Path) -> None:
        """The file that a user of this server has."""
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
        """The answer as JSON; Refusal where there is none."""
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
            found = [p.job for p in self.jobs.values() if value in (p.job["metadata"]["labels"].get(key), None)]
            if key == "metadata.name":
                found = [pods.job for own, pods in self.jobs.items() if own == value]
            return {"kind": "TrainJobList", "apiVersion": "v1", "metadata": {}, "items": found}
        if name not in self.jobs:
            raise Refusal(404, f'trainjobs.trainer.kubeflow.org "{name}" not found')
        if verb == "delete":
            pods = self.jobs.pop(name)
            pods.is_deleted = True
            pods.kill()
            return {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        return self.jobs[name].job

    def _create(self, query: dict[str, str], body: dict[str, Any]) -> Any:
        from kubeflow_trainer_api import models

        if self.is_old and query.get("fieldValidation") == "Strict":
            raise Refusal(400, 'strict decoding error: unknown field "spec.runtimePatches"')
        model = models.TrainerV1alpha1TrainJob.from_dict(body)
        assert _bare(model.to_dict()) == _bare(body), "fields that the API does not know"
        name = body["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 63
        (patch,) = body["spec"]["runtimePatches"]
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
        assert "env" not in container, "Trainer refuses variables of the container node in a patch"
        if name in self.jobs:
            raise Refusal(409, f'trainjobs.trainer.kubeflow.org "{name}" already exists')
        body["metadata"] |= {"namespace": NAMESPACE, "creationTimestamp": TIME, "uid": "1"}
        limit = self.runtimes["torch2kubeflow"]["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"]
        pods = self.jobs[name] = Pods(body, self.environment, self.folder, limit)
        self.submitted.append(body)
        if not self.unscheduled:
            pods.start()
            threading.Thread(target=pods.look_after, daemon=True).start()
        return body

    def _pods(self, found: Pods | None) -> Iterator[dict[str, Any]]:
        for rank in range(found.job["spec"]["trainer"]["numNodes"] if found else 0):
            assert found
            labels = {
                "jobset.sigs.k8s.io/replicatedjob-name": "node",
                "batch.kubernetes.io/job-completion-index": str(rank),
            }
            condition = {"type": "PodScheduled", "status": str(not self.unscheduled), "message": self.unscheduled}
            phase = "Pending" if self.unscheduled else "Running"
            yield {
                "metadata": {"name": found.pod(rank), "labels": labels, "creationTimestamp": TIME},
                "spec": {"containers": [{"name": "node"}]},
                "status": {"phase": phase, "conditions": [condition]},
            }

    def end(self) -> None:
        """Leave no process behind."""
        for pods in self.jobs.values():
            pods.is_deleted = True
            pods.kill()


def _bare(value: Any) -> Any:
    """Without what is empty."""
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items() if item not in (None, {}, [])}
    return [_bare(item) for item in value] if isinstance(value, list) else value


class Handler(_Handler):
    """As the Kubernetes API answers."""

    server: TrainerServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        found = PATH.fullmatch(parts.path)
        assert found, parts.path
        if found["sub"]:
            return self._log(found["name"])
        verbs = {"GET": "get" if found["name"] else "list", "POST": "create", "DELETE": "delete"}
        query, sent = dict(parse_qsl(parts.query)), json.loads(body) if body else None
        try:
            return self.reply(
                200, self.server.answer(verbs[self.command], found["plural"], found["name"] or "", query, sent)
            )
        except Refusal as refusal:
            return self.refuse(refusal)
        except AssertionError as breach:
            self.server.breaches.append(str(breach))
            return self.refuse(Refusal(400, str(breach)))

    do_POST = do_DELETE = do_GET

    def _log(self, pod: str) -> None:
        """A pod's log until its end."""
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        pods = next(p for p in self.server.jobs.values() if pod.startswith(p.job["metadata"]["name"]))
        with open(pods.folder / f"{pod}.log", "rb") as file:
            while True:
                is_over = pods.is_deleted or "status" in pods.job or pods.pod(0) != pod
                self.wfile.write(file.read())
                self.wfile.flush()
                if is_over:
                    break
                threading.Event().wait(POD_SECONDS)
        self.close_connection = True


@contextmanager
def trainer_server(folder: Path, environment: Mapping[str, str]) -> Iterator[TrainerServer]:
    """A running server, gone with its processes at the end of the block."""
    with serving(TrainerServer(folder, environment)) as server:
        try:
            yield server
        finally:
            server.end()
        assert not server.breaches


def workers(uri: str) -> list[int]:
    """The processes that work on the job at that address, without those of torchrun."""
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
    """End a process as a lack of memory does; one that has ended is no mistake."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
