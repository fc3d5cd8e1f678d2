"""What a real cluster answered (Kubernetes 1.34, KFP 2.17, Argo 4.0.5), cut to what tests need, from recorded/."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kfp_server_api
from kubernetes import client

FOLDER = Path(__file__).parent / "recorded"


def run_of(name: str) -> kfp_server_api.V2beta1Run:
    """Return a run: `stale`, `killed`, `stopped`, `unschedulable` or `stopped-after-retry`."""
    return _run(_read("runs.json")[name])


def polled_run() -> list[kfp_server_api.V2beta1Run]:
    """Return a run that succeeds, as it was read from its start to its end."""
    return [_run(document) for document in _read("run-polled.json")]


def ended_run() -> kfp_server_api.V2beta1Run:
    """Return that run as it was read at its end."""
    return _run(_read("run-polled.json")[-1])


def pod_of(name: str) -> client.V1Pod:
    """Return a pod: `unschedulable`, `oom-killed`, `image-not-found` and the like."""
    return _kubernetes(_read("pods.json")[name]["pod"], "V1Pod")


def node_pod() -> client.V1Pod:
    """Return the pod of a node of a distributed training, which runs."""
    return _kubernetes(_read("trainjob.json")["pod"], "V1Pod")


def trainjob() -> Any:
    """Return a TrainJob that runs."""
    return _read("trainjob.json")["running"]


def workflow() -> Any:
    """Return the Workflow of run `stale`, with compressed nodes."""
    return _read("workflow-compressed.json")


def log_of_evaluate() -> str:
    """Return the first lines of an evaluation's log: the launcher's and KFP's."""
    return (FOLDER / "evaluate.log").read_text()


def _read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


def _run(document: Any) -> Any:
    return kfp_server_api.ApiClient().deserialize(SimpleNamespace(data=json.dumps(document)), "V2beta1Run")


def _kubernetes(document: Any, kind: str) -> Any:
    return client.ApiClient(client.Configuration()).deserialize(SimpleNamespace(data=json.dumps(document)), kind)
