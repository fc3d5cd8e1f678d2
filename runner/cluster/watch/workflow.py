"""The steps of a run as Argo's Workflow has them: the truth where KFP's API is stale.

Argo compresses the nodes of a large Workflow, and KFP, which does not read them then, keeps what it read last.
"""

import base64
import gzip
import json
from datetime import datetime
from typing import Any

from kfp_server_api import GoogleRpcStatus, PipelineTaskDetailChildTask, V2beta1PipelineTaskDetail

STATES = {  # in KFP's words; Argo's Omitted has none
    "Pending": "PENDING",
    "Running": "RUNNING",
    "Succeeded": "SUCCEEDED",
    "Skipped": "SKIPPED",
    "Failed": "FAILED",
    "Error": "FAILED",
}


def tasks_in(workflow: dict[str, Any]) -> list[V2beta1PipelineTaskDetail] | None:
    """Return the tasks of a Workflow as KFP's API would list them; None if Argo keeps them elsewhere."""
    nodes = _nodes(workflow.get("status") or {})
    return None if nodes is None else [_task(node) for node in nodes.values()]


def pending_in(workflow: dict[str, Any]) -> dict[str, str]:
    """Return what Argo says of the nodes that are pending, by their names: why there is no pod, if there is none."""
    nodes = (_nodes(workflow.get("status") or {}) or {}).values()
    return {node["name"]: node["message"] for node in nodes if node.get("phase") == "Pending" and node.get("message")}


def _nodes(status: dict[str, Any]) -> dict[str, Any] | None:
    packed = status.get("compressedNodes")
    found = json.loads(gzip.decompress(base64.b64decode(packed))) if packed else status.get("nodes")
    return found or None


def _task(node: dict[str, Any]) -> V2beta1PipelineTaskDetail:
    message = node.get("message")
    return V2beta1PipelineTaskDetail(
        task_id=node["id"],
        display_name=node["displayName"],
        state=STATES.get(node.get("phase", "")),
        start_time=_time(node.get("startedAt")),
        end_time=_time(node.get("finishedAt")),
        error=GoogleRpcStatus(message=message) if message else None,
        child_tasks=[PipelineTaskDetailChildTask(pod_name=child) for child in node.get("children") or []],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
