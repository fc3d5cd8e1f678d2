"""The logs of the steps of a run in the cluster, from their pods or from KFP's archive."""

import json
import re
from typing import Any

import kubernetes
import urllib3

from components.shared.core.workflow import RUN_LABEL
from components.step_table import STEP_LABEL
from runner.cluster import run_state
from runner.cluster.connection import Connection
from runner.cluster.run_state import children

# Argo names a pod `workflow-template-node` and a node `workflow-node`. These are KFP's templates for a step with no
# annotation, two labels and retries, as ours are, and for one with fewer.
TEMPLATES = ("metadata-0-2-retry-system-container-impl", "retry-system-container-impl", "system-container-impl")
NODE_NAME = "workflows.argoproj.io/node-name"  # Argo's annotation: the pass of a loop and, last, the attempt
ATTEMPT = re.compile(r"\(\d+\)$")
ERROR = '{"error_message":'  # the start of KFP's error document
HINT = "give --context, or ask for the verb readLog on runs; the run's page may show it"


def read_log(connection: Connection, run: Any, step: str, times: bool = False) -> str | None:
    """Return the log of the step's last attempt, from its pod or KFP's archive; None if neither can be read.

    A pod's log can have the `times` of its lines before them.

    A step in a loop has a pod for each pass, and only the pods show which is whose: KFP's archive has one of them.
    """
    if connection.kube:
        labels = f"{RUN_LABEL}={run.run_id},{STEP_LABEL}={step}"
        log = _from_pods(connection.kube, connection.namespace, labels, times)
        if log is not None:
            return log
    for pod in _candidates(run, step):
        log = without_error(connection.read_text(f"/apis/v1alpha1/runs/{run.run_id}/nodes/{pod}/log"))
        if log is not None:
            return log
    return None


def without_error(text: str | None) -> str | None:
    """Return a log without the error document that KFP puts into an answer of status 200, or after its first part."""
    start = (text or "").rfind(ERROR)
    if text is None or start < 0:
        return text
    try:
        json.loads(text[start:])
    except ValueError:  # a line of the log itself
        return text
    return text[:start] or None


def _from_pods(kube: kubernetes.client.CoreV1Api, namespace: str, labels: str, times: bool) -> str | None:
    """Return the logs of the last attempt of each pass, of the pods with these labels; failed ones come last."""
    try:
        found = kube.list_namespaced_pod(namespace, label_selector=labels, _request_timeout=30).items
        pods = [pod for pod in found if pod.status.phase != "Pending"]  # which has no log yet
        last = {_pass_of(pod): pod for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)}
        names = [pod.metadata.name for pod in sorted(last.values(), key=lambda pod: pod.status.phase == "Failed")]
        read = kube.read_namespaced_pod_log
        options = {"container": "main", "timestamps": times, "_request_timeout": 60}
        logs = [str(read(name, namespace, **options)) for name in names]
    except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError):
        return None  # forbidden, or gone: KFP may still have it
    return "\n".join(log.rstrip() for log in logs) if logs else None


def _pass_of(pod: Any) -> str:
    """Return a name of the step's pass that is the same for all its attempts."""
    return ATTEMPT.sub("", (pod.metadata.annotations or {}).get(NODE_NAME, ""))


def _candidates(run: Any, step: str) -> list[str]:
    """Return the names under which KFP may know the step's pod, the last attempt first."""
    tasks = run_state.tasks(run)
    mine = next((task for task in tasks if task.display_name == step), None)
    if not mine:
        return []
    pods = run_state.pods_of(mine, (task for task in tasks if task.display_name == run_state.POD))
    attempts = [_pod(child, template) for pod in pods for child in children(pod)[::-1] for template in TEMPLATES]
    own = [_pod(child, template) for child in children(mine) for template in TEMPLATES]
    return attempts + own + children(mine)


def _pod(node: str, template: str) -> str:
    workflow, _, number = node.rpartition("-")
    return f"{workflow}-{template}-{number}"
