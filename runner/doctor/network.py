"""Check whether NetworkPolicies let the pods of a run reach what they need.

By the rules of networking.k8s.io/v1, policies only allow; a pod that no policy selects for a direction is open in it.
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

from runner.cluster.kube import is_internal
from runner.doctor.cluster import SECONDS, Cluster
from runner.doctor.finding import Finding, ok, problem, refused, warning
from runner.doctor.launcher import endpoints
from runner.doctor.preflight import RUN_LABELS, Preflight, step_of

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
    """One end of a flow: a pod, known by its namespace and labels, or an address outside the pods' network."""

    name: str
    namespace: str  # empty for an address
    namespace_labels: dict[str, str]
    labels: dict[str, str]
    address: str = ""  # its IP address; empty for a pod, and if it is not known
    in_blocks: bool = False  # whether an ipBlock of all addresses covers a pod, as with some CNIs


class Flow(NamedTuple):
    """Traffic that a pod must be able to open; the port is the target pod's, not its Service's."""

    target: End
    port: int
    protocol: str = "TCP"


def check_network(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check that steps and KFP's drivers may open every flow that a pipeline's pod needs."""
    api = NetworkingV1Api(cluster.api)
    policies = cluster.items(api.list_namespaced_network_policy, cluster.namespace)
    if not cluster.is_standalone:
        try:
            policies += cluster.items(api.list_namespaced_network_policy, cluster.kfp_namespace)
        except ApiException as error:
            yield refused(error)
    flows = [*_always_needed(cluster), *_object_stores(cluster, preflight)]
    try:
        flows.append(_kubernetes(cluster))
    except ApiException as error:
        yield refused(error)
    sources = list(_sources(cluster, preflight))
    findings = [finding for flow in flows for finding in _judge(policies, sources, flow)]
    yield from findings
    if not findings:
        yield ok(f"{len(policies)} NetworkPolicies allow what steps and drivers need")


def allows(policies: list[V1NetworkPolicy], source: End, flow: Flow) -> bool:
    """Return whether the policies let `source` open the flow, at its own end and at the target's."""
    target, port = flow.target, (flow.port, flow.protocol)
    return _open(policies, "Egress", source, target, *port) and _open(policies, "Ingress", target, source, *port)


def _judge(policies: list[V1NetworkPolicy], sources: list[End], flow: Flow) -> Iterator[Finding]:
    """Yield findings about the sources that may be unable to open a flow, none if all certainly can."""
    barred = [pod for pod in sources if not allows(policies, pod, flow)]
    by_block = flow._replace(target=_in_blocks(flow.target))
    closed = [pod for pod in barred if not allows(policies, _in_blocks(pod), by_block)]
    doubtful = [pod for pod in barred if pod not in closed]
    if closed:
        yield problem(f"a NetworkPolicy keeps {_names(closed, sources)} from {_describe(flow)}", _remedy(flow))
    if doubtful:
        yield warning(
            f"NetworkPolicies let {_names(doubtful, sources)} reach {_describe(flow)} only by an ipBlock, "
            "which covers pods with some CNIs only",
            _remedy(flow),
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
    if peer is None:  # a rule without peers covers all
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
    """Return whether a block has all addresses, except perhaps link-local ones (cloud metadata)."""
    holes = [ipaddress.ip_network(cidr) for cidr in peer.ip_block._except or []]
    return ipaddress.ip_network(peer.ip_block.cidr).prefixlen == 0 and all(hole.is_link_local for hole in holes)


def _is_in_block(peer: V1NetworkPolicyPeer, address: str) -> bool:
    if not address:  # not known from here: it may be in this block
        return True
    ip = ipaddress.ip_address(address)
    inside, *holes = (ipaddress.ip_network(cidr) for cidr in (peer.ip_block.cidr, *(peer.ip_block._except or [])))
    return ip in inside and not any(ip in hole for hole in holes)


def _is_port(allowed: V1NetworkPolicyPort | None, port: int, protocol: str) -> bool:
    if allowed is None:  # a rule without ports covers all
        return True
    if (allowed.protocol or "TCP") != protocol:
        return False
    if not isinstance(allowed.port, int):  # all ports, or a named one, whose number only the pod knows
        return True
    return bool(allowed.port <= port <= (allowed.end_port or allowed.port))


def _sources(cluster: Cluster, preflight: Preflight) -> Iterator[End]:
    """Yield every step's pod, and KFP's drivers, which have none of our labels."""
    for pod in preflight.pods:
        yield End(f"step {step_of(pod)}", cluster.namespace, cluster.namespace_labels, pod.metadata.labels)
    yield End("KFP's driver", cluster.namespace, cluster.namespace_labels, RUN_LABELS)


def _always_needed(cluster: Cluster) -> Iterator[Flow]:
    """Yield the flows to DNS and KFP's services, by the labels that Kubernetes' and KFP's manifests give their pods."""
    dns = End("DNS", "kube-system", _name_label("kube-system"), {"k8s-app": "kube-dns"})
    yield Flow(dns, 53, "UDP")
    for name, (label, value), ports in KFP_SERVICES:
        target = _kfp_pod(cluster, name, {label: value})
        yield from (Flow(target, port) for port in ports)


def _object_stores(cluster: Cluster, preflight: Preflight) -> Iterator[Flow]:
    """Yield the flows to the S3 servers of KFP's launcher and of the steps."""
    for endpoint in sorted(endpoints(cluster, preflight)):
        address = urlsplit(endpoint)
        service, _, rest = (address.hostname or "").partition(".")
        if service == "seaweedfs" and rest.partition(".")[0] == cluster.kfp_namespace:
            yield Flow(_kfp_pod(cluster, "seaweedfs", {"app": "seaweedfs"}), SEAWEEDFS_PORT)
        elif not is_internal(endpoint):  # the pods and port of another Service are not known
            yield Flow(_outside(endpoint), address.port or (443 if address.scheme == "https" else 80))


def _kubernetes(cluster: Cluster) -> Flow:
    """Return the flow to the Kubernetes API, at the address where it listens itself."""
    subset = cluster.core.read_namespaced_endpoints("kubernetes", "default", _request_timeout=SECONDS).subsets[0]
    return Flow(_outside("the Kubernetes API", subset.addresses[0].ip), subset.ports[0].port)


def _kfp_pod(cluster: Cluster, name: str, labels: dict[str, str]) -> End:
    namespace = cluster.kfp_namespace
    known = cluster.namespace_labels if cluster.is_standalone else _name_label(namespace)
    return End(name, namespace, known, labels | {"application-crd-id": "kubeflow-pipelines"})


def _outside(name: str, address: str = "") -> End:
    return End(name, "", {}, {}, address)


def _name_label(namespace: str) -> dict[str, str]:
    """Return the label that Kubernetes itself gives every namespace."""
    return {"kubernetes.io/metadata.name": namespace}


def _names(pods: list[End], sources: list[End]) -> str:
    return "every pod of a run" if len(pods) == len(sources) else ", ".join(pod.name for pod in pods)


def _describe(flow: Flow) -> str:
    return f"{flow.target.name} ({flow.protocol} {flow.port})"


def _remedy(flow: Flow) -> str:
    target = flow.target
    pods = ", ".join(f"{label}={value}" for label, value in target.labels.items())
    peer = f"pods {pods} of namespace {target.namespace}" if target.namespace else target.address or target.name
    return f"allow egress to {peer}, and ingress there; see manifests/"
