"""Check whether the namespace admits the pods of a run: Pod Security and admission webhooks."""

from collections.abc import Iterator

from kubernetes.client.exceptions import ApiException

from runner.doctor.cluster import ARGO, SECONDS, Cluster, argo_setting
from runner.doctor.finding import Finding, message_of, ok, problem, unknown, warning
from runner.doctor.pods.loads import amounts_of
from runner.doctor.preflight import Preflight, step_of, trains

LEVEL = "pod-security.kubernetes.io/enforce"
REFUSALS = (400, 403, 422)  # a webhook chooses the status of its refusal; the default is 400


def check_pod_security(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Check Argo's own containers against the namespace's Pod Security level; our steps meet `restricted`."""
    level = cluster.namespace_labels.get(LEVEL, "privileged")
    if level != "restricted":
        yield ok(f"Pod Security level {level}")
        return
    executor = argo_setting(cluster, "executor")
    if executor is None:
        yield unknown(
            f"Pod Security level restricted; without ConfigMap {ARGO} in namespace {cluster.kfp_namespace} it is not "
            "known whether Argo's own containers meet it",
            "give KFP's own namespace with --kfp-namespace",
        )
        return
    security = executor.get("securityContext") or {}
    if security.get("runAsNonRoot") and security.get("seccompProfile"):
        yield ok("Pod Security level restricted, which our steps and Argo's containers meet")
        return
    yield problem(
        "Pod Security level restricted, but Argo's own containers in each pod do not meet it",
        f"set executor.securityContext in {cluster.kfp_namespace}/{ARGO} as KFP 2.17 does, or "
        f"label namespace {cluster.namespace} {LEVEL}=baseline",
    )


def check_admission(cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Ask the cluster to create the training pod, or else the largest, as a dry run that leaves nothing behind."""
    pod = max(preflight.pods, key=lambda pod: (trains(pod), amounts_of(pod.spec)["memory"]))
    name = "training pod" if trains(pod) else f"pod of step {step_of(pod)}"
    try:
        cluster.core.create_namespaced_pod(cluster.namespace, pod, dry_run="All", _request_timeout=SECONDS)
    except ApiException as error:
        message = message_of(error)
        if error.status not in REFUSALS or "cannot create resource" in message:
            raise
        yield _refusal(name, message)
    else:
        yield ok(f"the cluster would admit the {name} (checked by a dry run)")


def _refusal(name: str, message: str) -> Finding:
    text = f"the cluster refuses the {name}: {message}"
    if "does not support dry run" in message:  # from a webhook that was not called
        return unknown(f"the {name} cannot be checked: {message}", "watch a run's first pods instead")
    if "exceeded quota" in message:
        return warning(text, "wait until other runs end, ask for less, or have the quota raised")
    if "violates PodSecurity" in message:
        return problem(text, f"have the namespace's label {LEVEL} set to a level that allows it")
    return problem(text, "change the parameters that it names, or ask the owner of this rule for an exception")
