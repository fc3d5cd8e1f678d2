"""Verb `doctor`: find what would make a first run fail, and suggest a remedy for each problem.

It changes nothing, as its help promises.
"""

import argparse
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from kfp.dsl.base_component import BaseComponent
from kubernetes.client import VersionApi
from kubernetes.client.exceptions import ApiException

from components.shared.core.document import Items, Part
from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster.connection import connect
from runner.cluster.kube import kube_client, kube_errors
from runner.cluster.options import NoProfile, resolve, runs_namespace
from runner.cluster.rest import ApiError
from runner.cluster.token import expired_since
from runner.doctor.argo import check_requeue, check_retries, check_run_size
from runner.doctor.cluster import SECONDS, Cluster
from runner.doctor.finding import Finding, State, ok, problem, refused, unknown
from runner.doctor.katib import check_katib
from runner.doctor.kfp import check_kfp, check_token
from runner.doctor.kserve import check_kserve
from runner.doctor.launcher import check_launcher
from runner.doctor.namespace import check_config, check_namespace, check_secrets, check_service_account
from runner.doctor.network import check_network
from runner.doctor.pods.admission import check_admission, check_pod_security
from runner.doctor.pods.images import check_images, check_images_from_here
from runner.doctor.pods.nodes import check_nodes
from runner.doctor.pods.quota import check_limit_range, check_quota
from runner.doctor.preflight import Preflight, pods_of
from runner.doctor.rights import Right, roles
from runner.doctor.s3 import check_s3
from runner.doctor.trainer import check_trainer
from runner.parameters import complete, parse_parameters
from runner.run_size import parts_of_run, total

WIDTH = 120
COLUMNS = 10, 17

Check = Callable[[Cluster, Preflight], Iterator[Finding]]
CHECKS: dict[str, Check] = {
    "namespace": check_namespace,
    "Secrets": check_secrets,
    "ConfigMap": check_config,
    "launcher": check_launcher,
    "S3": check_s3,
    "images": check_images,
    "nodes": check_nodes,
    "quota": check_quota,
    "LimitRange": check_limit_range,
    "Pod Security": check_pod_security,
    "admission": check_admission,
    "NetworkPolicy": check_network,
    "service account": check_service_account,
    "Trainer": check_trainer,
    "Katib": check_katib,
    "KServe": check_kserve,
    "retries": check_retries,
    "requeue": check_requeue,
    "run size": check_run_size,
}


class FindingFacts(Part):
    """What a check found."""

    check: str
    state: State
    text: str
    remedy: str


