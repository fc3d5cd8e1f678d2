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
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem
from runner.doctor.preflight import JOB_STEP, Preflight, step_of
from runner.doctor.rights import Right, described, lacking

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
    nodes = preflight.parameters["nodes"]
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
