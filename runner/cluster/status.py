"""Verb `status`: the latest runs in the cluster, or the steps of one."""

import argparse
from datetime import UTC, datetime
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from runner.cluster import run_state, upload
from runner.cluster.connection import Connection, add_options, connect
from runner.cluster.rest import ApiError
from runner.graphs import add_graph_option

SHOWN = 10


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("status", help="show the latest runs in Kubeflow, or the steps of one")
    parser.add_argument("run", nargs="?", metavar="RUN", help="id of the run, or latest")
    add_graph_option(parser)
    add_options(parser)
    parser.set_defaults(handle=handle)


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Print the state of one run, or of the latest ones."""
    connection = connect(arguments)
    if not arguments.run:
        _print_runs(connection, pipeline.name)
        return 0
    run = find_run(connection, arguments.run, pipeline.name)
    print(f"{run.display_name}: {run_state.state(run)}")
    for name, step in run_state.steps(run, pipeline).items():
        print(f"{name:<12}{step['state']:<10}{step['seconds']:>8.1f}")
    print(connection.ui_link("run", run.run_id))
    return 0


def find_run(connection: Connection, run_id: str, pipeline_name: str) -> Any:
    """The run of that id, or the `latest` of the pipeline; UserError where there is none."""
    if run_id == "latest":
        newest = _runs(connection, upload.find_pipeline(connection, pipeline_name))
        if not newest:
            raise UserError(f"no run of {pipeline_name} is there; start one with `python pipeline.py run`")
        run_id = newest[0].run_id
    try:
        return connection.client.get_run(run_id)
    except ApiError as error:
        if error.status != 404:
            raise
        raise UserError(f"no run has the id {run_id}; `python pipeline.py status` lists the latest") from None


def _runs(connection: Connection, pipeline_id: str | None) -> list[Any]:
    """The latest runs of the pipeline, newest first, among the hundred latest of all."""
    page = connection.client.list_runs(page_size=100, sort_by="created_at desc", namespace=connection.scope)
    return [
        run
        for run in page.runs or []
        if run.pipeline_version_reference and run.pipeline_version_reference.pipeline_id == pipeline_id
    ][:SHOWN]


def _print_runs(connection: Connection, pipeline_name: str) -> None:
    pipeline_id = upload.find_pipeline(connection, pipeline_name)
    runs = _runs(connection, pipeline_id)
    for run in runs:
        print(f"{run.run_id}  {run_state.state(run):<10}{_age(run.created_at):>6}  {run.display_name}")
    if not runs:
        print(f"no run of {pipeline_name} yet; start one with `python pipeline.py run`")
    if pipeline_id:
        print(connection.ui_link("pipeline", pipeline_id))


def _age(created: datetime) -> str:
    minutes = int((datetime.now(UTC) - created).total_seconds() // 60)
    for unit, length in (("d", 24 * 60), ("h", 60)):
        if minutes >= length:
            return f"{minutes // length} {unit}"
    return f"{minutes} min"
