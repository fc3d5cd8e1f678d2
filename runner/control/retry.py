"""Verb `retry`: let KFP run again, in the same run, the steps that failed or were canceled."""

import argparse

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.cluster import run_state
from runner.cluster.api import find_run
from runner.cluster.connection import connect
from runner.cluster.rest import ApiError
from runner.cluster.run import watch


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Retry the run and, if asked to, wait for its end; return the exit code."""
    connection = connect(arguments)
    pipeline, run = find_run(connection, arguments.run, pipelines)
    try:
        connection.client.runs.run_service_retry_run(run_id=run.run_id)
    except ApiError as error:
        if error.status not in (400, 409):
            raise
        now = run_state.state(connection.client.get_run(run.run_id))
        raise UserError(
            f"KFP does not retry run {run.run_id}, which is {now}: only a run that failed or was canceled",
            f"start it again with `python pipeline.py rerun {run.run_id}`",
        ) from None
    say(f"{run.display_name}: retried; the steps that were done are not run again")
    say(connection.ui_link("run", run.run_id), flush=True)
    return watch(connection, pipeline, connection.client.get_run(run.run_id), arguments)
