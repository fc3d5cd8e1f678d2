"""What KServe makes of an InferenceService, state by state, as recorded/kserve.json shows of its mode Standard.

Mode Knative was not recorded: its states are those of KServe's documentation.
"""

import copy
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

INITIALIZER = "storage-initializer"
REFUSED = 'Unexpected error during storage initialization: Could not connect to the endpoint URL: "http://store"'
DOMAIN = "example.com"


def condition(kind: str, status: str, reason: str = "", message: str = "", severity: str = "") -> Object:
    """A condition, without the fields that are empty."""
    told = {"message": message, "reason": reason, "severity": severity, "status": status, "type": kind}
    return {key: value for key, value in told.items() if value} | {"lastTransitionTime": "2026-01-01T00:00:00Z"}


def set_conditions(status: Object, *changes: Object, without: str = "") -> None:
    """Replace or add conditions, or take one away; they are sorted by type."""
    found = {one["type"]: one for one in status.get("conditions", [])} | {one["type"]: one for one in changes}
    found.pop(without, None)
    status["conditions"] = [found[kind] for kind in sorted(found)]


def service_of(name: str, predictor: Object) -> str:
    """The name of a predictor's Deployment and Service."""
    return "-".join(filter(None, [name, predictor.get("name"), "predictor"]))


class StandardController:
    """The states of one InferenceService in mode Standard; a test may change what can be loaded."""

    def __init__(self, unloadable: set[str], refusals: int) -> None:
        self.unloadable, self.refusals = unloadable, refusals

    def states(self, before: Object | None, service: Object) -> Iterator[tuple[Object, list[Object]]]:
        """Yield the states after a change of the spec, each with the backends of the routes; none: not there yet."""
        service = copy.deepcopy(service)
        if before is None:
            yield from self._first(service)
        elif before["spec"] != service["spec"]:
            yield from self._changed(before, service)

    def _first(self, service: Object) -> Iterator[tuple[Object, list[Object]]]:
        service["metadata"]["finalizers"] = ["inferenceservice.finalizers"]
        yield copy.deepcopy(service), []
        name, predictor = service["metadata"]["name"], service["spec"]["predictor"]
        waits = ("Predictor Deployment NotReady", "Predictor HTTPRoute not created")
        service["status"] = status = {
            "clusterServingRuntimeName": predictor["model"]["runtime"],
            "components": {"predictor": {}},
            "deploymentMode": "Standard",
            "modelStatus": _model_status("", "Pending", "InProgress"),
        }
        set_conditions(status, condition("Stopped", "False", severity="Info"), condition("PredictorReady", "False"))
        set_conditions(status, condition("IngressReady", "False", *waits), condition("Ready", "False", *waits))
        yield copy.deepcopy(service), []
        unavailable = ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        set_conditions(status, condition("PredictorReady", "False", *unavailable))
        status["observedGeneration"] = 1
        yield copy.deepcopy(service), []
        while self.refusals or predictor["model"]["storageUri"] in self.unloadable:
            self.refusals = max(0, self.refusals - 1)
            failure = {"exitCode": 1, "message": REFUSED, "reason": "ModelLoadFailed"}
            status["modelStatus"] = _model_status("", "FailedToLoad", "BlockedByFailedLoad", failure)
            yield copy.deepcopy(service), []
        for state in ("Pending", "Loading", "Pending"):
            status["modelStatus"] |= _model_status("", state, "InProgress")
            yield copy.deepcopy(service), []
        waits = ("ParentStatusNotAvailable", "Predictor HttpRouteNotReady")
        host = f"{service_of(name, predictor)}-{service['metadata']['namespace']}.{DOMAIN}"
        status["components"]["predictor"]["url"] = f"http://{host}"
        status["modelStatus"]["copies"]["totalCopies"] = 1
        set_conditions(status, _available(name, predictor))
        set_conditions(status, condition("IngressReady", "False", *waits), condition("Ready", "False", *waits))
        backends = [{"name": service_of(name, predictor), "weight": 1}]
        yield copy.deepcopy(service), backends
        set_conditions(status, condition("IngressReady", "True"), condition("Ready", "True"))
        status["address"] = {"url": _address(service)}
        status["url"] = f"http://{name}-{service['metadata']['namespace']}.{DOMAIN}"
        yield copy.deepcopy(service), backends
        status["modelStatus"] |= {**_model_status("Loaded", "Loaded", "UpToDate"), "copies": _copies()}
        yield copy.deepcopy(service), backends

    def _changed(self, before: Object, service: Object) -> Iterator[tuple[Object, list[Object]]]:
        status, name = service["status"], service["metadata"]["name"]
        entries, predictor = service["spec"].get("canary") or [], service["spec"]["predictor"]
        if before["spec"]["predictor"].get("name") != predictor.get("name"):
            status["address"] = {"url": _address(service)}
            host = f"{service_of(name, predictor)}-{service['metadata']['namespace']}.{DOMAIN}"
            status["components"]["predictor"]["url"] = f"http://{host}"
            set_conditions(status, _available(name, predictor))
        if not entries:
            status.pop("canaryStatuses", None)
            set_conditions(status, without="CanaryPredictorReady")
            yield copy.deepcopy(service), [{"name": service_of(name, predictor), "weight": 1}]
            return
        known = {one["name"] for one in status.get("canaryStatuses", []) if one["ready"]}
        for is_later in (False, True):
            ready = {one["predictor"]["name"] for one in entries if self._is_ready(one, known, is_later)}
            status["canaryStatuses"] = [_canary_status(one, one["predictor"]["name"] in ready) for one in entries]
            all_ready = len(ready) == len(entries)
            told = ("True", "AllCanariesReady") if all_ready else ("False", "CanariesNotReady")
            set_conditions(status, condition("CanaryPredictorReady", *told, severity="Info"))
            yield copy.deepcopy(service), _weighted(name, predictor, entries, ready)
            if all_ready:
                return

    def _is_ready(self, entry: Object, known: set[str], is_later: bool) -> bool:
        is_loadable = entry["predictor"]["model"]["storageUri"] not in self.unloadable
        return is_loadable and (is_later or entry["predictor"]["name"] in known)


