"""Check that S3 does what launcher and steps need, with objects under a name of the doctor's own."""

import contextlib
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from components.shared.core.errors import UserError
from components.shared.storage.client import PART_BYTES, Store, open_store
from components.shared.storage.errors import Conflict
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.launcher import ACCESS, ENDPOINT, Location, is_internal, locations
from runner.doctor.preflight import Preflight

CONNECT_SECONDS = 3
CA_BUNDLE = "AWS_CA_BUNDLE"
FOLDER = "torch2kubeflow-doctor"  # under the store's prefix


def check_s3(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check each location in S3 that a run uses, from this machine and with the pods' own credentials."""
    with tempfile.TemporaryDirectory() as folder:
        trusted = _trusted_authorities(cluster, preflight, Path(folder))
        for location in locations(cluster, preflight):
            location = location._replace(environment=location.environment | trusted)
            yield from _check_location(location, preflight.s3_endpoint)


def _trusted_authorities(cluster: Cluster, preflight: Preflight, folder: Path) -> dict[str, str]:
    """Return the variable that names the pods' certificate authorities, after writing them to a file in `folder`."""
    values = cluster.config_map(preflight.parameters["s3_config"]) or {}
    if not values.get("ca.crt"):  # which the pods mount
        return {}
    (folder / "ca.crt").write_text(values["ca.crt"])
    return {CA_BUNDLE: str(folder / "ca.crt")}


def _check_location(location: Location, s3_endpoint: str) -> Iterator[Finding]:
    """Check one location, at `s3_endpoint` if this machine needs another address than the pods."""
    endpoint = s3_endpoint or location.endpoint
    what = f"{location.uri} of {location.user}"
    if not _is_reachable(endpoint):
        yield unknown(f"{what}: {endpoint} cannot be reached from this machine", _how_to_reach(endpoint))
        return
    if ACCESS not in location.environment:
        yield unknown(f"{what}: its credentials exist only in a pod", "nothing to do, unless a run is denied access")
        return
    if endpoint.startswith("http:") and not is_internal(endpoint) and not s3_endpoint:
        yield warning(f"{what}: {endpoint} is not encrypted (no TLS)", f"set {ENDPOINT} to its https:// address")
    try:
        store = open_store(location.uri, location.environment | {ENDPOINT: endpoint}, attempts=2)
        yield from _try(store, what)
    except UserError as error:
        yield problem(f"{what}: {error.message}", error.remedy)


def _try(store: Store, what: str) -> Iterator[Finding]:
    """Write, read and remove a small object and a large one, and check conditional writes."""
    small, large = (f"{FOLDER}/{uuid4().hex}-{size}" for size in ("small", "large"))
    try:
        etag = store.put_bytes(b"1", small)
        if store.get_bytes(small)[0] != b"1":
            yield problem(f"{what}: an object was read back changed", "report it to the owner of the S3 server")
        conditional = _refuses(store, small, if_absent=True) and _refuses(store, small, if_match=f"{etag}0")
        if not conditional:
            yield warning(
                f"{what}: the server ignores If-None-Match or If-Match; concurrent runs may overwrite each other",
                "use an S3 server that honours conditional writes (AWS, MinIO, SeaweedFS 4), or run one at a time",
            )
        _send_in_parts(store, large)
        store.remove(small, large)
    except BaseException:
        with contextlib.suppress(UserError):
            store.remove(small, large)
        raise
    if store.exists(small) or store.exists(large):
        yield problem(f"{what}: removed objects still exist", "check the bucket for object lock or a retention rule")
        return
    yield ok(f"{what}: written, read and removed, also in parts{' and conditionally' if conditional else ''}")


def _refuses(store: Store, name: str, *, if_absent: bool = False, if_match: str = "") -> bool:
    try:
        store.put_bytes(b"2", name, if_absent=if_absent, if_match=if_match)
    except Conflict:
        return True
    return False


def _send_in_parts(store: Store, name: str) -> None:
    """Upload and download a file of more than one part. Raises UserError if it comes back changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large"
        path.write_bytes(bytes(PART_BYTES + 1))
        store.get_file(name, Path(folder) / "back", sha256=store.put_file(path, name))


def _how_to_reach(endpoint: str) -> str:
    if not is_internal(endpoint):
        return f"check {ENDPOINT}, or run doctor on a machine that reaches it"
    parts = urlsplit(endpoint)
    service, _, rest = (parts.hostname or "").partition(".")
    forward = f"kubectl -n {rest.partition('.')[0]} port-forward svc/{service} {parts.port or 80}"
    return f"{forward}, and give --s3-endpoint {parts.scheme}://localhost:{parts.port or 80}"


def _is_reachable(endpoint: str) -> bool:
    """Return whether something listens there, within seconds; the S3 client would retry for a minute."""
    parts = urlsplit(endpoint)
    try:
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
