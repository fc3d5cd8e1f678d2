"""Check whether the cluster has nodes for the pods of a run: labels, resources, taints."""

from collections.abc import Iterator
from decimal import Decimal

from kubernetes.client import V1Node, V1Pod, V1Taint, V1Toleration
from kubernetes.utils import parse_quantity

from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem, warning
from runner.doctor.preflight import Preflight, resources_of, step_of, trains

BUILT_IN = {"cpu", "memory"}
TRANSIENT = "node.kubernetes.io/"  # taints of nodes that are cordoned, not ready or under pressure


def check_nodes(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check that some node can run each step: one finding for all steps, or one for each that no node can run."""
    nodes = cluster.items(cluster.core.list_node)
    if not nodes:
        yield problem("the cluster has no nodes", "add one, unless an autoscaler does so for waiting pods")
        return
    findings = [_judge(nodes, pod) for pod in preflight.pods]
    bad = [finding for finding in findings if finding.state != "ok"]
    yield from bad
    if not bad:
        yield from (f for pod, f in zip(preflight.pods, findings, strict=True) if trains(pod))


def tolerates(toleration: V1Toleration, taint: V1Taint) -> bool:
    """Return whether a toleration covers a taint.

    In Kubernetes, Exists without a key covers all taints, no effect covers all effects, and Equal is the default.
    """
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return not toleration.key or toleration.key == taint.key
    return bool(toleration.key == taint.key and (toleration.value or "") == (taint.value or ""))


def _judge(nodes: list[V1Node], pod: V1Pod) -> Finding:
    """Filter the nodes rule by rule, and report the rule that leaves none."""
    step, wanted = step_of(pod), resources_of(pod).requests
    labelled = [n for n in nodes if (pod.spec.node_selector or {}).items() <= (n.metadata.labels or {}).items()]
    if not labelled:
        return _no_label(nodes, pod)
    for resource in sorted(wanted, key=BUILT_IN.__contains__):  # GPUs first: the most telling
        fitting = [n for n in labelled if _offers(n, resource) >= parse_quantity(wanted[resource])]
        if not fitting:
            return _too_large(labelled, pod, resource, wanted[resource])
        labelled = fitting
    untolerated = [_untolerated(node, pod.spec.tolerations) for node in labelled]
    free = [taints for taints in untolerated if not taints]
    asked = ", ".join(f"{amount} {resource}" for resource, amount in wanted.items())
    if free:
        return ok(f"{len(free)} of {len(nodes)} nodes can run step {step} ({asked})")
    return _tainted(pod, [taint for taints in untolerated for taint in taints])


def _offers(node: V1Node, resource: str) -> Decimal:
    return Decimal(parse_quantity((node.status.allocatable or {}).get(resource, "0")))


def _untolerated(node: V1Node, tolerations: list[V1Toleration]) -> list[V1Taint]:
    hard = [taint for taint in node.spec.taints or [] if taint.effect in ("NoSchedule", "NoExecute")]
    return [taint for taint in hard if not any(tolerates(toleration, taint) for toleration in tolerations)]


def _no_label(nodes: list[V1Node], pod: V1Pod) -> Finding:
    selector = pod.spec.node_selector
    present = {key: sorted({(n.metadata.labels or {}).get(key, "") for n in nodes} - {""}) for key in selector}
    wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
    found = "; ".join(f"{key} is {' or '.join(values) or 'on no node'}" for key, values in present.items())
    return problem(
        f"no node has the labels {wanted} that step {step_of(pod)} asks for", f"change node_selector: {found}"
    )


def _too_large(nodes: list[V1Node], pod: V1Pod, resource: str, amount: str) -> Finding:
    text = f"no node that step {step_of(pod)} may use offers {amount} {resource}"
    best = max(nodes, key=lambda node: _offers(node, resource))
    most = best.status.allocatable.get(resource, "0")
    if resource in BUILT_IN:
        less = f"set train_{resource} below {most}" if trains(pod) else "lower the step's resources in pipeline.py"
        return problem(f"{text}; the largest has {most}", f"{less}, or add a larger node")
    if _offers(best, resource):
        return problem(f"{text}; the largest has {most}", f"set gpus={most}, or add a larger node")
    others = sorted({name for node in nodes for name in node.status.allocatable if "/" in name})
    named = f"set gpu_resource to one of {', '.join(others)}, or " if others else ""
    return problem(text, f"{named}install the device plugin of the GPUs, or set gpus=0")


def _tainted(pod: V1Pod, taints: list[V1Taint]) -> Finding:
    step = step_of(pod)
    lasting = [taint for taint in taints if not taint.key.startswith(TRANSIENT)]
    if not lasting:
        reasons = ", ".join(sorted({taint.key.removeprefix(TRANSIENT) for taint in taints}))
        return warning(
            f"every node for step {step} is out of service now ({reasons})",
            "uncordon or repair a node, or wait for one",
        )
    named = sorted({f"{taint.key}={taint.value or ''}:{taint.effect}" for taint in lasting})
    first = lasting[0]
    wanted = f'[{{"key": "{first.key}", "operator": "Exists", "effect": "{first.effect}"}}]'
    remedy = f"set tolerations='{wanted}'" if trains(pod) else "add a node without taints for the other steps"
    return problem(f"every node for step {step} has a taint that it does not tolerate: {', '.join(named)}", remedy)
