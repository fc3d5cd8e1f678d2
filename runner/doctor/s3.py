"""Check that S3 does what launcher and steps need, with objects under a name of the doctor's own.

A server inside the cluster is reached as the Kubernetes API is, by a port-forward to one of its pods.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

from kubernetes.client import V1Service
from kubernetes.client.exceptions import ApiException
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from components.shared.core.errors import UserError
from components.shared.storage.client import PART_BYTES, Store, open_store
from components.shared.storage.conditions import not_honored
from runner.cluster.artifacts.location import ACCESS, ENDPOINT, Location
from runner.cluster.kube import Target, is_internal, is_reachable, labels_of, open_tunnel, port_of
from runner.cluster.rest import ApiError
from runner.doctor.cluster import SECONDS, Cluster
from runner.doctor.finding import Finding, ok, problem, refused, unknown, warning
from runner.doctor.launcher import STEPS, locations
from runner.doctor.preflight import Preflight
from runner.doctor.rights import Right, denied_right

CA_BUNDLE = "AWS_CA_BUNDLE"
FILER_PORT = 8888  # of SeaweedFS
FOLDER = "torch2kubeflow-doctor"  # under the store's prefix


class Unreachable(UserError):
    """An S3 server that this machine cannot reach, perhaps for want of a right; pods may reach it."""

    def __init__(self, message: str, remedy: str, right: Right | None = None) -> None:
        super().__init__(message, remedy)
        self.right = right


def check_s3(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check each location in S3 that a run uses, from this machine and with the pods' own credentials."""
    with tempfile.TemporaryDirectory() as folder:
        trusted = _trusted_authorities(cluster, preflight, Path(folder))
        for location in locations(cluster, preflight):
            location = location._replace(environment=location.environment | trusted)
            yield from _check_location(cluster, location, preflight.s3_endpoint)


def _trusted_authorities(cluster: Cluster, preflight: Preflight, folder: Path) -> dict[str, str]:
    """Return the variable that names the pods' certificate authorities, after writing them to a file in `folder`."""
    values = cluster.config_map(preflight.parameters["s3_config"]) or {}
    if not values.get("ca.crt"):  # which the pods mount
        return {}
    (folder / "ca.crt").write_text(values["ca.crt"])
    return {CA_BUNDLE: str(folder / "ca.crt")}


def _check_location(cluster: Cluster, location: Location, s3_endpoint: str) -> Iterator[Finding]:
    """Check one location, at `s3_endpoint` if this machine needs another address than the pods."""
    endpoint = s3_endpoint or location.endpoint
    what = f"{location.uri} of {location.user}"
    try:
        connection = _reach(cluster, endpoint)
        if ACCESS not in location.environment:
            yield unknown(
                f"{what}: its credentials exist only in a pod", "nothing to do, unless a run is denied access"
            )
            return
        if endpoint.startswith("http:") and not is_internal(endpoint) and not s3_endpoint:
            yield warning(f"{what}: {endpoint} is not encrypted (no TLS)", f"set {ENDPOINT} to its https:// address")
        environment = location.environment | {ENDPOINT: endpoint}
        store = open_store(location.uri, environment, attempts=2, connection=connection)
        yield from _try(store, what, needs_conditions=location.user == STEPS)
        if connection and _has_open_filer(cluster, endpoint):
            yield warning(
                f"{what}: the filer of its SeaweedFS (port {FILER_PORT}) serves all objects without keys",
                "let a NetworkPolicy, which the cluster enforces, keep pods from it, or give its parts certificates",
            )
    except Unreachable as error:
        yield Finding("unknown", f"{what}: {error.message}", error.remedy, error.right)
    except UserError as error:
        yield problem(f"{what}: {error.message}", error.remedy)
    except ApiException as error:
        yield refused(error)


