"""Verb `run`: start a run of the pipeline in the cluster and, with `--wait`, wait for its end."""

import argparse
import secrets
import sys
import time
from dataclasses import dataclass
from typing import Any

import kfp_server_api as api
from kfp.dsl.base_component import BaseComponent

from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster.api import Version, find_or_create_experiment, name_filter
from runner.cluster.connection import Connection, connect
from runner.cluster.rest import ApiError
from runner.cluster.run_facts import RunFacts, facts
from runner.cluster.upload import resolve_version
from runner.cluster.watch.watch import Watch
from runner.failures import DONE
from runner.parameters import parse_inputs
from runner.summary import SummaryDocument
from runner.terminal import Terminal
from runner.verbs.options import make_runs_folder


class StartDocument(Answer):
    """A run that was started, or taken up again, and is not waited for; with --wait a verb prints the summary."""

    FORMAT = "torch2kubeflow/start"

    run: RunFacts


@dataclass(frozen=True)
class Wanted:
    """A run to start; without a name it gets one from the pipeline and the time."""

    pipeline_name: str
    version: Version
    inputs: dict[str, Any]
    experiment: str  # its name
    pipeline_root: str | None = None
    name: str | None = None
    description: str | None = None
    service_account: str | None = None  # of the pods; without one, KFP's own choice


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Start a run and, if asked to, wait for its end; return the exit code, 0 only if it succeeds."""
    connection = connect(arguments)
    version, inputs = resolve_version(
        connection, pipeline, arguments.version, lambda chosen: parse_inputs(chosen, arguments.parameters)
    )
    wanted = Wanted(
        pipeline_name=str(pipeline.name),
        version=version,
        inputs=inputs,
        experiment=arguments.experiment,
        pipeline_root=arguments.pipeline_root,
        name=arguments.name,
        description=arguments.description,
    )
    return start_and_watch(connection, pipeline, wanted, arguments)


def start_and_watch(
    connection: Connection, pipeline: BaseComponent, wanted: Wanted, arguments: argparse.Namespace
) -> int:
    """Start a run and, if asked to, wait for its end; return the exit code."""
    if _waits(arguments):
        make_runs_folder(arguments.runs)  # which gets the summary, in the end
    started = start(connection, wanted)
    say(f"started run {started.display_name}: {started.run_id}")
    say(connection.ui_link("run", started.run_id), flush=True)
    return watch(connection, pipeline, started, arguments)


def watch(connection: Connection, pipeline: BaseComponent, run: Any, arguments: argparse.Namespace) -> int:
    """Wait for the end of a run if the options say so, and return the exit code."""
    arguments.document = StartDocument(run=facts(connection, run))
    if not _waits(arguments):
        return DONE
    code = Watch(connection, pipeline, run.run_id, arguments.retries, Terminal(sys.stdout)).wait(arguments.runs)
    summary = arguments.runs / run.run_id / "summary.json"
    if summary.exists():  # not if the wait was interrupted
        arguments.document = SummaryDocument.read(summary)
    return code


def _waits(arguments: argparse.Namespace) -> bool:
    return bool(arguments.wait or arguments.retries)


def start(connection: Connection, wanted: Wanted) -> Any:
    """Create the run once, also if its creation is not confirmed: then it is found by its name."""
    name = wanted.name or _unique_name(wanted.pipeline_name)
    # Several runs may have a name that a user gives.
    before = {run.run_id for run in _named(connection, name)} if wanted.name else set()
    fresh = api.V2beta1Run(
        display_name=name,
        description=wanted.description,
        service_account=wanted.service_account,
        experiment_id=find_or_create_experiment(connection, wanted.experiment),
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=wanted.version.pipeline_id, pipeline_version_id=wanted.version.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=wanted.inputs, pipeline_root=wanted.pipeline_root),
    )
    try:
        return connection.client.runs.run_service_create_run(run=fresh)
    except ApiError as error:
        if error.status != 0:
            raise
        for run in _named(connection, name):
            if run.run_id not in before:
                return run
        raise


def _unique_name(pipeline_name: str) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return f"{pipeline_name}-{stamp}-{secrets.token_hex(2)}"


def _named(connection: Connection, name: str) -> list[Any]:
    """Return the newest hundred runs of that name."""
    page = connection.client.list_runs(
        page_size=100, sort_by="created_at desc", namespace=connection.scope, filter=name_filter(name)
    )
    return page.runs or []
