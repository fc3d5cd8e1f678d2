"""The objects that serving needs of the Kubernetes API: plain JSON by path, with refusals in one line."""

import json
from typing import Any

from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config
from urllib3.exceptions import HTTPError

from components.shared.core.errors import UserError
from components.shared.storage.retry import TRANSIENT, Retries, reason_of

Object = dict[str, Any]

SECONDS = (5, 30)  # to connect, to answer
MERGE_PATCH = "application/merge-patch+json"  # the only one besides JSON patch that objects of a CRD know
RIGHTS = "grant this right: manifests/serving/rbac.yaml has a Role with all that deploy needs"
STRICT = (("fieldValidation", "Strict"),)  # else the API server drops fields that it does not know, in silence


class Refused(UserError):
    """An answer of the Kubernetes API that is an error; `reason` is its own text."""

    def __init__(self, status: int, action: str, reason: str) -> None:
        remedies = {401: "log in to the cluster again", 403: RIGHTS}
        by_webhook = "denied the request" in reason
        remedy = "see the cluster" if by_webhook else remedies.get(status, "see the cluster")
        super().__init__(f"Kubernetes refuses to {action} ({status}): {reason}", remedy)
        self.status, self.reason = status, reason


class Missing(Refused):
    """There is no such object, or no such kind of objects."""


class Conflict(Refused):
    """The object was changed, or made, by another since it was read."""


KINDS: dict[int, type[Refused]] = {404: Missing, 409: Conflict}


class KubernetesApi:
    """Reads and changes objects by their path. Each method raises Refused, and TransientError after a minute."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def get(self, path: str, **query: str) -> Object:
        """Return an object, or a list."""
        return self._call("GET", path, tuple(query.items()), None, f"read {_named(path)}")

    def create(self, path: str, body: Object) -> Object:
        """Create an object in the collection at `path`, and return it."""
        return self._call("POST", path, STRICT, body, f"create {_named(path)} {body['metadata']['name']}")

    def patch(self, path: str, body: Object) -> Object:
        """Change the fields of an object that `body` has, and return the object; None removes a field."""
        return self._call("PATCH", path, STRICT, body, f"change {_named(path)}", MERGE_PATCH)

    def replace(self, path: str, body: Object) -> Object:
        """Write an object, of the same `resourceVersion`, and return it."""
        return self._call("PUT", path, STRICT, body, f"change {_named(path)}")

    def delete(self, path: str, uid: str) -> None:
        """Delete the object with this uid."""
        self._call("DELETE", path, (), {"preconditions": {"uid": uid}}, f"delete {_named(path)}")

    def _call(
        self,
        method: str,
        path: str,
        query: tuple[tuple[str, str], ...],
        body: Object | None,
        action: str,
        content_type: str = "application/json",
    ) -> Object:
        retries = Retries("the Kubernetes API", "run it again: what is there already is taken up")
        while True:
            try:
                answer = self._client.call_api(
                    path,
                    method,
                    query_params=list(query),
                    header_params={"Accept": "application/json", "Content-Type": content_type},
                    body=body,
                    response_type="object",
                    auth_settings=["BearerToken"],
                    _return_http_data_only=True,
                    _request_timeout=SECONDS,
                )
                return dict(answer)
            except ApiException as error:
                if error.status not in TRANSIENT:
                    raise KINDS.get(error.status, Refused)(error.status, action, _reason(error)) from None
                retries.failed(f"answered {error.status}")
            except HTTPError as error:
                retries.failed(reason_of(error))


def api_of_pod() -> KubernetesApi:
    """Return the API as this pod's service account reaches it. Raises OSError if this is no pod."""
    configuration = Configuration()
    try:
        load_incluster_config(configuration)
    except ConfigException as error:
        raise OSError(str(error)) from None
    return KubernetesApi(ApiClient(configuration))


def _reason(error: ApiException) -> str:
    try:
        return " ".join(str(json.loads(error.body)["message"]).split())
    except (TypeError, ValueError, KeyError):
        return str(error.reason or "no reason given")


def _named(path: str) -> str:
    """Return the kind of the objects at a path, their namespace and the name of the one."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    place = f" of namespace {parts[1]}" if parts[:1] == ["namespaces"] and len(parts) > 2 else ""
    kind_and_name = parts[2:] if place else parts
    return " ".join(kind_and_name) + place
