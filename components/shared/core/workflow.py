"""The Workflow of Argo that a step runs in, asked of Kubernetes as the step's pod may."""

from typing import Any

from components.shared.core import pod

RUN_LABEL = "pipeline/runid"  # KFP's, of a run's Workflow and pods, and ours of its TrainJobs: its id


def was_stopped(run_id: str) -> bool:
    """Return whether somebody terminated the run: KFP sets the time that its Workflow may take to 0 then.

    False on a machine that is no pod. Raises OSError if Kubernetes refuses to tell or cannot be reached.
    """
    if not pod.is_pod():
        return False
    path = f"apis/argoproj.io/v1alpha1/namespaces/{pod.namespace()}/workflows?labelSelector={RUN_LABEL}%3D{run_id}"
    return any(_is_stopped(workflow.get("spec") or {}) for workflow in pod.ask(path)["items"])


def _is_stopped(spec: dict[str, Any]) -> bool:
    return spec.get("activeDeadlineSeconds") == 0 or bool(spec.get("shutdown"))  # the latter by Argo's own command
