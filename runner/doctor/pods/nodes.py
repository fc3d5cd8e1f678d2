"""Check whether nodes have room for the pods of a run: now, when other pods have ended, or never."""

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from kubernetes.client import V1Node, V1Pod, V1Taint
from kubernetes.client.exceptions import ApiException

from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem, refused, warning
from runner.doctor.pods.loads import Amounts, Load, amounts_of, loads, quantity
from runner.doctor.pods.rooms import (
    NONE,
    Room,
    allocatable,
    fit,
    has_labels,
    largest,
    rooms_beside,
    untolerated,
)
from runner.doctor.preflight import Preflight

BUILT_IN = {"cpu": "train_cpu", "memory": "train_memory"}  # resource -> the parameter of a pod that trains
TRANSIENT = "node.kubernetes.io/"  # taints of nodes that are cordoned, not ready or under pressure
NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"


class Lack(NamedTuple):
    """Why there is no room for a load: for good or only now, what would fit, and the remedy."""

    is_lasting: bool
    largest: str
    remedy: str


def check_nodes(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check that there is room for each step; the steps that fit are one finding, as are those that lack the same."""
    nodes = cluster.items(cluster.core.list_node)
    if not nodes:
        yield problem("the cluster has no nodes", "add one, unless an autoscaler does so for waiting pods")
        return
    others: list[V1Pod] = []
    when = "now"
    try:
        others = cluster.items(cluster.core.list_pod_for_all_namespaces, field_selector=NOT_ENDED)
    except ApiException as error:
        yield refused(error)
        when = "if nothing else runs"
    lasting = [pod for pod in others if pod.spec.restart_policy == "Always"]
    stages = [rooms_beside(nodes, pods) for pods in ([], lasting, others)]
    by_lack: dict[Lack | None, list[Load]] = {}
    for load in (run := loads(cluster, preflight)):
        unsuitable = _unsuitable(nodes, load)
        if unsuitable:
            yield unsuitable
        else:
            by_lack.setdefault(_lack(stages, load), []).append(load)
    for lack, found in by_lack.items():
        yield _no_room(lack, found) if lack else ok(_fitting(stages[-1], found, when, are_all=len(found) == len(run)))


def _lack(stages: list[list[Room]], load: Load) -> Lack | None:
    """Return why a load does not fit now; None if it does.

    The stages are the nodes without other pods, with those that do not end by themselves, and as they are.
    """
    *lasting, now = stages
    for rooms in lasting:
        if not fit(rooms, load.pods):
            return Lack(True, _largest(rooms, load), _smaller(rooms, load, "add a node"))
    return None if fit(now, load.pods) else Lack(False, _largest(now, load), _smaller(now, load, "wait for them"))


def _no_room(lack: Lack, found: list[Load]) -> Finding:
    names = ", ".join(map(_asked, found))
    if lack.is_lasting:
        return problem(f"no room for {names}, even when other pods have ended; {lack.largest}", lack.remedy)
    return warning(f"no room for {names} before other pods have ended; {lack.largest}", lack.remedy)


def _fitting(now: list[Room], fitting: list[Load], when: str, are_all: bool) -> str:
    """Return the text about what fits: the loads that train one by one, and the others together."""
    trained = [f"{_asked(load)}{_places(now, load)}" for load in fitting if load.trains]
    names = [load.name for load in fitting if not load.trains]
    others = ("every other step" if trained else "every step") if are_all else ", ".join(names)
    return f"room {when} for {'; for '.join([*trained, others])}"


def _places(rooms: list[Room], load: Load) -> str:
    """Return on how many nodes a pod fits, and the largest that would; nothing for a job."""
    if len(load.pods) > 1:
        return ""
    return f" on {sum(fit([room], load.pods) for room in rooms)} of {len(rooms)} nodes, {_largest(rooms, load)}"


def _asked(load: Load) -> str:
    wanted = amounts_of(load.pods[0].spec).items()
    each = " each" if len(load.pods) > 1 else ""
    return f"{load.name} ({', '.join(f'{quantity(name, amount)} {name}' for name, amount in wanted if amount)}{each})"


def _largest(rooms: list[Room], load: Load) -> str:
    nodes = _most_nodes(rooms, load)
    choices = [", ".join(_words(choice, "{1} {0}")) for choice in largest(rooms, load.pods[0])]
    found = f"nodes={nodes}" if nodes else " or ".join(choices)
    return f"the largest that fits has {found}" if found else "no smaller one would"


def _smaller(rooms: list[Room], load: Load, otherwise: str) -> str:
    """Return the remedy: what to ask for instead, or what else to do."""
    nodes = _most_nodes(rooms, load)
    choices = [" ".join(_words(choice, "{2}={1}")) for choice in largest(rooms, load.pods[0])]
    if not load.trains:
        choices = ["lower the step's resources in pipeline.py"]
    elif nodes:
        choices = [f"nodes={nodes}"]
    return ", or ".join([*(f"set {choice}" if load.trains else choice for choice in choices), otherwise])


def _words(amounts: Amounts, form: str) -> list[str]:
    """Return amounts in a form of resource, amount and parameter."""
    return [form.format(name, quantity(name, amount), BUILT_IN.get(name, "gpus")) for name, amount in amounts.items()]


def _most_nodes(rooms: list[Room], load: Load) -> int:
    """Return how many nodes of a job fit, beside the pod that waits for it; 0 if it is no job, or none does."""
    counts = range(len(load.pods) - 1, 0, -1)
    return next((count for count in counts if fit(rooms, load.pods[-count - 1 :])), 0)


def _unsuitable(nodes: list[V1Node], load: Load) -> Finding | None:
    """Filter the nodes rule by rule, and report the rule that leaves none."""
    pod = load.pods[0]
    left = [node for node in nodes if has_labels(node, pod)]
    if not left:
        return _no_label(nodes, load)
    wanted = amounts_of(pod.spec)
    for resource in sorted(wanted, key=BUILT_IN.__contains__):  # GPUs first: the most telling
        offering = [node for node in left if _offers(node, resource) >= wanted[resource]]
        if not offering:
            return _too_large(left, load, resource, wanted[resource])
        left = offering
    taints = [untolerated(node, pod) for node in left]
    return _tainted(load, [taint for found in taints for taint in found]) if all(taints) else None


def _offers(node: V1Node, resource: str) -> Decimal:
    return allocatable(node).get(resource, NONE)


def _no_label(nodes: list[V1Node], load: Load) -> Finding:
    selector = load.pods[0].spec.node_selector
    present = {key: sorted({(n.metadata.labels or {}).get(key, "") for n in nodes} - {""}) for key in selector}
    wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
    found = "; ".join(f"{key} is {' or '.join(values) or 'on no node'}" for key, values in present.items())
    return problem(f"no node has the labels {wanted} that {load.name} asks for", f"change node_selector: {found}")


def _too_large(nodes: list[V1Node], load: Load, resource: str, amount: Decimal) -> Finding:
    text = f"no node that {load.name} may use offers {quantity(resource, amount)} {resource}"
    best = max(nodes, key=lambda node: _offers(node, resource))
    most = best.status.allocatable.get(resource, "0")
    if resource in BUILT_IN:
        less = f"set {BUILT_IN[resource]} below {most}" if load.trains else "lower the step's resources in pipeline.py"
        return problem(f"{text}; the largest has {most}", f"{less}, or add a larger node")
    if _offers(best, resource):
        return problem(f"{text}; the largest has {most}", f"set gpus={most}, or add a larger node")
    others = sorted({name for node in nodes for name in node.status.allocatable if "/" in name})
    named = f"set gpu_resource to one of {', '.join(others)}, or " if others else ""
    return problem(text, f"{named}install the device plugin of the GPUs, or set gpus=0")


def _tainted(load: Load, taints: list[V1Taint]) -> Finding:
    lasting = [taint for taint in taints if not taint.key.startswith(TRANSIENT)]
    if not lasting:
        reasons = ", ".join(sorted({taint.key.removeprefix(TRANSIENT) for taint in taints}))
        return warning(
            f"every node for {load.name} is out of service now ({reasons})",
            "uncordon or repair a node, or wait for one",
        )
    named = sorted({f"{taint.key}={taint.value or ''}:{taint.effect}" for taint in lasting})
    first = lasting[0]
    wanted = f'[{{"key": "{first.key}", "operator": "Exists", "effect": "{first.effect}"}}]'
    remedy = f"set tolerations='{wanted}'" if load.trains else "add a node without taints for the other steps"
    return problem(f"every node for {load.name} has a taint that it does not tolerate: {', '.join(named)}", remedy)
