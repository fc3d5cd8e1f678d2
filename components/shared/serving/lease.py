"""One deploy at a time: a Lease of Kubernetes beside the InferenceService, held while something is changed.

It expires a minute after its holder was killed; until then, others are refused.
"""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from components.shared.core.errors import UserError
from components.shared.serving.inference_service import Object
from components.shared.serving.kubernetes_api import Conflict, KubernetesApi, Missing, Refused

SECONDS = 60
RENEWED_AFTER = 15.0
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class DeployLease:
    """A Lease that this process holds."""

    def __init__(self, api: KubernetesApi, collection: str, service: str, lease: Object) -> None:
        self._api, self._path = api, f"{collection}/{lease['metadata']['name']}"
        self._service, self._lease = service, lease

    def renew(self) -> None:
        """Keep the lease, if it is time to. Raises UserError if another process has it by now."""
        spec = self._lease["spec"]
        if _now() - _time(spec["renewTime"]) < timedelta(seconds=RENEWED_AFTER):
            return
        try:
            self._lease = self._api.replace(self._path, self._lease | {"spec": spec | {"renewTime": _text(_now())}})
        except (Conflict, Missing):
            raise UserError(
                f"another process has taken over the deployment of {self._service}",
                "see what serves with --status",
            ) from None

    def release(self) -> None:
        """Let others deploy, unless the lease is another's by now."""
        with suppress(Refused):
            found = self._api.get(self._path)
            if found["spec"].get("holderIdentity") == self._lease["spec"]["holderIdentity"]:
                self._api.delete(self._path, found["metadata"]["uid"])


@contextmanager
def hold(api: KubernetesApi, namespace: str, service: str, takes_over: bool = False) -> Iterator[DeployLease]:
    """Hold the lease of an InferenceService during the block. Raises UserError if another process does.

    If it `takes_over`, that process ends at its next look at the lease.
    """
    collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    lease = DeployLease(api, collection, service, _acquire(api, collection, service, takes_over))
    try:
        yield lease
    finally:
        lease.release()


def _acquire(api: KubernetesApi, collection: str, service: str, takes_over: bool) -> Object:
    now = _text(_now())
    spec = {"holderIdentity": _identity(), "leaseDurationSeconds": SECONDS, "acquireTime": now, "renewTime": now}
    metadata = {"name": f"{service}-deploy"}
    new = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    try:
        return api.create(collection, new)
    except Conflict:
        pass
    try:
        found = api.get(f"{collection}/{metadata['name']}")
        if not takes_over:
            _check_expired(found["spec"], service)
        return api.replace(f"{collection}/{metadata['name']}", found | {"spec": spec})
    except (Conflict, Missing):  # it was released, or taken, in this moment
        raise UserError(f"another process deploys {service} at this moment", "wait, and deploy again") from None


def _check_expired(spec: Object, service: str) -> None:
    """Raise UserError unless the holder of a lease has not renewed it in time, as one that was killed."""
    end = _time(spec["renewTime"]) + timedelta(seconds=spec.get("leaseDurationSeconds") or SECONDS)
    if spec.get("holderIdentity") and end > _now():
        since = spec.get("acquireTime", "a time that is not known")
        raise UserError(
            f"{spec['holderIdentity']} deploys {service} since {since}",
            f"wait for its end; if it was killed, deploy again after {_text(end)}",
        )


def _identity() -> str:
    """Return who holds a lease, for people: the user, the machine, and the process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a pod's user that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def _now() -> datetime:
    return datetime.now(UTC)


def _text(time: datetime) -> str:
    return time.strftime(TIME)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
