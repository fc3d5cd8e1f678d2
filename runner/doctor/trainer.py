"""What a training on many nodes needs: Kubeflow Trainer, its runtime in the namespace, and rights on its jobs."""

from collections.abc import Iterator

from kubernetes.client import CustomObjectsApi

from components.shared.parameters import DISTRIBUTED
from components.shared.training.distributed.trainjob import GROUP, MANIFESTS, PLURAL, RUNTIME, RUNTIMES, VERSION
from runner.doctor.cluster import Cluster
from runner.doctor.finding import Finding, ok, problem
from runner.doctor.namespace import may
from runner.doctor.plan import Run, step_of

STEP = "train-distributed"
# What step train-distributed and, at the end, step finish do with their service account: group, resource, verb.
RIGHTS = (
    (GROUP, PLURAL, "create"),
    (GROUP, PLURAL, "get"),
    (GROUP, PLURAL, "list"),
    (GROUP, PLURAL, "delete"),
    (GROUP, RUNTIMES, "get"),
    ("", "pods", "list"),
)


def check_trainer(cluster: Cluster, run: Run) -> Iterator[Finding]:
    """Whether a TrainJob can be made, where the graph makes one."""
    nodes = run.parameters["nodes"]
    if not any(step_of(pod) == STEP for pod in run.pods):
        refused = problem(f"nodes={nodes} is more than this graph trains on", f"give --graph {DISTRIBUTED}")
        yield refused if nodes > 1 else ok("this graph needs no Kubeflow Trainer")
        return
    api = CustomObjectsApi(cluster.api)
    runtimes = cluster.ask(api.list_namespaced_custom_object, GROUP, VERSION, cluster.namespace, RUNTIMES)
    if runtimes is None:
        yield problem("there is no Kubeflow Trainer 2 in this cluster", "install it, 2.2 or newer")
        return
    if RUNTIME not in [found["metadata"]["name"] for found in runtimes["items"]]:
        yield problem(
            f"no TrainingRuntime {RUNTIME} in namespace {cluster.namespace}",
            f"kubectl apply -n {cluster.namespace} -k {MANIFESTS}",
        )
    else:
        yield ok(f"Trainer is there, and TrainingRuntime {RUNTIME}")
    for group, resource, verb in RIGHTS:
        if not may(cluster, group, resource, verb):
            yield problem(
                f"service account {cluster.service_account} may not {verb} {resource}",
                f'add to its Role: {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}',
            )
