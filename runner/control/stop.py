"""Verb `stop`: terminate a run, wait until its pods and its TrainJob are gone, and say what stays."""

import argparse
import time
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.document import Items
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster import run_state
from runner.cluster.api import find_run
from runner.cluster.connection import Connection, connect
from runner.cluster.rest import ApiError
from runner.cluster.run_facts import RunFacts, facts, has_ended, parameters_of
from runner.cluster.watch.nodes import STEP as DISTRIBUTED
from runner.cluster.watch.view import View
from runner.control.leftovers import Leftovers
from runner.failures import DONE, FAILED
from runner.graphs import steps_of

POLL_SECONDS = 2.0
PATIENCE = 300.0  # seconds until what is not gone is named; a pod has 30 to end by itself


class StopDocument(Answer):
    """What `stop` did to a run."""

    FORMAT = "torch2kubeflow/stop"

    run: RunFacts
    had_ended: bool  # before it could be stopped
    leftovers: Items[str] | None  # pods and TrainJobs that are not gone; null: not all can be seen
    store: str | None  # which has its checkpoints, if it made any


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Terminate the run, and wait; return 1 if it or what it started is not gone in time."""
    connection = connect(arguments)
    pipeline, run = find_run(connection, arguments.run, pipelines)
    leftovers = Leftovers(connection, run.run_id, has_jobs=DISTRIBUTED in steps_of(pipeline))
    had_ended = has_ended(run) or not _terminate(connection, run.run_id)
    if not had_ended:
        say(f"terminating {run.display_name}; waiting for its end", flush=True)
        _wait(connection, run.run_id, leftovers)
    run = connection.client.get_run(run.run_id)
    left = leftovers.find()
    store = parameters_of(run).get("store") or None
    View(connection, run.run_id).correct_record(run)
    _print_end(run, had_ended, left, leftovers)
    _print_what_stays(store)
    say(connection.ui_link("run", run.run_id))
    arguments.document = StopDocument(run=facts(connection, run), had_ended=had_ended, leftovers=left, store=store)
    return FAILED if left or not has_ended(run) else DONE


def _terminate(connection: Connection, run_id: str) -> bool:
    """Terminate a run; return False if it has ended in the meantime."""
    try:
        connection.client.terminate_run(run_id)
    except ApiError as error:
        if error.status != 400 or not has_ended(connection.client.get_run(run_id)):
            raise
        return False
    return True


def _wait(connection: Connection, run_id: str, leftovers: Leftovers) -> None:
    """Return when a run has ended and all that it started is gone, or when the time is up."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if has_ended(connection.client.get_run(run_id)) and not leftovers.find():
                return
        except ApiError as error:
            if not connection.may_pass(error):
                raise
        time.sleep(POLL_SECONDS)


def _print_end(run: Any, had_ended: bool, left: list[str] | None, leftovers: Leftovers) -> None:
    if had_ended:
        say(f"{run.display_name} had ended already: {run_state.state(run)}")
    elif has_ended(run):
        say(f"{run.display_name}: {run_state.state(run)}")
    else:
        say(f"{run.display_name} has not ended after {PATIENCE / 60:.0f} minutes; it is {run_state.state(run)}")
    if left:
        say(f"not gone yet: {', '.join(left)}")
    elif leftovers.seen:
        say(f"its {' and '.join(leftovers.seen)} are gone")
    for kind, why in leftovers.unseen.items():
        say(f"whether its {kind} are gone is not known: {why}")


def _print_what_stays(store: str | None) -> None:
    if store:
        say(f"what stays: its checkpoints, if it made any, in {store}: the next run with its data and parameters")
        say("  goes on from the last one; and the results of the steps that were done, which are cached")
    else:
        say("what stays: the results of the steps that were done, which are cached; without a store there are no")
        say("  checkpoints, so the next run starts its training from the beginning")
