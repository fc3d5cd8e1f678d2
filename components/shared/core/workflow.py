"""The Workflow of Argo that a step runs in, asked of Kubernetes as the step's pod may: without any package."""

import json
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS = 30  # for an answer
RUN_LABEL = "pipeline/runid"  # KFP's, of a run's Workflow and pods, and ours of its TrainJobs: its id


def was_stopped(run_id: str) -> bool:
    """Return whether somebody terminated the run: KFP sets the time that its Workflow may take to 0 then.

    False on a machine that is no pod. Raises OSError if Kubernetes refuses to tell or cannot be reached.
    """
    if not is_in_pod():
        return False
    return any(_is_stopped(workflow.get("spec") or {}) for workflow in _workflows(run_id))


def is_in_pod() -> bool:
    """Return whether this process is in a pod that has an account of Kubernetes."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (ACCOUNT / "token").exists()


def namespace_of_pod() -> str:
    """Return the namespace of this pod. Raises OSError if this is none."""
    return _read("namespace")


def _workflows(run_id: str) -> list[dict[str, Any]]:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    path = f"apis/argoproj.io/v1alpha1/namespaces/{_read('namespace')}/workflows"
    request = Request(f"{server}/{path}?labelSelector={RUN_LABEL}%3D{run_id}")
    request.add_header("Authorization", f"Bearer {_read('token')}")
    authority = HTTPSHandler(context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")))
    with build_opener(ProxyHandler({}), authority).open(request, timeout=SECONDS) as answer:
        found: list[dict[str, Any]] = json.load(answer)["items"]
        return found


def _is_stopped(spec: dict[str, Any]) -> bool:
    return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))  # the latter by Argo's own command


def _read(name: str) -> str:
    return (ACCOUNT / name).read_text().strip()
