"""A server of the Kubernetes API on the loopback interface, for the real `kubernetes` client.

Its answers and refusals follow those of the API server (Status objects, RBAC's and admission's messages, dry runs); the
models of `kubernetes.client` build what it sends and check what it receives, field by field.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml
from kubernetes import client

from tests.servers.json_handler import JsonHandler
from tests.servers.web_server import serving
from tests.servers.websocket import WebsocketHandler

TOKEN = "kube-token-7d31"
USER = "ada"
PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/v1(?:alpha1|beta1)?)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<rest>[a-z/0-9.-]+)"
)
CUSTOM = ("trainer.kubeflow.org", "argoproj.io", "serving.kserve.io")  # groups of CRDs
PLURALS = {"Endpoints": "endpoints", "NetworkPolicy": "networkpolicies"}
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "AlreadyExists",
    422: "Invalid",
    500: "InternalError",
    503: "ServiceUnavailable",
}
MODELS = {"pods": "V1Pod", "localsubjectaccessreviews": "V1LocalSubjectAccessReview"}


@dataclass(frozen=True)
class Request:
    """One request as RBAC sees it; `name` is empty for a list and for what is to be created."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


class Refusal(Exception):
    """An error that the server answers: an HTTP status and the message of a Status object."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class KubeServer(ThreadingHTTPServer):
    """The server and its objects; a test may read and set all of them."""

    daemon_threads = True  # so that a client's idle connection does not block the end

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), KubeHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.token = TOKEN
        self.objects: dict[tuple[str, str, str], Any] = {}  # (resource, namespace, name) -> model
        self.custom: dict[str, list[Any]] = {}  # resource that a CRD defines -> its objects
        self.logs: dict[str, str] = {}  # pod -> log
        self.denied: set[str] = set()  # what the user may not do: "list nodes", or "list pods in kubeflow" (or in *)
        self.account_lacks: set[str] = set()  # the same for service accounts
        self.admission = ""  # the message with which admission refuses a pod
        self.forwards: dict[tuple[str, int], int] = {}  # (pod, port) -> the port of this machine that it stands for
        self.faults: dict[str, Answer] = {}  # "list nodes" and the like -> what is answered instead
        self.requests: list[Request] = []
        self.created: list[Any] = []  # models that were sent
        self.breaches: list[str] = []  # what the client sent against the API
        self._api = client.ApiClient(client.Configuration())

    def add(self, *models: Any) -> None:
        """Add objects, in place of earlier ones of the same name."""
        for model in models:
            kind = type(model).__name__.removeprefix("V1")
            resource = PLURALS.get(kind) or f"{kind.lower()}s"
            self.objects[resource, model.metadata.namespace or "", model.metadata.name] = model

    def remove(self, resource: str, name: str) -> None:
        """Remove an object, whichever its namespace."""
        for key in [key for key in self.objects if (key[0], key[2]) == (resource, name)]:
            del self.objects[key]

    def write_kubeconfig(self, path: Path) -> None:
        """Write the kubeconfig of a user of this server."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "loopback",
            "clusters": [{"name": "loopback", "cluster": {"server": self.url}}],
            "users": [{"name": USER, "user": {"token": TOKEN}}],
            "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": USER}}],
        }
        path.write_text(yaml.safe_dump(document))

    def answer(self, request: Request, query: dict[str, str], body: bytes) -> Any:
        """Return the answer to a request as JSON. Raises Refusal for an error."""
        self._check_right(request)
        if request.verb == "create":
            return self.to_json(self._create(request, query, body))
        if request.group in CUSTOM:
            if request.resource not in self.custom:
                raise Refusal(404, "404 page not found")
            return _list(self.custom[request.resource], query)
        if request.resource == "pods/log":
            return self._log(request.name, query)
        if request.verb == "list":
            objects = self.objects.items()
            found = [m for key, m in objects if key[0] == request.resource and request.namespace in ("", key[1])]
            return _list([self.to_json(m) for m in found], query)
        try:
            return self.to_json(self.objects[request.resource, request.namespace, request.name])
        except KeyError:
            raise Refusal(404, f'{request.resource} "{request.name}" not found') from None

    def _log(self, pod: str, query: dict[str, str]) -> str:
        """Return a pod's log; with times, one second after the other. Kubernetes' documentation has the parameters."""
        if pod not in self.logs:
            raise Refusal(400, f'container "{query["container"]}" in pod "{pod}" is waiting to start: PodInitializing')
        lines = self.logs[pod].splitlines()
        if query.get("timestamps") in ("True", "true"):
            start = datetime(2026, 1, 1, tzinfo=UTC)
            times = [(start + timedelta(seconds=number)).strftime("%FT%T.000000000Z") for number in range(len(lines))]
            lines = [f"{time} {line}" for time, line in zip(times, lines, strict=True)]
        return "\n".join(lines) + "\n"

    def forward_to(self, request: Request, port: int) -> int:
        """Return the port of this machine that the port of a pod stands for. Raises Refusal for an error.

        At a port that stands for none, nothing listens.
        """
        self._check_right(request)
        return self.forwards.get((request.name, port), 1)

    def _check_right(self, request: Request) -> None:
        if {str(request), f"{request} in {request.namespace or '*'}"} & self.denied:
            raise Refusal(403, _denial(request))

    def to_json(self, model: Any) -> Any:
        return self._api.sanitize_for_serialization(model)

    def _create(self, request: Request, query: dict[str, str], body: bytes) -> Any:
        """Check a new object against its model, and answer as to a dry run or a review."""
        model = self._api.deserialize(SimpleNamespace(data=body), MODELS[request.resource])
        assert self.to_json(model) == json.loads(body), f"fields that the API does not know: {body!r}"
        self.created.append(model)
        if request.resource == "pods":
            assert query == {"dryRun": "All"}, "not a dry run"
            if self.admission:
                raise Refusal(403, f'pods "{model.metadata.name}" is forbidden: {self.admission}')
            return model
        asked = model.spec.resource_attributes
        assert model.spec.user and asked.namespace == model.metadata.namespace == request.namespace
        resource = f"{asked.resource}/{asked.subresource}" if asked.subresource else asked.resource
        assert "/" not in asked.resource, "RBAC takes the part of an object as subresource"
        allowed = f"{asked.verb} {resource}" not in self.account_lacks
        model.status = client.V1SubjectAccessReviewStatus(allowed=allowed)
        return model