def _has_open_filer(cluster: Cluster, endpoint: str) -> bool:
    """Return whether the pods behind an address have the filer of a SeaweedFS that asks for no certificate."""
    target = _target(cluster, urlsplit(endpoint))._replace(port=FILER_PORT)
    try:
        with contextlib.closing(open_tunnel(cluster.core, target)("", timeout=SECONDS[1])) as filer:
            filer.request("GET", "/")
            answer = filer.getresponse()
    except (OSError, HTTPException, HTTPError, ApiError):  # nothing listens there, or not to us
        return False
    return answer.status == 200 and answer.headers.get("Server", "").startswith("SeaweedFS")


def _try(store: Store, what: str, needs_conditions: bool) -> Iterator[Finding]:
    """Write, read and remove a small object and a large one, and check conditional writes, which only steps need."""
    small, large = (f"{FOLDER}/{uuid4().hex}-{size}" for size in ("small", "large"))
    try:
        store.put_bytes(b"1", small)
        if store.get_bytes(small)[0] != b"1":
            yield problem(f"{what}: an object was read back changed", "report it to the owner of the S3 server")
        ignored = store.ignored_condition(small)
        _send_in_parts(store, large)
        store.remove(small, large)
    except BaseException:
        with contextlib.suppress(UserError):
            store.remove(small, large)
        raise
    if store.exists(small) or store.exists(large):
        yield problem(f"{what}: removed objects still exist", "check the bucket for object lock or a retention rule")
    elif ignored and needs_conditions:
        error = not_honored(store.uri(), ignored)
        yield problem(f"{what}: {error.message}", error.remedy)
    else:
        yield ok(f"{what}: written, read and removed, also in parts{'' if ignored else ' and conditionally'}")


def _send_in_parts(store: Store, name: str) -> None:
    """Upload and download a file of more than one part. Raises UserError if it comes back changed."""
    # A transfer logs its progress, which would stand before the table.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "large"
        path.write_bytes(bytes(PART_BYTES + 1))
        store.get_file(name, Path(folder) / "back", sha256=store.put_file(path, name))


def _reach(cluster: Cluster, endpoint: str) -> type[HTTPConnection] | None:
    """Return a connection through the Kubernetes API if the server can only be reached so, else None.

    Raises Unreachable if there is no way to it from here, and UserError if there is none for pods either.
    """
    address = urlsplit(endpoint)
    if is_reachable(address):
        return None
    if not is_internal(endpoint):
        message = f"{endpoint} cannot be reached from this machine"
        raise Unreachable(message, f"check {ENDPOINT}, or run doctor on a machine that reaches it")
    target = _target(cluster, address)
    try:
        return open_tunnel(cluster.core, target, address.scheme)
    except ApiError as error:
        if error.status in (404, 503):  # no pod listens there
            raise
        answer = str(error.__cause__).replace("\\", "")  # of a websocket it is quoted
        raise Unreachable(error.message, error.remedy, denied_right(answer)) from None


def _target(cluster: Cluster, address: SplitResult) -> Target:
    """Return the pods and their port behind a Service's address. Raises as `_reach` does."""
    name, _, rest = (address.hostname or "").partition(".")
    namespace = rest.partition(".")[0] or cluster.namespace
    service = cluster.read(cluster.core.read_namespaced_service, name, namespace)
    if service and service.spec.selector:
        port = _pods_port(service, port_of(address))
        return Target(namespace, labels_of(service.spec.selector), port, f"kubectl -n {namespace} get pods")
    message = f"there is no Service {name} with pods in namespace {namespace}"
    if service or namespace not in (cluster.namespace, cluster.kfp_namespace):  # perhaps a name outside the cluster
        raise Unreachable(message, f"check {ENDPOINT}, or give --s3-endpoint with an address that this machine reaches")
    raise UserError(message, f"correct the address of S3: {ENDPOINT}, or endpoint in ConfigMap kfp-launcher")


def _pods_port(service: V1Service, port: int) -> int | str:
    """Return the port of the pods behind a Service's port. Raises UserError if it has no such port."""
    for found in service.spec.ports or []:
        if found.port == port:
            return found.target_port or port
    ports = ", ".join(str(found.port) for found in service.spec.ports or [])
    raise UserError(
        f"Service {service.metadata.name} has no port {port}",
        f"correct the address of S3: the Service has {ports or 'none'}",
    )