class KnativeController:
    """The states of one InferenceService in mode Knative, as documented: revisions, and the traffic between them."""

    def __init__(self, unloadable: set[str]) -> None:
        self.unloadable = unloadable
        self.models: dict[str, str] = {}  # revision -> storageUri

    def states(self, before: Object | None, service: Object) -> Iterator[tuple[Object, list[Object]]]:
        """Yield the states after a change of the spec."""
        service = copy.deepcopy(service)
        if before is not None:  # the status is that of the old spec for a while
            yield copy.deepcopy(service), []
        name, predictor = service["metadata"]["name"], service["spec"]["predictor"]
        status = service.setdefault("status", {"deploymentMode": "Knative", "components": {"predictor": {}}})
        found = status["components"]["predictor"]
        uri, percent = predictor["model"]["storageUri"], predictor.get("canaryTrafficPercent")
        if uri != self.models.get(found.get("latestCreatedRevision", "")):
            found["latestCreatedRevision"] = f"{name}-predictor-{len(self.models) + 1:05}"
            self.models[found["latestCreatedRevision"]] = uri
            told = ("RevisionFailed", "Initial scale was never achieved") if uri in self.unloadable else ()
            set_conditions(status, condition("LatestDeploymentReady", "False", *told))
            yield copy.deepcopy(service), []
        if uri in self.unloadable:
            return
        latest = found["latestReadyRevision"] = found["latestCreatedRevision"]
        set_conditions(status, condition("LatestDeploymentReady", "True"), condition("Ready", "True"))
        if percent is None:
            found["latestRolledoutRevision"] = latest
            found["traffic"] = [{"latestRevision": True, "percent": 100, "revisionName": latest}]
        else:
            old = {"percent": 100 - percent, "revisionName": found["latestRolledoutRevision"], "tag": "prev"}
            found["traffic"] = [{"latestRevision": True, "percent": percent, "revisionName": latest}, old]
        status["url"] = f"http://{name}.{service['metadata']['namespace']}.{DOMAIN}"
        yield copy.deepcopy(service), []


def _model_status(active: str, target: str, transition: str, failure: Object | None = None) -> Object:
    status = {
        "copies": {"failedCopies": 0},
        "states": {"activeModelState": active, "targetModelState": target},
        "transitionStatus": transition,
    }
    return status | ({"lastFailureInfo": failure} if failure else {})


def _copies() -> Object:
    return {"failedCopies": 0, "totalCopies": 1}


def _canary_status(entry: Object, is_ready: bool) -> Object:
    return {
        "modelStatus": {"transitionStatus": ""},
        "name": entry["predictor"]["name"],
        "ready": is_ready,
        "trafficPercent": entry["trafficPercent"],
    }


def _weighted(name: str, predictor: Object, entries: list[Object], ready: set[str]) -> list[Object]:
    """The backends of a route: those canaries that are ready have their weight, the stable predictor the rest."""
    shares = [
        {"name": service_of(name, one["predictor"]), "weight": one["trafficPercent"]}
        for one in entries
        if one["predictor"]["name"] in ready
    ]
    rest = 100 - sum(one["weight"] for one in shares)
    return [{"name": service_of(name, predictor), "weight": rest}, *shares]


def _available(name: str, predictor: Object) -> Object:
    replica_set = f"{service_of(name, predictor)}-6876974fff"
    message = f'ReplicaSet "{replica_set}" has successfully progressed.'
    return condition("PredictorReady", "True", "NewReplicaSetAvailable", message)


def _address(service: Object) -> str:
    name = service_of(service["metadata"]["name"], service["spec"]["predictor"])
    return f"http://{name}.{service['metadata']['namespace']}.svc.cluster.local"
