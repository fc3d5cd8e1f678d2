"""The pods of a run as Kubernetes gets them: with KFP's and Argo's own containers, and the defaults of a LimitRange.

The figures are those of KFP 2.17; those of Argo's executor may be set in its ConfigMap.
"""

from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal
from typing import NamedTuple

from kubernetes.client import (
    V1Container,
    V1LimitRangeItem,
    V1ObjectMeta,
    V1Pod,
    V1PodSpec,
    V1ResourceRequirements,
)
from kubernetes.client.exceptions import ApiException
from kubernetes.utils import parse_quantity

from runner.doctor.cluster import Cluster, argo_setting
from runner.doctor.preflight import JOB_STEP, RUN_LABELS, Preflight, step_of, trains

DRIVERS = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}
LAUNCHERS = {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "256Mi"}}
INIT, WAIT, KFP_LAUNCHER = "init", "wait", "kfp-launcher"
EXECUTOR, LAUNCHER, DRIVER = "Argo's executor", "KFP's launcher", "KFP's driver"
OWNERS = {INIT: EXECUTOR, WAIT: EXECUTOR, KFP_LAUNCHER: LAUNCHER}
UNITS = {"Gi": 2**30, "Mi": 2**20}

Amounts = dict[str, Decimal]  # of resources, by their names


class Load(NamedTuple):
    """Pods that run at the same time."""

    name: str
    pods: list[V1Pod]
    trains: bool  # with the resources that are parameters of a run


def loads(cluster: Cluster, preflight: Preflight) -> list[Load]:
    """Return the loads that a run puts on the cluster one after the other."""
    argo, limits = _argo_resources(cluster), container_limits(cluster)
    found = list(_loads(preflight, argo))
    for container in (one for load in found for pod in load.pods for one in containers(pod)):
        container.resources = _with_defaults(container.resources, limits)
    return found


def containers(pod: V1Pod) -> Iterator[V1Container]:
    """Yield the containers of a pod, first those that do its work."""
    yield from pod.spec.containers
    yield from pod.spec.init_containers or []


def container_limits(cluster: Cluster) -> list[V1LimitRangeItem]:
    """Return what the LimitRanges of the namespace say of containers."""
    ranges = cluster.items(cluster.core.list_namespaced_limit_range, cluster.namespace)
    return [item for found in ranges for item in found.spec.limits if item.type == "Container"]


def amounts_of(spec: V1PodSpec, bound: str = "requests") -> Amounts:
    """Return the requests or limits of a pod as the scheduler and quotas count them.

    Containers that begin a pod run one by one, so that only the largest counts, unless it stays.
    """
    begun: Amounts = {}
    peak: Amounts = {}
    for container in spec.init_containers or []:
        own = added(begun, _amounts(container.resources, bound))
        peak = _larger(peak, own)
        begun = own if container.restart_policy == "Always" else begun
    for container in spec.containers:
        begun = added(begun, _amounts(container.resources, bound))
    overhead = {name: Decimal(parse_quantity(amount)) for name, amount in (spec.overhead or {}).items()}
    return added(_larger(peak, begun), overhead)


def added(first: Amounts, second: Amounts) -> Amounts:
    """Return the sum of two."""
    return {name: first.get(name, Decimal(0)) + second.get(name, Decimal(0)) for name in first | second}


def quantity(resource: str, amount: Decimal) -> str:
    """Return an amount as Kubernetes writes it, such as 2, 1100m or 4Gi, rounded down to Mi or m."""
    if resource.endswith(("memory", "storage")):
        unit = "Mi" if amount % UNITS["Gi"] else "Gi"
        return f"{amount // UNITS[unit]}{unit}"
    return f"{amount * 1000 // 1}m" if amount % 1 else f"{amount // 1}"


def _loads(preflight: Preflight, argo: V1ResourceRequirements) -> Iterator[Load]:
    driver = V1Pod(
        metadata=V1ObjectMeta(labels=RUN_LABELS),
        spec=V1PodSpec(containers=[V1Container(name="main", resources=V1ResourceRequirements(**DRIVERS))]),
    )
    yield Load(DRIVER, [_by_argo(driver, argo)], trains=False)
    launcher = V1Container(name=KFP_LAUNCHER, resources=V1ResourceRequirements(**LAUNCHERS))
    for pod in preflight.pods:
        name = f"step {step_of(pod)}"
        if step_of(pod) != JOB_STEP:
            yield Load(name, [_by_argo(pod, argo, launcher)], trains(pod))
            continue
        nodes = preflight.parameters["nodes"]
        waiting = _by_argo(_without_demands(pod), argo, launcher)
        yield Load(name, [waiting], trains=False)
        yield Load(
            f"the job of {nodes} node{'s' * (nodes != 1)}",
            [deepcopy(pod) for _ in range(nodes)] + [deepcopy(waiting)],
            trains=True,
        )


def _by_argo(pod: V1Pod, argo: V1ResourceRequirements, *beginning: V1Container) -> V1Pod:
    """Return a pod with the containers of Argo's executor, and with others that begin it."""
    whole = deepcopy(pod)
    whole.spec.containers.append(V1Container(name=WAIT, resources=argo))
    whole.spec.init_containers = [V1Container(name=INIT, resources=argo), *deepcopy(beginning)]
    return whole


def _without_demands(pod: V1Pod) -> V1Pod:
    """Return the pod of a step that passes its resources and its choice of nodes on to others."""
    bare = deepcopy(pod)
    bare.spec.containers[0].resources = V1ResourceRequirements()
    bare.spec.tolerations, bare.spec.node_selector = [], {}
    return bare


def _argo_resources(cluster: Cluster) -> V1ResourceRequirements:
    """Return what Argo's executor asks for: nothing, unless its ConfigMap can be read and says otherwise."""
    try:
        resources = (argo_setting(cluster, "executor") or {}).get("resources") or {}
    except ApiException:
        resources = {}
    return V1ResourceRequirements(requests=resources.get("requests"), limits=resources.get("limits"))


def _with_defaults(resources: V1ResourceRequirements, limits: list[V1LimitRangeItem]) -> V1ResourceRequirements:
    """Return the resources of a container as admission completes them; a limit is also the default of the request."""
    own_requests, own_limits = resources.requests or {}, resources.limits or {}
    default = {name: amount for item in limits for name, amount in (item.default or {}).items()}
    default_request = {name: amount for item in limits for name, amount in (item.default_request or {}).items()}
    return V1ResourceRequirements(
        requests={**default_request, **own_limits, **own_requests}, limits={**default, **own_limits}
    )


def _larger(first: Amounts, second: Amounts) -> Amounts:
    return {name: max(first.get(name, Decimal(0)), second.get(name, Decimal(0))) for name in first | second}


def _amounts(resources: V1ResourceRequirements | None, bound: str) -> Amounts:
    found = (resources and getattr(resources, bound)) or {}
    return {name: Decimal(parse_quantity(amount)) for name, amount in found.items()}
