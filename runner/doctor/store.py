"""Whether S3 does what launcher and steps ask of it: written, read and removed under a name of its own."""

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
from runner.doctor.launcher import ACCESS, ENDPOINT, Place, is_internal, places
from runner.doctor.plan import Run

CONNECT_SECONDS = 3
AUTHORITIES = "AWS_CA_BUNDLE"  # which pods take from the ConfigMap, as they do the file ca.crt
FOLDER = "torch2kubeflow-doctor"  # below the store's prefix; what is written there is removed again


def check_store(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Each place in S3 that a run uses, tried from this machine with the pods' own credentials."""
    with tempfile.TemporaryDirectory() as folder:
        trusted = _trusted(cluster, run, Path(folder))
        for place in places(cluster, run):
            yield from _check_place(cluster, run, place._replace(environment=place.environment | trusted))


def _trusted(cluster: Cluster, run: Run, folder: Path) -> dict[str, str]:
    """What a pod is told of authorities, their file in `folder`; a step's variables are its launcher's too."""
    values = cluster.config(run.parameters["s3_config"]) or {}
    if not (values.get(AUTHORITIES) and values.get("ca.crt")):
        return {}
    (folder / "ca.crt").write_text(values["ca.crt"])
    return {AUTHORITIES: str(folder / "ca.crt")}


def _check_place(cluster: Cluster, run: Run, place: Place) -> Iterator[Finding]:
    endpoint = run.s3_endpoint or place.endpoint
    what = f"{place.uri} of {place.user}"
    if not _is_reachable(endpoint):
        yield unknown(f"{what}: {endpoint} cannot be reached from this machine", _way_to(endpoint))
        return
    if ACCESS not in place.environment:
        yield unknown(f"{what}: its credentials exist in a pod alone", "nothing to do, unless a run is denied access")
        return
    if endpoint.startswith("http:") and not is_internal(endpoint) and not run.s3_endpoint:
        yield warning(f"{what}: {endpoint} is not encrypted (no TLS)", f"set {ENDPOINT} to its https:// address")
    try:
        yield from _try(open_store(place.uri, place.environment | {ENDPOINT: endpoint}, attempts=2), what)
    except UserError as error:
        told, _, remedy = str(error).partition("; ")
        yield problem(f"{what}: {told}", remedy)


def _try(store: Store, what: str) -> Iterator[Finding]:
    """Write, read and remove a small object and a large one, and see whether conditions are kept."""
    small, large = (f"{FOLDER}/{uuid4().hex}-{size}" for size in ("small", "large"))
    try:
        etag = store.put_bytes(b"1", small)
        if store.get_bytes(small)[0] != b"1":
            yield problem(f"{what}: what was written is not what is read", "ask the owner of the S3 server")
        conditional = _refuses(store, small, if_absent=True) and _refuses(store, small, if_match=f"{etag}0")
        if not conditional:
            yield warning(
                f"{what}: the server ignores If-None-Match or If-Match; runs at the same time may overwrite each other",
                "take an S3 server that honours conditional writes (AWS, MinIO, SeaweedFS 4), or run one at a time",
            )
        _send_in_parts(store, large)
        store.remove(small, large)
    except BaseException:
        with contextlib.suppress(UserError):
            store.remove(small, large)
        raise
    if store.exists(small) or store.exists(large):
        yield problem(f"{what}: removed objects are still there", "does the bucket keep objects by a lock?")
        return
    yield ok(f"{what}: written, read and removed, also in parts{' and on conditions' if conditional else ''}")


def _refuses(store: Store, name: str, *, if_absent: bool = False, if_match: str = "") -> bool:
    try:
        store.put_bytes(b"2", name, if_absent=if_absent, if_match=if_match)
    except Conflict:
        return True
    return False


def _send_in_parts(store: Store, name: str) -> None:
    """A file of more than one part, there and back; UserError where it comes back otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large"
        path.write_bytes(bytes(PART_BYTES + 1))
        store.get_file(name, Path(folder) / "back", sha256=store.put_file(path, name))


def _way_to(endpoint: str) -> str:
    if not is_internal(endpoint):
        return f"check {ENDPOINT}, or look again from a machine that reaches it"
    parts = urlsplit(endpoint)
    service, _, rest = (parts.hostname or "").partition(".")
    forward = f"kubectl -n {rest.partition('.')[0]} port-forward svc/{service} {parts.port or 80}"
    return f"{forward}, and here --s3-endpoint {parts.scheme}://localhost:{parts.port or 80}"


def _is_reachable(endpoint: str) -> bool:
    """Whether something listens there; the S3 client would try for a minute."""
    parts = urlsplit(endpoint)
    try:
        address = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
