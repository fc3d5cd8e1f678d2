"""Whether NetworkPolicies let a run's pods reach what they need.

The rules are those of networking.k8s.io/v1: policies only add; a pod that none selects for a direction is free in it.
"""

import ipaddress
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kubernetes.client import (
    NetworkingV1Api,
    V1LabelSelector,
    V1NetworkPolicy,
    V1NetworkPolicyPeer,
    V1NetworkPolicyPort,
)
from kubernetes.client.exceptions import ApiException

from runner.doctor.cluster import SECONDS, Cluster
from runner.doctor.finding import Finding, ok, problem, refused, warning
from runner.doctor.launcher import endpoints, is_internal
from runner.doctor.plan import RUN_LABELS, Run, step_of

OPERATORS = {
    "In": lambda labels, e: labels.get(e.key) in e.values,
    "NotIn": lambda labels, e: labels.get(e.key) not in e.values,
    "Exists": lambda labels, e: e.key in labels,
    "DoesNotExist": lambda labels, e: e.key not in labels,
}


KFP_SERVICES = (
    ("ml-pipeline", ("app", "ml-pipeline"), (8887, 8888)),
    ("metadata-grpc-service", ("component", "metadata-grpc-server"), (8080,)),
)
SEAWEEDFS_PORT = 8333  # behind port 9000 of its Service


class End(NamedTuple):
    """One end of a connection: a pod, known by its namespace and labels, or an address outside the pods' network."""

    name: str
    namespace: str  # empty where the end is no pod
    namespace_labels: dict[str, str]
    labels: dict[str, str]
    address: str = ""  # an IP address where the end is no pod; empty where that is not known
    in_blocks: bool = False  # whether a block of all addresses holds for a pod: some CNIs have it so, others not


class Connection(NamedTuple):
    """What a pod must be able to open; the port is the pod's, not its Service's."""

    target: End
    port: int
    protocol: str = "TCP"


