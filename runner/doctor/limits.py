"""Whether the namespace admits a run's pods: quota, LimitRange, Pod Security and admission webhooks."""

from collections.abc import Iterator

from kubernetes.client import V1LimitRangeItem, V1Pod, V1ResourceQuota
from kubernetes.client.exceptions import ApiException
from kubernetes.utils import parse_quantity

from runner.doctor.cluster import ARGO, SECONDS, Cluster, argo_setting
from runner.doctor.finding import Finding, message_of, ok, problem, unknown, warning
from runner.doctor.plan import Run, resources_of, step_of, trains

LEVEL = "pod-security.kubernetes.io/enforce"
DEFAULTED = ("cpu", "memory")
REFUSALS = (400, 403, 422)  # a webhook refuses with whichever it likes, 400 if it names none
CHANGE = "change train_cpu, train_memory or gpus, the step's resources in pipeline.py, or the LimitRange"


def check_quota(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Every ResourceQuota against the pods, and the LimitRange that must stand beside it."""
    quotas = cluster.items(cluster.core.list_namespaced_resource_quota, cluster.namespace)
    if not quotas:
        yield ok("no ResourceQuota")
        return
    for quota in quotas:
        yield from _judge_quota(quota, run.pods)
    ranges = cluster.items(cluster.core.list_namespaced_limit_range, cluster.namespace)
    items = [item for limit_range in ranges for item in limit_range.spec.limits if item.type == "Container"]
    lacking = [name for name in sorted({n for q in quotas for n in q.spec.hard}) if not _has_default(name, items)]
    if lacking:
        yield problem(
            f"quota on {', '.join(lacking)} without a LimitRange: KFP's drivers and Argo's containers will be refused",
            "add a LimitRange with default and defaultRequest for cpu and memory (manifests/overlays/multi-user)",
        )


def check_limit_range(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Every LimitRange against the pods' requests and limits."""
    ranges = cluster.items(cluster.core.list_namespaced_limit_range, cluster.namespace)
    items = [item for limit_range in ranges for item in limit_range.spec.limits if item.type in ("Container", "Pod")]
    findings = [finding for item in items for pod in run.pods for finding in _judge_range(item, pod)]
    yield from findings
    if not findings:
        yield ok("every step is within the LimitRange" if items else "no LimitRange")


def check_pod_security(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """The namespace's Pod Security level, against our steps, which meet `restricted`, and Argo's own containers."""
    level = cluster.labels.get(LEVEL, "privileged")
    if level != "restricted":
        yield ok(f"Pod Security level {level}")
        return
    executor = argo_setting(cluster, "executor")
    if executor is None:
        yield unknown(
            f"Pod Security level restricted, and no ConfigMap {ARGO} in namespace {cluster.kfp_namespace} tells "
            "whether Argo's own containers meet it",
            "give KFP's own namespace with --kfp-namespace",
        )
        return
    security = executor.get("securityContext") or {}
    if security.get("runAsNonRoot") and security.get("seccompProfile"):
        yield ok("Pod Security level restricted, which our steps and Argo's containers meet")
        return
    yield problem(
        "Pod Security level restricted, but Argo's own containers in each pod do not meet it",
        f"set executor.securityContext in {cluster.kfp_namespace}/workflow-controller-configmap as KFP 2.17 does, or "
        f"label namespace {cluster.namespace} {LEVEL}=baseline",
    )


def check_admission(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Ask the cluster itself to create the training pod, as a dry run that leaves nothing."""
    (pod,) = filter(trains, run.pods)
    try:
        cluster.core.create_namespaced_pod(cluster.namespace, pod, dry_run="All", _request_timeout=SECONDS)
    except ApiException as error:
        message = message_of(error)
        if error.status not in REFUSALS or "cannot create resource" in message:
            raise
        yield _refusal(message)
    else:
        yield ok("the cluster would admit the training pod (tried as a dry run)")


def _refusal(message: str) -> Finding:
    text = f"the cluster refuses the training pod: {message}"
    if "does not support dry run" in message:  # said by a webhook that was not asked at all
        return unknown(f"the training pod cannot be tried: {message}", "look at a run's first pods instead")
    if "exceeded quota" in message:
        return warning(text, "wait until other runs end, ask for less, or have the quota raised")
    if "violates PodSecurity" in message:
        return problem(text, f"have the namespace's label {LEVEL} set to a level that allows it")
    return problem(text, "change the parameters that it names, or ask the owner of this rule for an exception")


def _judge_quota(quota: V1ResourceQuota, pods: list[V1Pod]) -> Iterator[Finding]:
    name = quota.metadata.name
    if quota.spec.scopes or quota.spec.scope_selector:
        yield unknown(f"quota {name} holds for some pods only", f"compare it: kubectl describe quota {name}")
        return
    used = (quota.status and quota.status.used) or {}
    scarce = False
    for resource, hard in sorted(quota.spec.hard.items()):
        largest = max(pods, key=lambda pod: parse_quantity(_demand(pod, resource)))
        demand, taken = _demand(largest, resource), used.get(resource, "0")
        need, allowed = parse_quantity(demand), parse_quantity(hard)
        what = f"step {step_of(largest)} needs {demand} {resource}"
        if need > allowed:
            yield problem(f"{what}, quota {name} allows {hard}", "ask for less, or have the quota raised")
        elif need > allowed - parse_quantity(taken):
            yield warning(f"{what}, but {taken} of {hard} in quota {name} are taken", "wait until other pods end")
        else:
            continue
        scarce = True
    if not scarce:
        yield ok(f"quota {name} has room for every step")


def _demand(pod: V1Pod, resource: str) -> str:
    """What a pod takes of a quota's resource: requests.cpu, cpu (the same), limits.memory, requests.nvidia.com/gpu."""
    if resource in ("pods", "count/pods"):
        return "1"
    resources = resources_of(pod)
    amounts = resources.limits if resource.startswith("limits.") else resources.requests
    return str(amounts.get(resource.removeprefix("requests.").removeprefix("limits."), "0"))


def _has_default(resource: str, items: list[V1LimitRangeItem]) -> bool:
    """Whether containers that say nothing get a value for what the quota counts."""
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
            yield problem(f"step {step} requests {request} {name}; the LimitRange demands {least}", CHANGE)
        if ratio and parse_quantity(limit) > parse_quantity(ratio) * parse_quantity(request):
            yield problem(
                f"step {step} has {name} {request} to {limit}; the LimitRange allows a ratio of {ratio}", CHANGE
            )
