"""Check what the verb deploy needs to serve models here; no run needs it, so nothing of it is a problem."""

from collections.abc import Iterator

from kubernetes.client import CustomObjectsApi

from components.shared.serving.inference_service import (
    GROUP,
    MODEL_FORMAT,
    PLURAL,
    PROTOCOL,
    RUNTIME,
    SERVICE_ACCOUNT,
    VERSION,
)
from components.shared.serving.kserve import CONTROL_PLANE, MANIFESTS, may_be_kept_out, seaweedfs_note
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, warning
from runner.doctor.preflight import Preflight

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
RUNTIMES_VERSION = "v1alpha1"


def check_kserve(cluster: Cluster, _preflight: Preflight) -> Iterator[Finding]:
    """Check KServe, and the namespace of the runs if it has manifests/serving."""
    api = CustomObjectsApi(cluster.api)
    if cluster.read(api.list_namespaced_custom_object, GROUP, VERSION, cluster.namespace, PLURAL) is None:
        yield ok("no KServe in this cluster; only the verb deploy needs it")
        return
    account = cluster.read(cluster.core.read_namespaced_service_account, SERVICE_ACCOUNT, cluster.namespace)
    if account is None:
        yield ok(f"KServe is installed; to serve models here: kubectl apply -n {cluster.namespace} -k {MANIFESTS}")
        return
    findings = [*_check_namespace(cluster), *_check_runtimes(cluster, api)]
    yield from findings
    if not findings:
        yield ok(f"KServe is installed, with runtime {RUNTIME}, and namespace {cluster.namespace} may serve models")


def _check_namespace(cluster: Cluster) -> Iterator[Finding]:
    if CONTROL_PLANE in cluster.namespace_labels:
        yield warning(
            f"KServe loads no model in namespace {cluster.namespace}, which has the label {CONTROL_PLANE}",
            "deploy with --serving-namespace",
        )
    secret = cluster.read(cluster.core.read_namespaced_secret, SERVICE_ACCOUNT, cluster.namespace)
    missing = [key for key in KEYS if not (secret and (secret.data or {}).get(key))]
    if missing:
        yield warning(
            f"Secret {SERVICE_ACCOUNT}, with which KServe loads models, has no {' or '.join(missing)}",
            "fill it as docs/serving.md says, unless its service account has an identity of its own",
        )
    annotations = (secret and secret.metadata.annotations) or {}
    if may_be_kept_out(cluster.namespace, cluster.namespace_labels, annotations, cluster.kfp_namespace):
        yield warning(*seaweedfs_note(cluster.namespace))


def _check_runtimes(cluster: Cluster, api: CustomObjectsApi) -> Iterator[Finding]:
    place = (GROUP, RUNTIMES_VERSION)
    listed = [
        cluster.read(api.list_namespaced_custom_object, *place, cluster.namespace, "servingruntimes"),
        cluster.read(api.list_cluster_custom_object, *place, "clusterservingruntimes"),
    ]
    names = sorted(
        {one["metadata"]["name"] for found in listed if found for one in found["items"] if _suits(one["spec"])}
    )
    if not names:
        yield warning(f"KServe has no runtime for {MODEL_FORMAT} by {PROTOCOL}", "install KServe's own runtimes")
    elif RUNTIME not in names:
        yield warning(f"KServe has no runtime {RUNTIME}", f"deploy with --runtime: it has {', '.join(names)}")


def _suits(spec: dict[str, object]) -> bool:
    formats: object = spec.get("supportedModelFormats") or []
    names = [one["name"] for one in formats] if isinstance(formats, list) else []
    protocols = spec.get("protocolVersions")
    return MODEL_FORMAT in names and isinstance(protocols, list) and PROTOCOL in protocols