def check_network(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Whether steps and KFP's drivers may open every connection that a pipeline's pod needs."""
    api = NetworkingV1Api(cluster.api)
    policies = cluster.items(api.list_namespaced_network_policy, cluster.namespace)
    if not cluster.is_standalone:
        try:
            policies += cluster.items(api.list_namespaced_network_policy, cluster.kfp_namespace)
        except ApiException as error:
            yield refused(error)
    connections = [*_always_needed(cluster), *_object_stores(cluster, run)]
    try:
        connections.append(_kubernetes(cluster))
    except ApiException as error:
        yield refused(error)
    sources = list(_sources(cluster, run))
    findings = [finding for connection in connections for finding in _judge(policies, sources, connection)]
    yield from findings
    if not findings:
        yield ok(f"{len(policies)} NetworkPolicies, which leave open what steps and drivers need")


def allows(policies: list[V1NetworkPolicy], source: End, connection: Connection) -> bool:
    """Whether the policies let `source` open the connection, at its own end and at the target's."""
    target, port = connection.target, (connection.port, connection.protocol)
    return _open(policies, "Egress", source, target, *port) and _open(policies, "Ingress", target, source, *port)


def _judge(policies: list[V1NetworkPolicy], sources: list[End], connection: Connection) -> Iterator[Finding]:
    """What is to say of the sources that cannot open a connection for certain; nothing where all can."""
    barred = [pod for pod in sources if not allows(policies, pod, connection)]
    by_block = connection._replace(target=_in_blocks(connection.target))
    closed = [pod for pod in barred if not allows(policies, _in_blocks(pod), by_block)]
    doubtful = [pod for pod in barred if pod not in closed]
    if closed:
        yield problem(f"a NetworkPolicy keeps {_names(closed, sources)} from {_told(connection)}", _remedy(connection))
    if doubtful:
        yield warning(
            f"NetworkPolicies let {_names(doubtful, sources)} reach {_told(connection)} by an ipBlock alone, "
            "which holds for pods with some CNIs only",
            _remedy(connection),
        )


def _in_blocks(end: End) -> End:
    return end._replace(in_blocks=bool(end.namespace))


def _open(policies: list[V1NetworkPolicy], direction: str, pod: End, other: End, port: int, protocol: str) -> bool:
    applying = [policy for policy in policies if direction in _directions(policy) and _selects(policy, pod)]
    return not applying or any(
        any(_is_peer(peer, policy, other) for peer in peers or [None])
        and any(_is_port(allowed, port, protocol) for allowed in rule.ports or [None])
        for policy in applying
        for rule, peers in _rules(policy, direction)
    )


def _rules(policy: V1NetworkPolicy, direction: str) -> Iterator[tuple[Any, list[V1NetworkPolicyPeer] | None]]:
    if direction == "Egress":
        yield from ((rule, rule.to) for rule in policy.spec.egress or [])
    else:
        yield from ((rule, rule._from) for rule in policy.spec.ingress or [])


def _directions(policy: V1NetworkPolicy) -> list[str]:
    return policy.spec.policy_types or ["Ingress", *(["Egress"] if policy.spec.egress else [])]


def _selects(policy: V1NetworkPolicy, pod: End) -> bool:
    return pod.namespace == policy.metadata.namespace and _matches(policy.spec.pod_selector, pod.labels)


def _matches(selector: V1LabelSelector, labels: dict[str, str]) -> bool:
    expressions = selector.match_expressions or []
    return (selector.match_labels or {}).items() <= labels.items() and all(
        OPERATORS[expression.operator](labels, expression) for expression in expressions
    )


def _is_peer(peer: V1NetworkPolicyPeer | None, policy: V1NetworkPolicy, end: End) -> bool:
    if peer is None:  # a rule without peers is for all
        return True
    if peer.ip_block:
        return _may_hold_pods(peer) if end.in_blocks else not end.namespace and _is_in_block(peer, end.address)
    if not end.namespace:
        return False
    if peer.namespace_selector is None:
        in_namespace = end.namespace == policy.metadata.namespace
    else:
        in_namespace = _matches(peer.namespace_selector, end.namespace_labels)
    return in_namespace and (peer.pod_selector is None or _matches(peer.pod_selector, end.labels))


def _may_hold_pods(peer: V1NetworkPolicyPeer) -> bool:
    """Whether a block has all addresses, but perhaps those of the machines' own networks (cloud metadata)."""
    holes = [ipaddress.ip_network(cidr) for cidr in peer.ip_block._except or []]
    return ipaddress.ip_network(peer.ip_block.cidr).prefixlen == 0 and all(hole.is_link_local for hole in holes)


def _is_in_block(peer: V1NetworkPolicyPeer, address: str) -> bool:
    if not address:  # not known from here, so in no block for certain, and perhaps in this one
        return True
    ip = ipaddress.ip_address(address)
    inside, *holes = (ipaddress.ip_network(cidr) for cidr in (peer.ip_block.cidr, *(peer.ip_block._except or [])))
    return ip in inside and not any(ip in hole for hole in holes)


def _is_port(allowed: V1NetworkPolicyPort | None, port: int, protocol: str) -> bool:
    if allowed is None:  # a rule without ports is for all
        return True
    if (allowed.protocol or "TCP") != protocol:
        return False
    if not isinstance(allowed.port, int):  # all ports, or one by its name, whose number only the pod knows
        return True
    return bool(allowed.port <= port <= (allowed.end_port or allowed.port))


def _sources(cluster: Cluster, run: Run) -> Iterator[End]:
    """Every step's pod, and KFP's drivers, which carry none of our labels."""
    for pod in run.pods:
        yield End(f"step {step_of(pod)}", cluster.namespace, cluster.labels, pod.metadata.labels)
    yield End("KFP's driver", cluster.namespace, cluster.labels, RUN_LABELS)


def _always_needed(cluster: Cluster) -> Iterator[Connection]:
    """DNS and KFP's own services, by the labels that the manifests of Kubernetes and KFP give their pods."""
    dns = End("DNS", "kube-system", _named("kube-system"), {"k8s-app": "kube-dns"})
    yield Connection(dns, 53, "UDP")
    for name, (label, value), ports in KFP_SERVICES:
        target = _kfp_pod(cluster, name, {label: value})
        yield from (Connection(target, port) for port in ports)


def _object_stores(cluster: Cluster, run: Run) -> Iterator[Connection]:
    """The S3 servers of KFP's launcher and of the steps."""
    for endpoint in sorted(endpoints(cluster, run)):
        address = urlsplit(endpoint)
        service, _, rest = (address.hostname or "").partition(".")
        if service == "seaweedfs" and rest.partition(".")[0] == cluster.kfp_namespace:
            yield Connection(_kfp_pod(cluster, "seaweedfs", {"app": "seaweedfs"}), SEAWEEDFS_PORT)
        elif not is_internal(endpoint):  # of another Service neither pods nor port are known
            yield Connection(_outside(endpoint), address.port or (443 if address.scheme == "https" else 80))


def _kubernetes(cluster: Cluster) -> Connection:
    """The Kubernetes API, where it really listens."""
    subset = cluster.core.read_namespaced_endpoints("kubernetes", "default", _request_timeout=SECONDS).subsets[0]
    return Connection(_outside("the Kubernetes API", subset.addresses[0].ip), subset.ports[0].port)


def _kfp_pod(cluster: Cluster, name: str, labels: dict[str, str]) -> End:
    where = cluster.kfp_namespace
    there = cluster.labels if where == cluster.namespace else _named(where)
    return End(name, where, there, labels | {"application-crd-id": "kubeflow-pipelines"})


def _outside(name: str, address: str = "") -> End:
    return End(name, "", {}, {}, address)


def _named(namespace: str) -> dict[str, str]:
    """The label that Kubernetes itself gives every namespace."""
    return {"kubernetes.io/metadata.name": namespace}


def _names(pods: list[End], sources: list[End]) -> str:
    return "every pod of a run" if len(pods) == len(sources) else ", ".join(pod.name for pod in pods)


def _told(connection: Connection) -> str:
    return f"{connection.target.name} ({connection.protocol} {connection.port})"


def _remedy(connection: Connection) -> str:
    target = connection.target
    pods = ", ".join(f"{label}={value}" for label, value in target.labels.items())
    where = f"pods {pods} of namespace {target.namespace}" if target.namespace else target.address or target.name
    return f"allow egress to {where}, and ingress there; see manifests/"
