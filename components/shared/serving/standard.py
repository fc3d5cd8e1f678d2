"""KServe's mode Standard, since 0.20: a canary is an entry of the list `spec.canary`, with a Deployment of its own.

What KServe answers in it was recorded state by state; tests/servers/contracts/test_kserve_server.py has it.

- `predictor.name` names the Deployment and the Service of each predictor, so stable and canary need one each.
- `Ready` tells of the stable predictor only: of a canary `canaryStatuses` does, and weight goes to it once it is ready.
- `observedGeneration` stays 1. That a change has been made is seen in the address that the status names.
- `lastFailureInfo` keeps the text of a failure long past.
"""

from components.shared.core.errors import UserError
from components.shared.serving.inference_service import (
    STABLE_ANNOTATION,
    Object,
    Predictor,
    is_true,
    predictor_in,
    reason_of,
    service_name,
)

ANNOTATION = "Standard"
# Replicas of a canary are fixed: KServe refuses these fields in it.
AUTOSCALING = ("maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling", "canaryTrafficPercent")
TOO_OLD = "this KServe has no canaries in its mode Standard, which came with version 0.20"
UPGRADE = "upgrade KServe to 0.20 or newer, or install Knative Serving and deploy with --mode knative"


def named(service: Object, predictor: Predictor) -> Object:
    """Return a new InferenceService whose predictor has the name of its version, as canaries need later."""
    service["spec"]["predictor"]["name"] = predictor.name
    return service


def stable(service: Object) -> Predictor:
    """Return what serves the traffic that no canary gets."""
    return predictor_in(service["spec"]["predictor"])


def canary(service: Object) -> Predictor | None:
    """Return the canary; None if there is none. Raises UserError if there are several."""
    entries = service["spec"].get("canary") or []
    if len(entries) > 1:
        names = ", ".join(entry["predictor"].get("name", "") for entry in entries)
        raise UserError(
            f"InferenceService {service['metadata']['name']} has {len(entries)} canaries ({names}); deploy makes one",
            "take them out of spec.canary, but for one at most",
        )
    return predictor_in(entries[0]["predictor"]) if entries else None


def add(service: Object, predictor: Predictor) -> Object:
    """Return the patch that adds a canary without traffic, otherwise like the stable predictor."""
    like = {key: value for key, value in service["spec"]["predictor"].items() if key not in AUTOSCALING}
    like |= {"name": predictor.name, "model": like["model"] | {"storageUri": predictor.storage_uri}}
    return {"spec": {"canary": [{"predictor": like, "trafficPercent": 0}]}}


def share(service: Object, percent: int) -> Object:
    """Return the patch that gives the canary a share of the traffic."""
    (entry,) = service["spec"]["canary"]
    return {"spec": {"canary": [entry | {"trafficPercent": percent}]}}


def promote(service: Object) -> Object:
    """Return the patch that makes the canary the stable predictor; its pods stay, for they have its name."""
    found = predictor_in(service["spec"]["canary"][0]["predictor"])
    predictor = {"name": found.name, "model": {"storageUri": found.storage_uri}}
    annotations = {STABLE_ANNOTATION: found.storage_uri}
    return {"metadata": {"annotations": annotations}, "spec": {"predictor": predictor, "canary": None}}


def drop(_service: Object) -> Object:
    """Return the patch that takes the canary away."""
    return {"spec": {"canary": None}}


def is_stable_ready(service: Object) -> bool:
    """Return whether the stable predictor, of the present name, serves."""
    status = service.get("status", {})
    host = status.get("address", {}).get("url", "").partition("://")[2].partition(".")[0]
    is_loaded = status.get("modelStatus", {}).get("transitionStatus") == "UpToDate"
    name = service_name(service["metadata"]["name"], stable(service).name)
    return is_loaded and host == name and is_true(service, "Ready") and is_true(service, "PredictorReady")


def is_canary_ready(service: Object) -> bool:
    """Return whether the canary runs and has loaded its model."""
    found = canary(service)
    statuses = service.get("status", {}).get("canaryStatuses") or []
    return any(found and one["name"] == found.name and one["ready"] for one in statuses)


def why_not(service: Object) -> str:
    """Return why the stable predictor does not serve yet, as far as the InferenceService tells."""
    return reason_of(service, "PredictorReady", "IngressReady", "Ready")


def selector(service: Object, predictor: Predictor) -> str:
    """Return the labels of the pods of a predictor."""
    return f"app=isvc.{service_name(service['metadata']['name'], predictor.name)}"
