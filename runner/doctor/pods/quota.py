"""Check whether the ResourceQuotas and LimitRanges of the namespace leave room for the pods of a run."""

from collections.abc import Iterator
from decimal import Decimal

from kubernetes.client import V1LimitRangeItem, V1Pod, V1ResourceQuota, V1ResourceRequirements
from kubernetes.utils import parse_quantity

from runner.doctor.cluster import ARGO, Cluster
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.pods.loads import DRIVER, EXECUTOR, LAUNCHER, OWNERS, Load, amounts_of, containers, loads, quantity
from runner.doctor.preflight import Preflight

REQUIRED = ("cpu", "memory")  # of every container, if a quota counts it
DEFAULTS = "add a LimitRange with default and defaultRequest for cpu and memory (manifests/overlays/multi-user)"
CHANGE = "change train_cpu, train_memory or gpus, the step's resources in pipeline.py, or the LimitRange"
THEIRS = "have the LimitRange changed: KFP's own figures cannot be"
ARGOS = f"have the LimitRange changed, or executor.resources set in {ARGO}"


def check_quota(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check every ResourceQuota against the pods, and whether their containers ask for all that it counts."""
    quotas = cluster.items(cluster.core.list_namespaced_resource_quota, cluster.namespace)
    if not quotas:
        yield ok("no ResourceQuota")
        return
    run = loads(cluster, preflight)
    for quota in quotas:
        yield from _judge_quota(quota, run)
    counted = {name for quota in quotas for name in quota.spec.hard}
    lacking = {who: {n for n in counted if _leaves_out(resources, n)} for who, resources in _containers(run)}
    if any(lacking.values()):
        names = ", ".join(sorted(set.union(*lacking.values())))
        refused = ", ".join(who for who, left_out in lacking.items() if left_out)
        yield problem(f"quota on {names}, which refuses pods with containers that ask for none: {refused}", DEFAULTS)


def check_limit_range(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check every LimitRange against the requests and limits of all containers and pods of a run."""
    ranges = cluster.items(cluster.core.list_namespaced_limit_range, cluster.namespace)
    items = [item for limit_range in ranges for item in limit_range.spec.limits if item.type in ("Container", "Pod")]
    if not items:
        yield ok("no LimitRange")
        return
    run = loads(cluster, preflight)
    parts = {"Container": dict(_containers(run)), "Pod": {load.name: _whole(load.pods[0]) for load in run}}
    findings = [
        f for item in items for who, resources in parts[item.type].items() for f in _judge(item, who, resources)
    ]
    yield from findings
    if not findings:
        yield ok("every container of a run, KFP's and Argo's too, is within the LimitRange")


def _containers(run: list[Load]) -> Iterator[tuple[str, V1ResourceRequirements]]:
    """Yield whose each container is, and its resources; KFP and Argo add the same to every pod."""
    for load in run:
        for container in containers(load.pods[0]):
            yield OWNERS.get(container.name, load.name), container.resources


def _whole(pod: V1Pod) -> V1ResourceRequirements:
    """Return the resources of a pod as one."""
    sums = {bound: amounts_of(pod.spec, bound) for bound in ("requests", "limits")}
    return V1ResourceRequirements(
        **{bound: {name: quantity(name, amount) for name, amount in amounts.items()} for bound, amounts in sums.items()}
    )


def _judge_quota(quota: V1ResourceQuota, run: list[Load]) -> Iterator[Finding]:
    name = quota.metadata.name
    if quota.spec.scopes or quota.spec.scope_selector:
        yield unknown(f"quota {name} applies to some pods only", f"compare it: kubectl describe quota {name}")
        return
    used = (quota.status and quota.status.used) or {}
    scarce = False
    for resource, hard in sorted(quota.spec.hard.items()):
        largest = max(run, key=lambda load: _demand(load, resource))
        need, in_use = _demand(largest, resource), used.get(resource, "0")
        what = f"{largest.name} needs {quantity(resource, need)} {resource}"
        if need > parse_quantity(hard):
            yield problem(f"{what}, quota {name} allows {hard}", "ask for less, or have the quota raised")
        elif need > parse_quantity(hard) - parse_quantity(in_use):
            yield warning(f"{what}, but {in_use} of {hard} in quota {name} are in use", "wait until other pods end")
        else:
            continue
        scarce = True
    if not scarce:
        yield ok(f"quota {name} has room for every step")


def _demand(load: Load, resource: str) -> Decimal:
    """Return how much pods use of a quota's resource, such as requests.cpu or cpu (the same) or limits.memory."""
    if resource in ("pods", "count/pods"):
        return Decimal(len(load.pods))
    bound = "limits" if resource.startswith("limits.") else "requests"
    return sum((amounts_of(pod.spec, bound).get(_plain(resource), Decimal(0)) for pod in load.pods), Decimal(0))


def _leaves_out(resources: V1ResourceRequirements, counted: str) -> bool:
    """Return whether a container is refused because it lacks the request or limit that a quota counts."""
    bound = resources.limits if counted.startswith("limits.") else resources.requests
    return _plain(counted) in REQUIRED and _plain(counted) not in bound


def _plain(resource: str) -> str:
    """Return the name of a quota's resource without `requests.` or `limits.`."""
    return resource.removeprefix("requests.").removeprefix("limits.")


def _judge(item: V1LimitRangeItem, who: str, resources: V1ResourceRequirements) -> Iterator[Finding]:
    """Yield where a container or pod breaks a LimitRange."""
    remedy = {DRIVER: THEIRS, LAUNCHER: THEIRS, EXECUTOR: ARGOS}.get(who, CHANGE)
    most, least, ratios = (bound or {} for bound in (item.max, item.min, item.max_limit_request_ratio))
    for name in sorted(most | least | ratios):
        limit, request = resources.limits.get(name), resources.requests.get(name)
        if name in most and limit is None:
            yield problem(f"{who} has no {name} limit; the LimitRange allows {most[name]}", remedy)
        elif name in most and parse_quantity(limit) > parse_quantity(most[name]):
            yield problem(f"{who} has the {name} limit {limit}; the LimitRange allows {most[name]}", remedy)
        if name in least and parse_quantity(request or 0) < parse_quantity(least[name]):
            yield problem(f"{who} requests {request or 'no'} {name}; the LimitRange requires {least[name]}", remedy)
        if name in ratios and not (limit and request):
            yield problem(
                f"{who} lacks a {name} request or limit; the LimitRange has a ratio and requires both", remedy
            )
        elif name in ratios and parse_quantity(limit) > parse_quantity(ratios[name]) * parse_quantity(request):
            spread = f"{name} {request} to {limit}"
            yield problem(f"{who} has {spread}; the LimitRange allows a ratio of {ratios[name]}", remedy)
