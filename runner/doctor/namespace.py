"""What a run finds in its namespace: its kind, Secrets and ConfigMap, service account and rights, Argo's retries."""

from collections.abc import Iterator

from kubernetes.client import (
    AuthorizationV1Api,
    V1LocalSubjectAccessReview,
    V1ObjectMeta,
    V1ResourceAttributes,
    V1SubjectAccessReviewSpec,
)

from components.shared.storage.endpoint import AWS
from runner.doctor.cluster import ARGO, PROFILE, SECONDS, Cluster, argo_setting
from runner.doctor.finding import Finding, ok, problem, unknown, warning
from runner.doctor.launcher import ACCESS, ENDPOINT, REGION, SECRET, has_role
from runner.doctor.plan import Run

# What launcher and Argo's executor do with the pod's own service account: group, resource, verb.
RIGHTS = (
    ("", "configmaps", "get"),
    ("", "secrets", "get"),
    ("", "pods", "get"),
    ("argoproj.io", "workflowtaskresults", "create"),
    ("argoproj.io", "workflowtaskresults", "patch"),
)
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


def check_namespace(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Whether runs can live in the namespace at all: KFP's own, or a user's Profile."""
    name = cluster.namespace
    if cluster.home is None:
        yield problem(f"namespace {name} does not exist", "give another one with --namespace")
    elif cluster.is_standalone:
        yield ok(f"{name} is KFP's own (standalone); runs use service account {cluster.service_account}")
    elif PROFILE.items() <= cluster.labels.items():
        yield ok(f"{name} is a Profile (multi-user); runs use service account {cluster.service_account}")
    else:
        yield problem(
            f"namespace {name} is neither KFP's own ({cluster.kfp_namespace}) nor a Profile",
            "give the Profile's name with --namespace, or KFP's own with --kfp-namespace",
        )


def check_secrets(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """The Secrets that steps take their S3 credentials from; both may be absent."""
    name, source = run.parameters["s3_secret"], run.parameters["source_secret"]
    yield from _check_keys(cluster.secret(name), name) or [_without_keys(cluster, name)]
    absent = ok(f"no Secret {source}: a data source in S3 is reached as the store is")
    yield from _check_keys(cluster.secret(source), source) or [absent]


def check_config(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """The ConfigMap that says where S3 is; it may be absent."""
    name = run.parameters["s3_config"]
    values = cluster.config(name) or {}
    endpoint = values.get(ENDPOINT, "")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        yield problem(f"ConfigMap {name} has {ENDPOINT}={endpoint}", "begin it with http:// or https://")
    elif endpoint or values.get(REGION):
        yield ok(f"ConfigMap {name}: S3 is at {endpoint or AWS}")
    else:
        yield warning(f"no {ENDPOINT} in ConfigMap {name}: S3 is Amazon's, in no region", f"set {ENDPOINT} or {REGION}")


def check_service_account(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Whether the pods' service account exists and may do what KFP's launcher and Argo's executor do with it."""
    name = cluster.service_account
    if cluster.account is None:
        yield problem(f"service account {name} does not exist in {cluster.namespace}", "is KFP installed there?")
        return
    lacking = [right for right in RIGHTS if not may(cluster, *right)]
    for group, resource, verb in lacking:
        yield problem(
            f"service account {name} may not {verb} {resource}",
            f'add to its Role: {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}',
        )
    if not lacking:
        yield ok(f"service account {name} has the rights that a run needs")


def check_retries(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Argo's default retry policy, which a pipeline cannot change; without one it is OnFailure."""
    defaults = argo_setting(cluster, "workflowDefaults")
    if defaults is None:
        where = f"no ConfigMap {ARGO} in namespace {cluster.kfp_namespace}"
        yield unknown(f"{where} tells Argo's retry policy", "give KFP's own namespace with --kfp-namespace")
        return
    templates = (defaults.get("spec") or {}).get("templateDefaults") or {}
    policy = (templates.get("retryStrategy") or {}).get("retryPolicy", "OnFailure")
    yield RETRIED.get(policy) or warning(f"Argo has retryPolicy {policy}", _ALWAYS)


def _check_keys(values: dict[str, str] | None, name: str) -> list[Finding]:
    """What is to say of a Secret; nothing where it is absent."""
    if values is None:
        return []
    findings = []
    lacking = [key for key in (ACCESS, SECRET) if not values.get(key)]
    spaced = [key for key, value in values.items() if value != value.strip()]
    if lacking:
        text = f"Secret {name} lacks {' and '.join(lacking)}; it has {', '.join(sorted(values)) or 'nothing'}"
        findings.append(problem(text, "name its keys so, or remove it"))
    if spaced:
        text = f"Secret {name} has space or a newline around {', '.join(spaced)}"
        findings.append(problem(text, "make it anew with --from-literal or printf %s, not with echo"))
    return findings or [ok(f"Secret {name} has its keys")]


def _without_keys(cluster: Cluster, name: str) -> Finding:
    if has_role(cluster):
        return ok(f"no Secret {name}: steps use the role of service account {cluster.service_account}")
    return warning(
        f"no Secret {name}, and no role on service account {cluster.service_account}: steps have no access to S3",
        f"kubectl -n {cluster.namespace} create secret generic {name} --from-literal={ACCESS}=... "
        f"--from-literal={SECRET}=...",
    )


def may(cluster: Cluster, group: str, resource: str, verb: str) -> bool:
    """Ask the Kubernetes API whether the service account has a right in the namespace."""
    attributes = V1ResourceAttributes(group=group, resource=resource, verb=verb, namespace=cluster.namespace)
    review = V1LocalSubjectAccessReview(
        metadata=V1ObjectMeta(namespace=cluster.namespace),
        spec=V1SubjectAccessReviewSpec(
            user=f"system:serviceaccount:{cluster.namespace}:{cluster.service_account}",
            groups=["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{cluster.namespace}"],
            resource_attributes=attributes,
        ),
    )
    api = AuthorizationV1Api(cluster.api)
    answer = api.create_namespaced_local_subject_access_review(cluster.namespace, review, _request_timeout=SECONDS)
    return bool(answer.status.allowed)
