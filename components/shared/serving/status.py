"""What an InferenceService serves at this moment."""

from components.shared.core.document import Count, Part, Size
from components.shared.core.errors import UserError
from components.shared.serving import knative
from components.shared.serving.inference_service import Object, Predictor, service_name
from components.shared.serving.kserve import MODES, Kserve, Service, mode_of


class ServedFacts(Part):
    """One of the versions that are served."""

    version: Size | None  # None: it is no version of a registry
    storage_uri: str
    ready: bool
    percent: Count | None  # of the traffic, as the routes say; None: not known
    reason: str  # why it is not ready; empty if it is, or if nothing tells


class ServiceFacts(Part):
    """An InferenceService: what serves, and the canary, if there is one."""

    name: str
    namespace: str
    mode: str
    url: str | None  # where clients reach it; None if it is not told yet
    stable: ServedFacts
    canary: ServedFacts | None


def read_status(kserve: Kserve, name: str) -> ServiceFacts | None:
    """Return what the InferenceService of that name serves; None if there is none."""
    service = Service(kserve, name)
    found = service.read()
    if found is None:
        return None
    mode_name = mode_of(found) or kserve.find_mode(None)
    mode = MODES[mode_name]
    stable, canary = mode.stable(found), mode.canary(found)
    percents = _percents(service, found, mode_name, [stable, *([canary] if canary else [])])

    def facts(predictor: Predictor, ready: bool) -> ServedFacts:
        told = mode.why_not(found) if predictor == stable else ""
        return ServedFacts(
            version=predictor.version,
            storage_uri=predictor.storage_uri,
            ready=ready,
            percent=percents.get(predictor.name),
            reason="" if ready else service.why_pods_wait(mode, found, predictor) or told,
        )

    return ServiceFacts(
        name=name,
        namespace=kserve.namespace,
        mode=mode_name,
        url=found.get("status", {}).get("url"),
        stable=facts(stable, mode.is_stable_ready(found)),
        canary=facts(canary, mode.is_canary_ready(found)) if canary else None,
    )


def _percents(service: Service, found: Object, mode: str, predictors: list[Predictor]) -> dict[str, int]:
    """Return the percent of the traffic of each predictor, as far as the routes may be read."""
    if mode == "knative":
        return knative.shares(found)
    try:
        weights = service.weights()
    except UserError:  # there is no route: KServe's Ingress knows the stable predictor only
        weights = None
    whole = sum(weights.values()) if weights else 0
    if not weights or not whole:
        return {}
    names = {one.name: service_name(service.name, one.name) for one in predictors}
    return {name: round(100 * weights.get(route, 0) / whole) for name, route in names.items()}
