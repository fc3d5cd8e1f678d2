"""A Kubernetes API with KServe on the loopback interface: its objects as JSON, and port-forwards to model servers.

Each time an InferenceService is read, it has come one state further. Refusals of KServe's webhook follow its own tests
(inference_service_validation_test.go); contracts/test_kserve_server.py holds the states to a recording.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.servers.json_handler import JsonHandler
from tests.servers.kserve.controller import (
    INITIALIZER,
    REFUSED,
    KnativeController,
    StandardController,
    service_of,
)
from tests.servers.web_server import serving
from tests.servers.websocket import WebsocketHandler

Object = dict[str, Any]

TIME = "2026-01-01T00:00:00Z"
SERVICES = "/apis/serving.kserve.io/v1beta1"
RUNTIMES = "/apis/serving.kserve.io/v1alpha1"
PLURALS = {"pods", "servingruntimes", "clusterservingruntimes"}  # that clients list
REASONS = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}
GROUPS = ["apps", "coordination.k8s.io", "gateway.networking.k8s.io", "serving.kserve.io"]
WEBHOOK = 'admission webhook "inferenceservice.kserve-webhook-server.validator" denied the request: '


class Refusal(Exception):
    """An error that the server answers."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class KserveServer(ThreadingHTTPServer):
    """The server and its objects, by path; a test may read and set all of them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), KserveHandler)
        self.groups = list(GROUPS)
        self.objects: dict[str, Object] = {}
        self.denied: set[str] = set()  # "get httproutes" and the like
        self.is_old = False  # KServe 0.19, which knows no canaries
        self.is_lenient = False  # and whose CRD lets any field pass, so that only the webhook drops it
        self.has_gateway = True
        self.unloadable: set[str] = set()  # storageUris
        self.refusals = 0  # how often the store refuses the first model
        self.models: dict[str, int] = {}  # storageUri -> the port of a model server
        self.asked: set[tuple[str, str]] = set()  # verb and resource of every request, as RBAC sees it
        self.changes: list[tuple[str, Object]] = []  # method and body of every change of an InferenceService
        self.states: list[Object] = []  # of all InferenceServices
        self.routes: list[list[tuple[str, int]]] = []  # the backends of a route, whenever they changed
        self.meanwhile: dict[str, Callable[[], None]] = {}  # what happens at a change, by a text in its body
        self._pending: dict[str, Iterator[tuple[Object, list[Object]]]] = {}
        self._standard = StandardController(self.unloadable, 0)
        self._knative = KnativeController(self.unloadable)
        self._version = 100

    def write_kubeconfig(self, path: Path) -> None:
        """Write the kubeconfig of a user of this server."""
        path.parent.mkdir(parents=True, exist_ok=True)
        config = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "me", "user": {}}],
        }
        path.write_text(json.dumps(config))

    def add(self, path: str, **fields: Any) -> Object:
        """Put an object at its path, as others of the cluster have made it."""
        found = {"metadata": {"name": path.rpartition("/")[2], "labels": {}}, **copy.deepcopy(fields)}
        self._stamp(found)
        self.objects[path] = found
        return found

    def add_runtime(self, name: str, namespace: str = "", **spec: Any) -> None:
        """Add a runtime for ONNX by v2, of the cluster or of a namespace."""
        place = f"namespaces/{namespace}/servingruntimes" if namespace else "clusterservingruntimes"
        given = {"supportedModelFormats": [{"name": "onnx"}], "protocolVersions": ["v2"], **spec}
        kind = "ServingRuntime" if namespace else "ClusterServingRuntime"
        self.add(f"{RUNTIMES}/{place}/{name}", kind=kind, spec=given)

    def settle(self, path: str) -> None:
        """Let KServe bring an InferenceService to its last state, or try a while."""
        for _ in range(50):
            self._advance(path)

    def answer(self, method: str, path: str, query: dict[str, str], body: Object | None) -> Object:
        """Return the answer to a request. Raises Refusal for an error."""
        self._check_right(method, path)
        if path == "/apis":
            return {"groups": [{"name": name} for name in self.groups]}
        if method == "GET":
            return self._get(path, query)
        assert body is not None
        text = json.dumps(body)
        for told in [told for told in self.meanwhile if told in text]:
            self.meanwhile.pop(told)()
        if method == "POST":
            return self._create(f"{path}/{body['metadata']['name']}", query, body)
        found = self._existing(path)
        if method == "DELETE":
            if body["preconditions"]["uid"] != found["metadata"]["uid"]:
                raise Refusal(409, "the UID in the precondition does not match the UID in record")
            return self._delete(path)
        version = body["metadata"].get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise Refusal(409, f"{path.rpartition('/')[2]}: the object has been modified")
        return self._write(path, query, body if method == "PUT" else merged(found, body))

    def forward_to(self, pod: str) -> int:
        """Return the port of the model server that a pod stands for; nothing listens at port 1."""
        return self.models.get(self.objects[pod]["spec"]["containers"][0]["storageUri"], 1)

    def _check_right(self, method: str, path: str) -> None:
        verb = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[method]
        if is_list := path.rpartition("/")[2] in PLURALS:
            verb = "list"
        if path != "/apis":
            self.asked.add((verb, path.split("/")[-1 if is_list or method == "POST" else -2]))
        for part in path.split("/"):
            if f"{verb} {part}" in self.denied:
                raise Refusal(403, f'{part} is forbidden: User "me" cannot {verb} resource "{part}"')

    def _get(self, path: str, query: dict[str, str]) -> Object:
        if path in self.objects:
            self._advance(path)
            return copy.deepcopy(self.objects[path])
        if path.rpartition("/")[2] not in PLURALS:
            raise Refusal(404, f'{path.split("/")[-2]} "{path.rpartition("/")[2]}" not found')
        inside = [one for key, one in self.objects.items() if key.rpartition("/")[0] == path]
        wanted = dict(label.split("=") for label in query.get("labelSelector", "").split(",") if label)
        return {"items": [copy.deepcopy(one) for one in inside if wanted.items() <= one["metadata"]["labels"].items()]}

    def _existing(self, path: str) -> Object:
        if path not in self.objects:
            raise Refusal(404, f'{path.split("/")[-2]} "{path.rpartition("/")[2]}" not found')
        return copy.deepcopy(self.objects[path])

    def _create(self, path: str, query: dict[str, str], body: Object) -> Object:
        if path in self.objects:
            raise Refusal(409, f'{path.split("/")[-2]} "{body["metadata"]["name"]}" already exists')
        return self._write(path, query, copy.deepcopy(body))

    def _write(self, path: str, query: dict[str, str], wanted: Object) -> Object:
        before = self.objects.get(path)
        wanted["metadata"].setdefault("labels", {})
        if path.startswith(SERVICES):
            self._admit(before, wanted, query)
            wanted["metadata"]["namespace"] = path.split("/")[-3]
        self._stamp(wanted, before)
        self.objects[path] = wanted
        if path.startswith(SERVICES):
            self._reconcile(path, before, wanted)
        return copy.deepcopy(wanted)

    def _stamp(self, wanted: Object, before: Object | None = None) -> None:
        """Set the fields that the API server sets."""
        self._version += 1
        metadata = wanted["metadata"]
        old: Object = before["metadata"] if before else {"uid": f"uid-{self._version}"}
        changed = before is None or before.get("spec") != wanted.get("spec")
        metadata |= {"resourceVersion": str(self._version), "uid": old["uid"], "creationTimestamp": TIME}
        metadata["generation"] = old.get("generation", 0) + changed

    def _admit(self, before: Object | None, wanted: Object, query: dict[str, str]) -> None:
        """Refuse what the API server or KServe's webhook refuses, and add its defaults."""
        assert query.get("fieldValidation") == "Strict"
        spec, predictor = wanted["spec"], wanted["spec"]["predictor"]
        if self.is_old:
            new = [f"spec.{name}" for name in ("canary",) if name in spec]
            new += ["spec.predictor.name"] if "name" in predictor else []
            if new and not self.is_lenient:
                raise Refusal(400, f'strict decoding error: unknown field "{new[0]}"')
            spec.pop("canary", None)
            predictor.pop("name", None)
        for one in [predictor, *(entry["predictor"] for entry in spec.get("canary") or [])]:
            one["model"] = {"name": "", "resources": {}, **one["model"]}
            one["model"]["modelFormat"].setdefault("version", "1")
        wanted["metadata"].setdefault("annotations", {})["modelFormat"] = predictor["model"]["modelFormat"]["name"]
        if not self.is_old and (reason := refusal(before, wanted)):
            raise Refusal(403, WEBHOOK + reason)

    def _reconcile(self, path: str, before: Object | None, wanted: Object) -> None:
        self.states.append(copy.deepcopy(wanted))
        is_standard = wanted["metadata"]["annotations"].get("serving.kserve.io/deploymentMode") == "Standard"
        if before is None and is_standard:
            self._standard = StandardController(self.unloadable, self.refusals)
        if before is None or before["spec"] != wanted["spec"]:
            controller = self._standard if is_standard else self._knative
            self._pending[path] = controller.states(before, wanted)

    def _advance(self, path: str) -> bool:
        """Bring an InferenceService one state further; return whether there was one."""
        found = next(self._pending.get(path, iter(())), None)
        if found is None:
            return False
        state, backends = found
        before = self.objects[path]
        metadata = before["metadata"] | {
            key: state["metadata"][key] for key in ("finalizers",) if key in state["metadata"]
        }
        if before.get("status") == state.get("status") and metadata == before["metadata"]:
            return True
        self.objects[path] = {**before, "metadata": metadata, "status": state.get("status")}
        if "status" not in state:
            del self.objects[path]["status"]
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.states.append(copy.deepcopy(self.objects[path]))
        self._make_children(path, self.objects[path], backends)
        return True

    def _make_children(self, path: str, service: Object, backends: list[Object]) -> None:
        """Make the routes, and the Service and the pod of each predictor; take away those that are left over."""
        root = f"/api/v1/namespaces/{path.split('/')[-3]}"
        name = service["metadata"]["name"]
        if backends and self.has_gateway:
            route = f"/apis/gateway.networking.k8s.io/v1/namespaces/{path.split('/')[-3]}/httproutes/{name}"
            told = [(one["name"], one["weight"]) for one in backends]
            if self.routes[-1:] != [told]:
                self.routes.append(told)
            self.add(
                route, spec={"rules": [{"backendRefs": [one | {"kind": "Service", "port": 80} for one in backends]}]}
            )
        for key in [
            key for key in self.objects if key.startswith((f"{root}/pods/{name}-", f"{root}/services/{name}-"))
        ]:
            del self.objects[key]
        if "components" in service.get("status", {}) and service["status"]["deploymentMode"] == "Knative":
            for revision, uri in self._knative.models.items():
                self._add_pod(f"{root}/pods/{revision}-0", {"serving.knative.dev/revision": revision}, uri)
            return
        entries = service["spec"].get("canary") or []
        for predictor in (service["spec"]["predictor"], *(entry["predictor"] for entry in entries)):
            whole = service_of(name, predictor)
            self.add(f"{root}/services/{whole}", spec={"ports": [{"port": 80, "targetPort": 8080}]})
            labels = {"app": f"isvc.{whole}", "component": "predictor", "serving.kserve.io/inferenceservice": name}
            self._add_pod(f"{root}/pods/{whole}-0", labels, predictor["model"]["storageUri"])

    def _add_pod(self, path: str, labels: dict[str, str], uri: str) -> None:
        status: Object = {"phase": "Running", "podIP": "127.0.0.1"}
        if uri in self.unloadable:
            ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": f"Copying contents\n{REFUSED}\n"}}
            waits = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
            initializer = {"name": INITIALIZER, "state": waits, "lastState": ended}
            status = {"phase": "Pending", "initContainerStatuses": [initializer]}
        metadata = {"name": path.rpartition("/")[2], "labels": labels}
        spec = {"containers": [{"name": "kserve-container", "storageUri": uri}]}
        self.add(path, metadata=metadata, spec=spec, status=status)

    def _delete(self, path: str) -> Object:
        found = self.objects.pop(path)
        self._pending.pop(path, None)
        return found


