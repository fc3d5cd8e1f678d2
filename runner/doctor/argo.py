"""Check how Argo's controller is set up: its retries, how often it looks at a run, and how large a run may be."""

from collections.abc import Iterator

from kubernetes.client.exceptions import ApiException

from runner.doctor.cluster import ARGO, Cluster, argo_setting
from runner.doctor.finding import Finding, ok, refused, unknown, warning
from runner.doctor.preflight import Preflight
from runner.run_size import LIMIT

CONTROLLER = "workflow-controller"  # Argo's deployment
REQUEUE, MAX_SIZE = "DEFAULT_REQUEUE_TIME", "MAX_WORKFLOW_SIZE"  # its variables
REQUEUE_PATCH = "manifests/admin/argo-requeue.yaml"
MARGIN = 1.05  # estimates were up to 4.2 % low
ETCD = 1_500_000  # bytes of an object, by default
_ALWAYS = "have retryPolicy: Always set in workflow-controller-configmap (manifests/admin)"
RETRIED = {
    "Always": ok("Argo retries failed steps and vanished pods (retryPolicy Always)"),
    "OnError": warning(
        "Argo retries a step whose pod vanished (retryPolicy OnError), but not one that failed or was evicted", _ALWAYS
    ),
    "OnFailure": warning(
        "Argo retries a step that failed (retryPolicy OnFailure), but not one whose pod was deleted", _ALWAYS
    ),
}


def check_retries(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check Argo's default retry policy, which a pipeline cannot change; without one it is OnFailure."""
    defaults = argo_setting(cluster, "workflowDefaults")
    if defaults is None:
        yield _absent(cluster, "retry policy", f"ConfigMap {ARGO}")
        return
    templates = (defaults.get("spec") or {}).get("templateDefaults") or {}
    policy = (templates.get("retryStrategy") or {}).get("retryPolicy", "OnFailure")
    yield RETRIED.get(policy) or warning(f"Argo has retryPolicy {policy}", _ALWAYS)


def check_requeue(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check how often Argo looks at a run, since each step waits for that several times."""
    variables = _variables(cluster)
    if variables is None:
        yield _absent(cluster, "pace", f"deployment {CONTROLLER}")
    elif REQUEUE in variables:
        yield ok(f"Argo looks at a run every {variables[REQUEUE]} ({REQUEUE})")
    else:
        yield warning(
            "Argo looks at a run every 10 s, and each step waits for that several times",
            f"kubectl -n {cluster.kfp_namespace} patch deployment {CONTROLLER} --patch-file {REQUEUE_PATCH}, "
            "if the API server can bear ten times the requests",
        )


def check_run_size(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Compare the estimated size of the run with the limit past which KFP no longer follows its steps."""
    limit, source = LIMIT, "Argo's default"
    try:
        owners = (_variables(cluster) or {}).get(MAX_SIZE, "")
    except ApiException as error:
        yield refused(error)
        owners = ""
    if owners.isdecimal() and int(owners):
        limit, source = int(owners), f"{MAX_SIZE} of deployment {CONTROLLER}"
    text = f"about {_kilobytes(preflight.run_bytes)} of {_kilobytes(limit)}, {source}"
    if preflight.run_bytes * MARGIN <= limit:
        yield ok(f"Argo's object of this run takes {text}")
        return
    yield warning(
        f"Argo's object of this run may be too large for KFP to follow its steps: {text}",
        f"{_smaller(preflight)}have {MAX_SIZE} set on deployment {CONTROLLER} "
        f"(etcd takes {_kilobytes(ETCD)} by default)",
    )


def _smaller(preflight: Preflight) -> str:
    """Return what makes the run smaller, by the parameters that its graph has."""
    if "parts" in preflight.parameters:
        return "give fewer parts, or "
    if "parallel" in preflight.parameters:
        return "ask for fewer or shorter settings, set parallel lower, or "
    return ""


def _absent(cluster: Cluster, what: str, thing: str) -> Finding:
    return unknown(
        f"Argo's {what} is not known: namespace {cluster.kfp_namespace} has no {thing}",
        "give KFP's own namespace with --kfp-namespace",
    )


def _variables(cluster: Cluster) -> dict[str, str] | None:
    """Return the environment of Argo's controller, or None if it does not exist."""
    deployment = cluster.deployment(CONTROLLER)
    if deployment is None:
        return None
    containers = deployment.spec.template.spec.containers
    return {variable.name: variable.value or "" for container in containers for variable in container.env or []}


def _kilobytes(size: int) -> str:
    return f"{size / 1000:,.0f} KB"
