"""Verb `status`: the latest runs in the cluster, or the steps of one."""

import argparse
from datetime import UTC, datetime

from kfp.dsl.base_component import BaseComponent

from runner.cluster import run_state
from runner.cluster.api import find_pipeline, find_run, latest_runs
from runner.cluster.connection import Connection, connect

SHOWN = 10


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Print the state of one run, or of the latest ones."""
    connection = connect(arguments)
    if not arguments.run:
        _print_runs(connection, pipeline.name)
        return 0
    run = find_run(connection, arguments.run, pipeline.name)
    print(f"{run.display_name}: {run_state.state(run)}")
    for name, step in run_state.steps(run, pipeline).items():
        print(f"{name:<12}{step.state:<10}{step.seconds:>8.1f}")
    print(connection.ui_link("run", run.run_id))
    return 0


def _print_runs(connection: Connection, pipeline_name: str) -> None:
    pipeline_id = find_pipeline(connection, pipeline_name)
    runs = latest_runs(connection, pipeline_id)[:SHOWN]
    for run in runs:
        print(f"{run.run_id}  {run_state.state(run):<10}{_age(run.created_at):>6}  {run.display_name}")
    if not runs:
        print(f"{pipeline_name} has no run yet; start one with `python pipeline.py run`")
    if pipeline_id:
        print(connection.ui_link("pipeline", pipeline_id))


def _age(created: datetime) -> str:
    minutes = int((datetime.now(UTC) - created).total_seconds() // 60)
    for unit, length in (("d", 24 * 60), ("h", 60)):
        if minutes >= length:
            return f"{minutes // length} {unit}"
    return f"{minutes} min"