class KubeHandler(JsonHandler, WebsocketHandler):
    server: KubeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits for the client's delayed acknowledgement

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.refuse(Refusal(401, "Unauthorized"))
        parts = urlsplit(self.path)
        if parts.path == "/version/":
            return self.reply(200, self.server.to_json(VERSION))
        request = _request(self.command, parts.path)
        self.server.requests.append(request)
        fault = self.server.faults.get(str(request))
        if fault:
            return fault(self)
        query = dict(parse_qsl(parts.query))
        try:
            if self.is_websocket:
                port = int(query["ports"])
                return self.forward(port, self.server.forward_to(request, port))
            return self.reply(200, self.server.answer(request, query, body))
        except Refusal as refusal:
            return self.refuse(refusal)
        except AssertionError as breach:
            self.server.breaches.append(f"{request}: {breach}")
            return self.refuse(Refusal(400, str(breach)))

    do_POST = do_GET

    def refuse(self, refusal: Refusal) -> None:
        status = client.V1Status(
            kind="Status",
            api_version="v1",
            status="Failure",
            code=refusal.status,
            message=refusal.message,
            reason=REASONS[refusal.status],
        )
        self.reply(refusal.status, self.server.to_json(status))


Answer = Callable[[KubeHandler], None]
VERSION = client.VersionInfo(
    major="1",
    minor="34",
    git_version="v1.34.2",
    git_commit="0",
    git_tree_state="clean",
    build_date="2026-01-01T00:00:00Z",
    go_version="go1.24",
    compiler="gc",
    platform="linux/amd64",
)


def error(status: int, message: str = "scripted") -> Answer:
    """Refuse as the API does."""
    return lambda handler: handler.refuse(Refusal(status, message))


def cut(handler: KubeHandler) -> None:
    """Hang up without an answer."""
    handler.close_connection = True


def _request(method: str, path: str) -> Request:
    found = PATH.fullmatch(path)
    assert found, path
    resource, _, name = found["rest"].partition("/")
    name, _, part = name.partition("/")
    resource = f"{resource}/{part}" if part else resource
    verb = {"GET": "get" if name else "list", "POST": "create"}[method]
    return Request(verb, found["group"] or "", resource, found["namespace"] or "", name)


def _list(objects: list[Any], query: dict[str, str]) -> dict[str, Any]:
    """Return a list of the objects, in JSON, that the selectors of a query take."""
    labels, field = query.get("labelSelector", ""), query.get("fieldSelector", "")
    wanted = dict(label.split("=") for label in labels.split(",") if label)
    found = [one for one in objects if wanted.items() <= (one["metadata"].get("labels") or {}).items()]
    phases = re.findall(r"status\.phase!=(\w+)", field)
    if phases:
        found = [one for one in found if one["status"]["phase"] not in phases]
    elif field:
        assert field.startswith("involvedObject.name="), field
        found = [one for one in found if one["involvedObject"]["name"] == field.partition("=")[2]]
    return {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found}


def _denial(request: Request) -> str:
    """Return RBAC's message."""
    objects = request.resource.partition("/")[0]
    what = f'{objects} "{request.name}"' if request.name else objects
    scope = f'in the namespace "{request.namespace}"' if request.namespace else "at the cluster scope"
    return (
        f'{what} is forbidden: User "{USER}" cannot {request.verb} resource "{request.resource}" '
        f'in API group "{request.group}" {scope}'
    )


@contextmanager
def kube_server() -> Iterator[KubeServer]:
    """Run a server for the block, and check that nothing was sent that the API does not know."""
    with serving(KubeServer()) as server:
        yield server
        assert not server.breaches
