"""Verb `doctor`: look at what makes first runs fail, before one does, and say what mends it.

It changes nothing: it writes only to S3, below a name of its own that it removes, and asks the cluster to admit a pod
as a dry run. Where it has no access to a cluster, it still asks the registries for the images.
"""

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kfp.dsl.base_component import BaseComponent
from kubernetes.client import VersionApi
from kubernetes.client.exceptions import ApiException

from components.shared.core.errors import UserError
from runner.cluster.connection import Connection, connect
from runner.cluster.kube import kube_client, kube_errors
from runner.cluster.options import add_options, runs_namespace
from runner.cluster.rest import ApiError
from runner.doctor.cluster import SECONDS, Cluster
from runner.doctor.finding import Finding, ok, problem, refused, unknown, warning
from runner.doctor.launcher import check_launcher
from runner.doctor.limits import check_admission, check_limit_range, check_pod_security, check_quota
from runner.doctor.namespace import check_config, check_namespace, check_retries, check_secrets, check_service_account
from runner.doctor.network import check_network
from runner.doctor.nodes import check_nodes
from runner.doctor.plan import Run, pods_of
from runner.doctor.pull import check_images, check_images_from_here
from runner.doctor.store import check_store
from runner.doctor.trainer import check_trainer
from runner.graphs import add_graph_option
from runner.parameters import parse_parameters

NEEDED = (2, 17)  # of KFP's backend: only there do nested groups tell their state to the exit handler
EXAMPLES = """examples:
  python pipeline.py doctor
  python pipeline.py doctor gpus=1 train_memory=16Gi --namespace my-profile
  python pipeline.py doctor store=s3://bucket/prefix --s3-endpoint http://localhost:9000

exit code: 0 where nothing was found that would keep such a run from ending well, 1 where something was;
warnings, and what could not be looked at, do not count
"""
WIDTH = 120
COLUMNS = 10, 17

Check = Callable[[Cluster, Run], Iterator[Finding]]
CHECKS: dict[str, Check] = {
    "namespace": check_namespace,
    "Secrets": check_secrets,
    "ConfigMap": check_config,
    "launcher": check_launcher,
    "S3": check_store,
    "images": check_images,
    "nodes": check_nodes,
    "quota": check_quota,
    "LimitRange": check_limit_range,
    "Pod Security": check_pod_security,
    "admission": check_admission,
    "NetworkPolicy": check_network,
    "service account": check_service_account,
    "Trainer": check_trainer,
    "retries": check_retries,
}


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "doctor",
        help="look at what makes first runs fail, and say what mends it",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parameters", nargs="*", metavar="name=value", help="parameters of the run to be judged")
    parser.add_argument(
        "--s3-endpoint", default="", metavar="URL", help="where this machine reaches the pods' S3, as by a port-forward"
    )
    add_graph_option(parser)
    add_options(parser)
    parser.set_defaults(handle=handle)


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Make all checks and print the table: 0 where no problem was found, 1 otherwise."""
    parameters = parse_parameters(pipeline, arguments.parameters)
    run = Run(parameters, pods_of(pipeline, parameters), arguments.s3_endpoint)
    findings = list(_examine(arguments, run))
    print("\n".join(_table(findings)))
    return int(any(finding.state == "problem" for _, finding in findings))


def _examine(arguments: argparse.Namespace, run: Run) -> Iterator[tuple[str, Finding]]:
    """Name of the check and finding, of all checks in turn."""
    connection = None
    try:
        connection = connect(arguments)
        yield "KFP", _version(connection)
    except UserError as error:
        yield "KFP", _told(error, problem)
    try:
        api = kube_client(arguments.context)
    except UserError as error:
        yield "Kubernetes", _told(error, unknown)
        yield from _without_cluster(run)
        return
    namespace = connection.namespace if connection else _likely_namespace(arguments)
    cluster = Cluster(api, namespace, arguments.kfp_namespace)
    with api:
        reached = list(_findings(_check_kubernetes, cluster, run))
        yield from (("Kubernetes", finding) for finding in reached)
        yield from _in_cluster(cluster, run) if reached[0].state == "ok" else _without_cluster(run)


def _in_cluster(cluster: Cluster, run: Run) -> Iterator[tuple[str, Finding]]:
    told: set[Finding] = set()  # several checks may meet the same obstacle
    for name, check in CHECKS.items():
        fresh = [f for f in _findings(check, cluster, run) if f.state != "problem" or f not in told]
        told |= set(fresh)
        yield from ((name, finding) for finding in fresh)


def _without_cluster(run: Run) -> Iterator[tuple[str, Finding]]:
    return (("images", finding) for finding in check_images_from_here(run))


def _likely_namespace(arguments: argparse.Namespace) -> str:
    """Where runs live if KFP does not tell whether it has many users: KFP's own namespace where nothing names one."""
    try:
        return runs_namespace(arguments, multi_user=True)
    except UserError:
        return str(arguments.kfp_namespace)


def _findings(check: Check, cluster: Cluster, run: Run) -> Iterator[Finding]:
    """What a check finds; what keeps it from finding more is a finding too."""
    try:
        with kube_errors(f"ask {cluster.api.configuration.host}"):
            try:
                yield from check(cluster, run)
            except ApiException as error:
                yield refused(error)
    except ApiError as error:
        yield _told(error, unknown)
    except UserError as error:
        yield _told(error, problem)


def _check_kubernetes(cluster: Cluster, _run: Run) -> Iterator[Finding]:
    code = VersionApi(cluster.api).get_code(_request_timeout=SECONDS)
    yield ok(f"{cluster.api.configuration.host} answers, version {code.git_version}")


def _version(connection: Connection) -> Finding:
    """KFP's version, which its server tells beside the fields that the client's model knows."""
    answer = connection.client.healthzs.healthz_service_get_healthz(_preload_content=False)
    tag = str(json.loads(answer.data).get("tag_name", ""))
    found = re.match(r"v?(\d+)\.(\d+)", tag)
    needed = ".".join(map(str, NEEDED))
    if not found:
        return warning(
            f"KFP answers and does not tell its version ({tag or 'nothing'})", f"it must be {needed} or newer"
        )
    if (int(found[1]), int(found[2])) < NEEDED:
        return problem(f"KFP is {tag}, older than {needed}: failed steps may not reach the exit handler", "upgrade KFP")
    return ok(f"KFP {tag} answers, {'multi-user' if connection.multi_user else 'standalone'}")


def _told(error: UserError, kind: Callable[[str, str], Finding]) -> Finding:
    text, _, remedy = str(error).partition("; ")
    return kind(text, remedy)


def _table(findings: Sequence[tuple[str, Finding]]) -> Iterator[str]:
    """State, check and text of each finding, its remedy below it, and the count."""
    for name, finding in findings:
        yield from _wrapped(f"{finding.state:<{COLUMNS[0]}}{name:<{COLUMNS[1]}}", finding.text)
        if finding.remedy:
            yield from _wrapped(" " * sum(COLUMNS) + "-> ", finding.remedy)
    counts = {state: sum(f.state == state for _, f in findings) for state in ("problem", "warning", "unknown")}
    yield ""
    yield ", ".join(f"{count} {state}{'s' * (count != 1 and state != 'unknown')}" for state, count in counts.items())


def _wrapped(head: str, text: str) -> list[str]:
    """Lines of the width of a page, in which names and commands stay whole."""
    indent = " " * len(head)
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
