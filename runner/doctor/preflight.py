"""The run to check: its parameters, and its pods as the compiled pipeline describes them."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from kfp.dsl.base_component import BaseComponent
from kubernetes.client import (
    V1Capabilities,
    V1Container,
    V1ObjectMeta,
    V1Pod,
    V1PodSpec,
    V1ResourceRequirements,
    V1SeccompProfile,
    V1SecurityContext,
    V1Toleration,
)

from components.shared.core.workflow import RUN_LABEL
from components.step_table import STEP_LABEL, STEPS
from runner.compile import documents_of
from runner.graphs import PREFIX
from runner.verbs.options import DEFAULT

JOB_STEP = "train-distributed"  # hands its resources on to the pods of a TrainJob
CHANNEL = re.compile(r"pipelinechannel--(\w+)")
# What KFP and Argo add; the pods of KFP's drivers have only these.
RUN_LABELS = {
    "workflows.argoproj.io/workflow": f"{PREFIX}{DEFAULT}",
    "workflows.argoproj.io/completed": "false",
    "pipelines.kubeflow.org/v2_component": "true",
    RUN_LABEL: "00000000-0000-0000-0000-000000000000",
}


class Preflight(NamedTuple):
    """A run to check before it starts: its parameters and pods."""

    parameters: dict[str, Any]
    pods: list[V1Pod]
    s3_endpoint: str = ""  # where this machine reaches the S3 server, if not where the pods do
    run_bytes: int = 0  # estimated, of its object in Argo


def pods_of(pipeline: BaseComponent, parameters: dict[str, Any]) -> list[V1Pod]:
    """Return one pod per step, as KFP would create it for a run with these parameters."""
    spec, platform = documents_of(pipeline)
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors = spec["deploymentSpec"]["executors"]
    return [_pod(executors[name]["container"], settings[name], parameters) for name in sorted(executors)]


def step_of(pod: V1Pod) -> str:
    """Return the name of the step that a pod runs."""
    return str(pod.metadata.labels[STEP_LABEL])


def trains(pod: V1Pod) -> bool:
    """Return whether a pod trains; step train-distributed stands for the pods of the job that it submits."""
    return step_of(pod) in {step.name for step in STEPS if step.trains}


def resources_of(pod: V1Pod) -> V1ResourceRequirements:
    """Return the requests and limits of a pod."""
    return pod.spec.containers[0].resources


def _pod(container: dict[str, Any], settings: dict[str, Any], parameters: dict[str, Any]) -> V1Pod:
    labels = settings["podMetadata"]["labels"]
    tolerations = [
        V1Toleration(
            key=t.get("key"),
            operator=t.get("operator"),
            value=t.get("value"),
            effect=t.get("effect"),
            toleration_seconds=t.get("tolerationSeconds"),
        )
        for entry in settings.get("tolerations", [])
        for t in _resolve(entry["tolerationJson"]["componentInputParameter"], parameters)
    ]
    selector = settings.get("nodeSelector", {}).get("nodeSelectorJson")
    main = V1Container(
        name="main",
        image=container["image"],
        resources=V1ResourceRequirements(
            requests=dict(_amounts(container["resources"], "Request", parameters)),
            limits=dict(_amounts(container["resources"], "Limit", parameters)),
        ),
        security_context=_security(settings["securityContext"]),
    )
    return V1Pod(
        api_version="v1",
        kind="Pod",
        metadata=V1ObjectMeta(name=f"torch2kubeflow-doctor-{labels[STEP_LABEL]}", labels=RUN_LABELS | labels),
        spec=V1PodSpec(
            containers=[main],
            restart_policy="Never",
            tolerations=tolerations,
            node_selector=_resolve(selector["componentInputParameter"], parameters) if selector else {},
        ),
    )


def _amounts(resources: dict[str, Any], bound: str, parameters: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and quantity of each resource; what has no request of its own is requested up to its limit."""
    for name in ("Cpu", "Memory"):
        text = resources.get(f"resource{name}{bound}") or resources[f"resource{name}Limit"]
        yield name.lower(), _resolve(text, parameters)
    accelerator = resources.get("accelerator")
    if accelerator:
        count = _resolve(accelerator["resourceCount"], parameters)
        if count != "0":
            yield _resolve(accelerator["resourceType"], parameters), count


def _security(settings: dict[str, Any]) -> V1SecurityContext:
    """Return the user that the pipeline asks for, and the restrictions that KFP adds to every step."""
    return V1SecurityContext(
        run_as_user=int(settings["runAsUser"]),
        run_as_group=int(settings["runAsGroup"]),
        run_as_non_root=settings["runAsNonRoot"],
        allow_privilege_escalation=False,
        capabilities=V1Capabilities(drop=["ALL"]),
        seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
    )


def _resolve(text: str, parameters: dict[str, Any]) -> Any:
    """Return the value of the pipeline's parameter that `text` refers to, or `text` itself."""
    channel = CHANNEL.search(text)
    return parameters[channel[1]] if channel else text