def merged(found: Object, patch: Object) -> Object:
    """The object after a merge patch (RFC 7386)."""
    result = copy.deepcopy(found)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inside = result.get(key)
            result[key] = merged(inside if isinstance(inside, dict) else {}, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def refusal(before: Object | None, wanted: Object) -> str:
    """Why KServe's webhook refuses an InferenceService; empty if it does not."""
    spec, predictor = wanted["spec"], wanted["spec"]["predictor"]
    if not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", wanted["metadata"]["name"]):
        return "invalid InferenceService name"
    old = before["spec"]["predictor"] if before else predictor
    is_same_model = old["model"]["storageUri"] == predictor["model"]["storageUri"]
    if old.get("name") != predictor.get("name") and is_same_model:
        return "predictor.name change requires a model change (e.g. storageUri)"
    names = [entry["predictor"].get("name", "") for entry in spec.get("canary") or []]
    if names and wanted["metadata"]["annotations"].get("serving.kserve.io/deploymentMode") != "Standard":
        return "canary is only supported in Standard deployment mode"
    if not all(names):
        return "predictor.name is required"
    if len({*names}) < len(names):
        return "predictor.name is duplicated"
    if predictor.get("name") in names:
        return f"predictor.name {predictor['name']} conflicts with stable"
    for entry in spec.get("canary") or []:
        if "maxReplicas" in entry["predictor"]:
            return "canary must not set maxReplicas"
        if entry["predictor"].get("minReplicas", 0) > predictor.get("minReplicas", 1):
            return "canary minReplicas must not exceed stable minReplicas"
    shares = [entry["trafficPercent"] for entry in spec.get("canary") or []]
    return "" if sum(shares) <= 100 and all(one >= 0 for one in shares) else "the sum of trafficPercent must be <= 100"


class KserveHandler(JsonHandler, WebsocketHandler):
    server: KserveServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if self.is_websocket:
            return self.forward(int(query["ports"]), self.server.forward_to(parts.path.removesuffix("/portforward")))
        if self.command == "PATCH":
            assert self.headers["Content-Type"] == "application/merge-patch+json"
        if self.command != "GET" and parts.path.startswith(SERVICES):
            self.server.changes.append((self.command, body or {}))
        try:
            self.reply(200, self.server.answer(self.command, parts.path, query, body))
        except Refusal as error:
            status = {"kind": "Status", "code": error.status, "message": error.message, "reason": REASONS[error.status]}
            self.reply(error.status, status)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET


@contextmanager
def kserve_server() -> Iterator[KserveServer]:
    """Run a server for the block."""
    with serving(KserveServer()) as server:
        yield server