class DoctorDocument(Answer):
    """All that doctor found; a run would fail of what is a `problem`."""

    FORMAT = "torch2kubeflow/doctor"

    findings: Items[FindingFacts]


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Run all checks and print the table. Return 1 if a problem was found, otherwise 0."""
    given = parse_parameters(pipeline, arguments.parameters)
    parameters = complete(pipeline, given)
    preflight = Preflight(
        parameters, pods_of(pipeline, parameters), arguments.s3_endpoint, total(parts_of_run(pipeline, given))
    )
    findings = list(_run_checks(arguments, preflight))
    say(*_table(findings))
    arguments.document = DoctorDocument(
        findings=[
            FindingFacts(check=name, state=finding.state, text=finding.text, remedy=finding.remedy)
            for name, finding in findings
        ]
    )
    return int(any(finding.state == "problem" for _, finding in findings))


def _run_checks(arguments: argparse.Namespace, preflight: Preflight) -> Iterator[tuple[str, Finding]]:
    """Yield the name of the check and a finding, for all checks in turn."""
    connection = None
    yield from (("KFP", finding) for finding in _check_kfp_token(arguments))
    try:
        connection = connect(arguments)
        yield from (("KFP", finding) for finding in check_kfp(connection))
    except NoProfile as error:  # the checks of another namespace would mislead
        yield "KFP", problem(error.message, error.remedy)
        yield from _without_cluster(preflight)
        return
    except UserError as error:
        yield "KFP", problem(error.message, error.remedy)
    try:
        api = kube_client(arguments.context)
    except UserError as error:
        yield "Kubernetes", unknown(error.message, error.remedy)
        yield from _without_cluster(preflight)
        return
    namespace = connection.namespace if connection else _likely_namespace(arguments)
    cluster = Cluster(api, namespace, arguments.kfp_namespace)
    with api:
        reached = list(_findings(_check_kubernetes, cluster, preflight))
        yield from (("Kubernetes", finding) for finding in reached)
        yield from _in_cluster(cluster, preflight) if reached[-1].state == "ok" else _without_cluster(preflight)


def _check_kfp_token(arguments: argparse.Namespace) -> Iterator[Finding]:
    with suppress(UserError):  # which the connection reports
        options = resolve(arguments)
        yield from check_token("the token for KFP", options.bearer, "give a new one", options.is_renewed)


def _in_cluster(cluster: Cluster, preflight: Preflight) -> Iterator[tuple[str, Finding]]:
    """Yield what the checks find: a problem once, though several may meet it, and the rights they miss at the end."""
    reported: set[Finding] = set()
    unseen: dict[Right, dict[str, None]] = {}  # right that this user lacks -> the checks that need it, in order
    for name, check in CHECKS.items():
        for finding in _findings(check, cluster, preflight):
            if finding.right:
                unseen.setdefault(finding.right, {})[name] = None
            elif finding.state != "problem" or finding not in reported:
                yield name, finding
            reported.add(finding)
    if unseen:
        yield "rights", _unseen(unseen)


def _unseen(checks: Mapping[Right, Iterable[str]]) -> Finding:
    """Return the finding about all that could not be checked without rights."""
    missing = "; ".join(f"{right} ({', '.join(names)})" for right, names in checks.items())
    return unknown(
        f"some checks are incomplete without these rights of this user: {missing}", f"ask for {roles(checks)}"
    )


def _without_cluster(preflight: Preflight) -> Iterator[tuple[str, Finding]]:
    return (("images", finding) for finding in check_images_from_here(preflight))


def _likely_namespace(arguments: argparse.Namespace) -> str:
    """Return where runs live if KFP does not answer: the namespace that is named, or KFP's own."""
    try:
        return runs_namespace(arguments, multi_user=True)
    except UserError:
        return str(arguments.kfp_namespace)


def _findings(check: Check, cluster: Cluster, preflight: Preflight) -> Iterator[Finding]:
    """Yield what a check finds, and as a last finding the error that ended it."""
    try:
        with kube_errors(f"ask {cluster.api.configuration.host}"):
            try:
                yield from check(cluster, preflight)
            except ApiException as error:
                yield refused(error)
    except ApiError as error:
        yield unknown(error.message, error.remedy)
    except UserError as error:
        yield problem(error.message, error.remedy)


def _check_kubernetes(cluster: Cluster, _preflight: Preflight) -> Iterator[Finding]:
    configuration = cluster.api.configuration
    token = configuration.api_key.get("authorization", "").removeprefix("Bearer ")
    since = expired_since(token)
    if since:
        yield problem(f"the token for Kubernetes expired {since} ago", "log in again")
    code = VersionApi(cluster.api).get_code(_request_timeout=SECONDS)
    yield ok(f"{configuration.host} answers, version {code.git_version}")


def _table(findings: Sequence[tuple[str, Finding]]) -> Iterator[str]:
    """Yield the lines of the table: state, check and text of each finding, its remedy below it, and the counts."""
    for name, finding in findings:
        yield from _wrapped(f"{finding.state:<{COLUMNS[0]}}{name:<{COLUMNS[1]}}", finding.text)
        if finding.remedy:
            yield from _wrapped(" " * sum(COLUMNS) + "-> ", finding.remedy)
    counts = {state: sum(f.state == state for _, f in findings) for state in ("problem", "warning", "unknown")}
    yield ""
    yield ", ".join(f"{count} {state}{'s' * (count != 1 and state != 'unknown')}" for state, count in counts.items())


def _wrapped(head: str, text: str) -> list[str]:
    """Return `text` as lines of the table's width that do not break names and commands."""
    indent = " " * len(head)
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
