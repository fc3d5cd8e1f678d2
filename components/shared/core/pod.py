"""What a pod may ask Kubernetes for, as its service account: without any package."""

import json
import os
import ssl
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS = 30  # for an answer


def is_in_cluster() -> bool:
    """Return whether this process runs in a pod, which may lack the token of its service account."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


def is_pod() -> bool:
    """Return whether this process runs in a pod that has the token of its service account."""
    return is_in_cluster() and (ACCOUNT / "token").exists()


def namespace() -> str:
    """Return the namespace of this pod."""
    return read("namespace")


def ask(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the object at a path of the Kubernetes API, or what creating `body` there answers.

    Raises OSError if Kubernetes refuses or cannot be reached.
    """
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    request = Request(f"{server}/{path}", data=None if body is None else json.dumps(body).encode())
    request.add_header("Authorization", f"Bearer {read('token')}")
    if body is not None:
        request.add_header("Content-Type", "application/json")
    authority = HTTPSHandler(context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")))
    with build_opener(ProxyHandler({}), authority).open(request, timeout=SECONDS) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def read(name: str) -> str:
    """Return one of the texts that Kubernetes gives the pod: token, namespace."""
    return (ACCOUNT / name).read_text().strip()
