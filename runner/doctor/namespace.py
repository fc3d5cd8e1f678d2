"""Check the namespace of a run: its kind, Secrets and ConfigMap, service account and its rights."""

from collections.abc import Iterator

from components.shared.storage.endpoint import AWS
from runner.cluster.artifacts.location import ACCESS, ENDPOINT, REGION, SECRET
from runner.doctor.cluster import PROFILE, PROFILE_ACCOUNT, Cluster
from runner.doctor.finding import Finding, ok, problem, warning
from runner.doctor.launcher import has_role
from runner.doctor.preflight import Preflight, step_of
from runner.doctor.rights import Right, described, lacking, rules

PROFILE_MANIFESTS = "manifests/overlays/multi-user"
# What KFP's launcher and Argo's executor do with the pod's service account.
RIGHTS = (
    Right("", "configmaps", "get"),
    Right("", "secrets", "get"),
    Right("", "pods", "get"),
    Right("argoproj.io", "workflowtaskresults", "create"),
    Right("argoproj.io", "workflowtaskresults", "patch"),
)
LIST_WORKFLOWS = Right("argoproj.io", "workflows", "list")  # of step finish
RETRAIN_STEP = "collect"
RETRAIN_RIGHTS = (  # of the step that starts a training run after drift, where KFP has many users
    *(Right("pipelines.kubeflow.org", "pipelines", verb) for verb in ("get", "list")),
    *(Right("pipelines.kubeflow.org", "runs", verb) for verb in ("get", "list", "create")),
    Right("", "serviceaccounts/token", "create", name=PROFILE_ACCOUNT),
)


def check_namespace(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check that the namespace can hold runs: KFP's own, or a user's Profile."""
    name = cluster.namespace
    if cluster.namespace_object is None:
        option = "--kfp-namespace" if cluster.is_standalone else "--namespace"
        yield problem(f"namespace {name} does not exist", f"give another one with {option}")
    elif cluster.is_standalone:
        yield ok(f"{name} is KFP's own (standalone); runs use service account {cluster.service_account}")
    elif PROFILE.items() <= cluster.namespace_labels.items():
        yield ok(f"{name} is a Profile (multi-user); runs use service account {cluster.service_account}")
    else:
        yield problem(
            f"namespace {name} is neither KFP's own ({cluster.kfp_namespace}) nor a Profile",
            "give the Profile's name with --namespace, or KFP's own with --kfp-namespace",
        )


def check_secrets(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check the Secrets with the steps' S3 credentials; both may be absent, or empty as our manifests create them."""
    name, source = preflight.parameters["s3_secret"], preflight.parameters["source_secret"]
    yield from _check_keys(cluster.secret(name), name) or [_without_keys(cluster, name)]
    without = ok(f"no keys in Secret {source}: a data source in S3 is read with the credentials of the store")
    yield from _check_keys(cluster.secret(source), source) or [without]


def check_config(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check the ConfigMap with the address of S3; it may be absent."""
    name = preflight.parameters["s3_config"]
    values = cluster.config_map(name) or {}
    endpoint = values.get(ENDPOINT, "")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        yield problem(f"ConfigMap {name} has {ENDPOINT}={endpoint}", "begin it with http:// or https://")
    elif endpoint or values.get(REGION):
        yield ok(f"ConfigMap {name}: S3 is at {endpoint or AWS}")
    else:
        yield warning(
            f"no {ENDPOINT} in ConfigMap {name}: steps use Amazon S3, without a region", f"set {ENDPOINT} or {REGION}"
        )


def check_service_account(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check that the pods' service account exists and has the rights that launcher and executor need."""
    name = cluster.service_account
    if cluster.account is None:
        yield problem(
            f"service account {name} does not exist in {cluster.namespace}",
            "install KFP there, or give another namespace with --namespace",
        )
        return
    missing = lacking(cluster, RIGHTS)
    if missing:
        yield problem(f"service account {name} may not {described(missing)}", f"add to its Role: {rules(missing)}")
    else:
        found = [*_check_finish(cluster), *_check_retraining(cluster, preflight)]
        yield from found or [ok(f"service account {name} has the rights that a run needs")]


def _check_finish(cluster: Cluster) -> Iterator[Finding]:
    name = cluster.service_account
    if lacking(cluster, [LIST_WORKFLOWS]):
        add = f"add to its Role: {rules([LIST_WORKFLOWS])}"
        yield warning(
            f"service account {name} may not {LIST_WORKFLOWS}: finish records a run that was stopped as failed",
            add if cluster.is_standalone else _bind(cluster, "torch2kubeflow-runs"),
        )


def _check_retraining(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check that drift can start a training run; KFP with one user checks no rights."""
    starts_one = any(step_of(pod) == RETRAIN_STEP for pod in preflight.pods) and preflight.parameters["retrain"]
    missing = [] if cluster.is_standalone or not starts_one else lacking(cluster, RETRAIN_RIGHTS)
    if missing:
        yield warning(
            f"service account {cluster.service_account} may not {described(missing)}: drift starts no training run",
            f"{_bind(cluster, 'torch2kubeflow-retrain')}; or give retrain=false",
        )


def _bind(cluster: Cluster, role: str) -> str:
    return (
        f"apply {PROFILE_MANIFESTS}, then kubectl -n {cluster.namespace} create rolebinding "
        f"{role} --role={role} --serviceaccount={cluster.namespace}:{cluster.service_account}"
    )


def _check_keys(values: dict[str, str] | None, name: str) -> list[Finding]:
    """Return the findings about a Secret, none if it does not exist or is empty."""
    if not values:
        return []
    findings = []
    lacking = [key for key in (ACCESS, SECRET) if not values.get(key)]
    spaced = [key for key, value in values.items() if value != value.strip()]
    if lacking:
        text = f"Secret {name} lacks {' and '.join(lacking)}; it has {', '.join(sorted(values))}"
        findings.append(problem(text, "rename its keys, or remove the Secret"))
    if spaced:
        text = f"Secret {name} has spaces or a newline around {', '.join(spaced)}"
        findings.append(problem(text, "create it again with --from-literal or printf %s, not with echo"))
    return findings or [ok(f"Secret {name} has its keys")]


def _without_keys(cluster: Cluster, name: str) -> Finding:
    if has_role(cluster):
        return ok(f"no keys in Secret {name}: steps use the role of service account {cluster.service_account}")
    return warning(
        f"no keys in Secret {name}, and no role on service account {cluster.service_account}: "
        "steps have no access to S3",
        f"put {ACCESS} and {SECRET} into s3.env, then kubectl -n {cluster.namespace} create secret generic {name} "
        "--from-env-file=s3.env --dry-run=client -o yaml | kubectl apply --server-side --field-manager=keys -f -",
    )
