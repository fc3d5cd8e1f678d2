"""KServe's mode Knative: a canary is the latest revision, with a share of the traffic by `canaryTrafficPercent`.

Its states were not recorded: this follows KServe's documentation, and was tried against a fake server alone.

The spec has the canary's model in place of the stable one's, which an annotation of ours remembers.
"""

from typing import Any

from components.shared.serving.inference_service import (
    STABLE_ANNOTATION,
    Object,
    Predictor,
    is_true,
    predictor_in,
    predictor_of,
    reason_of,
)

ANNOTATION = "Serverless"  # the name that also KServe before 0.16 knows
PERCENT = "canaryTrafficPercent"


def named(service: Object, _predictor: Predictor) -> Object:
    """Return a new InferenceService as it is, but that its pods may scale to zero."""
    service["spec"]["predictor"]["minReplicas"] = 0
    return service


def stable(service: Object) -> Predictor:
    """Return what serves the traffic that no canary gets."""
    annotations = service["metadata"].get("annotations") or {}
    return _named(Predictor("", annotations.get(STABLE_ANNOTATION) or _wanted(service).storage_uri))


def canary(service: Object) -> Predictor | None:
    """Return the canary; None if there is none."""
    wanted = _wanted(service)
    return None if wanted.storage_uri == stable(service).storage_uri else _named(wanted)


def add(_service: Object, predictor: Predictor) -> Object:
    """Return the patch that makes a revision without traffic."""
    return {"spec": {"predictor": {PERCENT: 0, "model": {"storageUri": predictor.storage_uri}}}}


def share(_service: Object, percent: int) -> Object:
    """Return the patch that gives the canary a share of the traffic."""
    return {"spec": {"predictor": {PERCENT: percent}}}


def promote(service: Object) -> Object:
    """Return the patch that gives all traffic to the canary."""
    annotations = {STABLE_ANNOTATION: _wanted(service).storage_uri}
    return {"metadata": {"annotations": annotations}, "spec": {"predictor": {PERCENT: None}}}


def drop(service: Object) -> Object:
    """Return the patch that asks for the stable model again; its revision serves on until the new one is ready."""
    return {"spec": {"predictor": {PERCENT: None, "model": {"storageUri": stable(service).storage_uri}}}}


def is_stable_ready(service: Object) -> bool:
    """Return whether the latest revision serves all traffic."""
    found = _revisions(service)
    latest = found.get("latestCreatedRevision")
    is_rolled_out = bool(latest) and latest == found.get("latestReadyRevision") == found.get("latestRolledoutRevision")
    return is_rolled_out and is_true(service, "Ready")


def is_canary_ready(service: Object) -> bool:
    """Return whether the latest revision is ready, and is another one than that which serves."""
    found = _revisions(service)
    latest = found.get("latestCreatedRevision")
    is_other = bool(latest) and latest != found.get("latestRolledoutRevision")
    return canary(service) is not None and is_other and latest == found.get("latestReadyRevision")


def why_not(service: Object) -> str:
    """Return why the latest revision does not serve yet, as far as the InferenceService tells."""
    return reason_of(service, "LatestDeploymentReady", "PredictorReady", "RoutesReady", "IngressReady", "Ready")


def selector(service: Object, predictor: Predictor) -> str:
    """Return the labels of the pods of a predictor."""
    found = _revisions(service)
    is_canary = canary(service) == predictor
    revision = found.get("latestCreatedRevision" if is_canary else "latestRolledoutRevision", "")
    return f"serving.knative.dev/revision={revision}"


def shares(service: Object) -> dict[str, int]:
    """Return the percent of the traffic that canary and stable predictor get."""
    traffic = _revisions(service).get("traffic") or []
    latest = sum(one.get("percent") or 0 for one in traffic if one.get("latestRevision"))
    whole = sum(one.get("percent") or 0 for one in traffic)
    found = canary(service)
    return {found.name: latest, stable(service).name: whole - latest} if found else {stable(service).name: whole}


def _wanted(service: Object) -> Predictor:
    return predictor_in(service["spec"]["predictor"])


def _named(predictor: Predictor) -> Predictor:
    """Return a predictor with the name of its version; one of no version keeps its own."""
    version = predictor.version
    uri = predictor.storage_uri.rstrip("/").removesuffix("/serving")
    return predictor if version is None else predictor_of(uri, version)


def _revisions(service: Object) -> dict[str, Any]:
    return dict(service.get("status", {}).get("components", {}).get("predictor") or {})
