"""Check what training on many nodes needs: Kubeflow Trainer, its runtime in the namespace, and rights to its jobs."""

from collections.abc import Iterator

from kubernetes.client import CustomObjectsApi

from components.shared.parameters.table import DISTRIBUTED
from components.shared.training.distributed.trainjob.manifest import (
    GROUP,
    PLURAL,
    RUNTIME,
    RUNTIME_MANIFESTS,
    RUNTIMES,
    VERSION,
)
from runner.doctor.cluster import Cluster, parse_version
from runner.doctor.finding import Finding, ok, problem, unknown
from runner.doctor.preflight import JOB_STEP, Preflight, step_of
from runner.doctor.rights import Right, described, lacking

OLDEST = (2, 2)
TRAINER_NAMESPACE = "kubeflow-system"  # unless it is installed beside KFP
PUBLIC, PUBLIC_VERSION = "kubeflow-trainer-public", "kubeflow_trainer_version"
ROLE_MANIFESTS = "manifests/overlays/standalone"  # with the Role of KFP's own namespace
PLATFORM = "Trainer's overlay kubeflow-platform, which gives them to the editors of a Profile"
# What steps train-distributed and finish do with their service account.
RIGHTS = (
    Right(GROUP, PLURAL, "create"),
    Right(GROUP, PLURAL, "get"),
    Right(GROUP, PLURAL, "list"),
    Right(GROUP, PLURAL, "delete"),
    Right(GROUP, RUNTIMES, "get"),
    Right("", "pods", "list"),
)


def check_trainer(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check whether a TrainJob can be created, if the graph creates one."""
    nodes = preflight.parameters.get("nodes", 1)
    if not any(step_of(pod) == JOB_STEP for pod in preflight.pods):
        refused = problem(f"nodes={nodes}, but this graph trains on one node", f"give --graph {DISTRIBUTED}")
        yield refused if nodes > 1 else ok("this graph does not need Kubeflow Trainer")
        return
    api = CustomObjectsApi(cluster.api)
    runtimes = cluster.read(api.list_namespaced_custom_object, GROUP, VERSION, cluster.namespace, RUNTIMES)
    if runtimes is None:
        yield problem("Kubeflow Trainer 2 is not installed in this cluster", "install version 2.2 or newer")
        return
    if RUNTIME not in [found["metadata"]["name"] for found in runtimes["items"]]:
        yield problem(
            f"no TrainingRuntime {RUNTIME} in namespace {cluster.namespace}",
            f"kubectl apply -n {cluster.namespace} -k {RUNTIME_MANIFESTS}",
        )
    else:
        yield ok(f"Kubeflow Trainer and TrainingRuntime {RUNTIME} are installed")
    missing = lacking(cluster, RIGHTS)
    if missing:
        yield problem(
            f"service account {cluster.service_account} may not {described(missing)}",
            f"kubectl apply -k {ROLE_MANIFESTS}"
            if cluster.is_standalone
            else f"have the cluster's owner apply {PLATFORM}",
        )
    yield from _check_version(cluster)


def _check_version(cluster: Cluster) -> Iterator[Finding]:
    """Check the version that Trainer tells to all users."""
    oldest = ".".join(map(str, OLDEST))
    places = list(dict.fromkeys([TRAINER_NAMESPACE, cluster.kfp_namespace]))
    told = ((cluster.config_map(PUBLIC, place) or {}).get(PUBLIC_VERSION) for place in places)
    tag = next(filter(None, told), "")
    version = parse_version(tag)
    if not version:
        text = f"the version of Kubeflow Trainer is not known: no ConfigMap {PUBLIC} in {' or '.join(places)} has it"
        yield unknown(text, f"check that it is {oldest} or newer")
    elif version < OLDEST:
        yield problem(f"Kubeflow Trainer is {tag}; jobs have fields that came with {oldest}", "upgrade it")
    else:
        yield ok(f"Kubeflow Trainer is {tag}")
