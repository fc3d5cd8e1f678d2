"""Check whether the ResourceQuotas and LimitRanges of the namespace leave room for the pods of a run."""

from collections.abc import Iterator

from kubernetes.client import V1LimitRangeItem, V1Pod, V1ResourceQuota
from kubernetes.utils import parse_quantity

from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.preflight import Preflight, resources_of, step_of

DEFAULTED = ("cpu", "memory")  # what a LimitRange gives a default
CHANGE = "change train_cpu, train_memory or gpus, the step's resources in pipeline.py, or the LimitRange"


def check_quota(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check every ResourceQuota against the pods, and the LimitRange that it needs."""
    quotas = cluster.items(cluster.core.list_namespaced_resource_quota, cluster.namespace)
    if not quotas:
        yield ok("no ResourceQuota")
        return
    for quota in quotas:
        yield from _judge_quota(quota, preflight.pods)
    ranges = cluster.items(cluster.core.list_namespaced_limit_range, cluster.namespace)
    items = [item for limit_range in ranges for item in limit_range.spec.limits if item.type == "Container"]
    lacking = [name for name in sorted({n for q in quotas for n in q.spec.hard}) if not _has_default(name, items)]
    if lacking:
        yield problem(
            f"quota on {', '.join(lacking)} without a LimitRange: KFP's drivers and Argo's containers will be refused",
            "add a LimitRange with default and defaultRequest for cpu and memory (manifests/overlays/multi-user)",
        )


def check_limit_range(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check every LimitRange against the pods' requests and limits."""
    ranges = cluster.items(cluster.core.list_namespaced_limit_range, cluster.namespace)
    items = [item for limit_range in ranges for item in limit_range.spec.limits if item.type in ("Container", "Pod")]
    findings = [finding for item in items for pod in preflight.pods for finding in _judge_range(item, pod)]
    yield from findings
    if not findings:
        yield ok("every step is within the LimitRange" if items else "no LimitRange")


def _judge_quota(quota: V1ResourceQuota, pods: list[V1Pod]) -> Iterator[Finding]:
    name = quota.metadata.name
    if quota.spec.scopes or quota.spec.scope_selector:
        yield unknown(f"quota {name} applies to some pods only", f"compare it: kubectl describe quota {name}")
        return
    used = (quota.status and quota.status.used) or {}
    scarce = False
    for resource, hard in sorted(quota.spec.hard.items()):
        largest = max(pods, key=lambda pod: parse_quantity(_demand(pod, resource)))
        demand, in_use = _demand(largest, resource), used.get(resource, "0")
        need, allowed = parse_quantity(demand), parse_quantity(hard)
        what = f"step {step_of(largest)} needs {demand} {resource}"
        if need > allowed:
            yield problem(f"{what}, quota {name} allows {hard}", "ask for less, or have the quota raised")
        elif need > allowed - parse_quantity(in_use):
            yield warning(f"{what}, but {in_use} of {hard} in quota {name} are in use", "wait until other pods end")
        else:
            continue
        scarce = True
    if not scarce:
        yield ok(f"quota {name} has room for every step")


def _demand(pod: V1Pod, resource: str) -> str:
    """Return how much a pod uses of a quota's resource, such as requests.cpu or cpu (the same) or limits.memory."""
    if resource in ("pods", "count/pods"):
        return "1"
    resources = resources_of(pod)
    amounts = resources.limits if resource.startswith("limits.") else resources.requests
    return str(amounts.get(resource.removeprefix("requests.").removeprefix("limits."), "0"))


def _has_default(resource: str, items: list[V1LimitRangeItem]) -> bool:
    """Return whether a container without a value gets a default for what the quota counts."""
    name = resource.removeprefix("requests.").removeprefix("limits.")
    if name not in DEFAULTED:
        return True
    limits = any(name in (item.default or {}) for item in items)
    return limits or (not resource.startswith("limits.") and any(name in (i.default_request or {}) for i in items))


def _judge_range(item: V1LimitRangeItem, pod: V1Pod) -> Iterator[Finding]:
    resources, step = resources_of(pod), step_of(pod)
    for name, limit in resources.limits.items():
        most, least, ratio = ((bound or {}).get(name) for bound in (item.max, item.min, item.max_limit_request_ratio))
        request = resources.requests[name]
        if most and parse_quantity(limit) > parse_quantity(most):
            yield problem(f"step {step} has the {name} limit {limit}; the LimitRange allows {most}", CHANGE)
        if least and parse_quantity(request) < parse_quantity(least):
            yield problem(f"step {step} requests {request} {name}; the LimitRange requires {least}", CHANGE)
        if ratio and parse_quantity(limit) > parse_quantity(ratio) * parse_quantity(request):
            yield problem(
                f"step {step} has {name} {request} to {limit}; the LimitRange allows a ratio of {ratio}", CHANGE
            )
