"""The manifests as `kubectl` renders them."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
RUNS_LIVE_IN = dict.fromkeys(("standalone", "local", "minio", "aws"), "kubeflow") | {"multi-user": "team-a"}
OVERLAYS = (*RUNS_LIVE_IN, "gpu")
Object = dict[str, Any]

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@cache
def render(overlay: str) -> tuple[Object, ...]:
    """Return the objects of an overlay, with the namespace that `kubectl apply -n` would give to those without one."""
    command = ["kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "", done.stderr
    objects = tuple(yaml.safe_load_all(done.stdout))
    for thing in objects:
        if thing["kind"] not in ("Namespace", "PriorityClass"):
            thing["metadata"].setdefault("namespace", RUNS_LIVE_IN[overlay])
    return objects


def find(overlay: str, kind: str, namespace: str | None = None) -> dict[str, Object]:
    """Return the objects of one kind by name, of all namespaces or of one."""
    found = [thing for thing in render(overlay) if thing["kind"] == kind]
    inside = [thing for thing in found if namespace in (None, thing["metadata"].get("namespace"))]
    return {thing["metadata"]["name"]: thing for thing in inside}
