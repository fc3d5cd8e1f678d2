"""How much room nodes have for pods, by the rules of Kubernetes' scheduler: labels, taints and requests."""

from decimal import Decimal
from typing import NamedTuple

from kubernetes.client import V1Node, V1Pod, V1Taint, V1Toleration
from kubernetes.utils import parse_quantity

from runner.doctor.pods.loads import Amounts, amounts_of
from runner.doctor.preflight import resources_of

NONE = Decimal(0)
PODS = "pods"  # of which a node takes only so many


class Room(NamedTuple):
    """A node, and what is free there."""

    node: V1Node
    free: Amounts


def rooms_beside(nodes: list[V1Node], pods: list[V1Pod]) -> list[Room]:
    """Return the room that pods leave on their nodes."""
    free = {node.metadata.name: allocatable(node) for node in nodes}
    for pod in pods:
        if pod.spec.node_name in free:
            free[pod.spec.node_name] = _left(free[pod.spec.node_name], _demand(pod))
    return [Room(node, free[node.metadata.name]) for node in nodes]


def fit(rooms: list[Room], pods: list[V1Pod]) -> bool:
    """Return whether there is room for pods at the same time, each on the first node that has some."""
    left = [room.free for room in rooms]
    for pod in pods:
        demand = _demand(pod)
        places = [i for i, room in enumerate(rooms) if admits(room.node, pod) and _covers(left[i], demand)]
        if not places:
            return False
        left[places[0]] = _left(left[places[0]], demand)
    return True


def largest(rooms: list[Room], pod: V1Pod) -> list[Amounts]:
    """Return what the step in a pod could ask for at most: the choices, each of which leaves the rest as it is.

    If no choice makes room, it is what is free on the node with the most.
    """
    demand, own = _demand(pod), _own(pod)
    usable = [room for room in rooms if admits(room.node, pod)]
    choices = []
    for resource in own:
        rest = {name: amount for name, amount in demand.items() if name != resource}
        free = [room.free.get(resource, NONE) for room in usable if _covers(room.free, rest)]
        choices += [{resource: max(free)}] if free else []
    if not choices:
        best = max(usable, key=lambda room: min(room.free.get(name, NONE) / demand[name] for name in demand))
        choices = [{name: best.free.get(name, NONE) for name in own if best.free.get(name, NONE) < demand[name]}]
    beside = _left(demand, own)  # for the containers beside the step
    found = [{name: amount - beside[name] for name, amount in choice.items()} for choice in choices]
    return [choice for choice in found if choice and all(amount > 0 for amount in choice.values())]


def allocatable(node: V1Node) -> Amounts:
    """Return what a node offers to pods."""
    return {name: Decimal(parse_quantity(amount)) for name, amount in (node.status.allocatable or {}).items()}


def admits(node: V1Node, pod: V1Pod) -> bool:
    """Return whether a pod may be on a node, if there is room."""
    return has_labels(node, pod) and not untolerated(node, pod)


def has_labels(node: V1Node, pod: V1Pod) -> bool:
    """Return whether a node has the labels that a pod asks for."""
    return bool((pod.spec.node_selector or {}).items() <= (node.metadata.labels or {}).items())


def untolerated(node: V1Node, pod: V1Pod) -> list[V1Taint]:
    """Return the taints that keep a pod from a node."""
    hard = [taint for taint in node.spec.taints or [] if taint.effect in ("NoSchedule", "NoExecute")]
    tolerations = pod.spec.tolerations or []
    return [taint for taint in hard if not any(_tolerates(toleration, taint) for toleration in tolerations)]


def _tolerates(toleration: V1Toleration, taint: V1Taint) -> bool:
    """Return whether a toleration covers a taint.

    In Kubernetes, Exists without a key covers all taints, no effect covers all effects, and Equal is the default.
    """
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.operator == "Exists":
        return not toleration.key or toleration.key == taint.key
    return bool(toleration.key == taint.key and (toleration.value or "") == (taint.value or ""))


def _demand(pod: V1Pod) -> Amounts:
    """Return what a pod takes of a node."""
    return {name: amount for name, amount in amounts_of(pod.spec).items() if amount} | {PODS: Decimal(1)}


def _own(pod: V1Pod) -> Amounts:
    """Return what the step's own container asks for."""
    return {name: Decimal(parse_quantity(amount)) for name, amount in (resources_of(pod).requests or {}).items()}


def _covers(free: Amounts, demand: Amounts) -> bool:
    return all(free.get(name, NONE) >= amount for name, amount in demand.items())


def _left(free: Amounts, taken: Amounts) -> Amounts:
    return {name: amount - taken.get(name, NONE) for name, amount in free.items()}
