"""Verb `status`: the latest runs in the cluster of all graphs or of one, or the steps of a run."""

import argparse
from datetime import UTC, datetime
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.document import Items, Number, Part
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster import run_state
from runner.cluster.api import find_pipeline, find_run, latest_runs, names_of
from runner.cluster.connection import Connection, connect
from runner.cluster.run_facts import RunFacts, facts
from runner.cluster.watch.failure import UNREADABLE, error_of, find_failure
from runner.cluster.watch.lag import settled
from runner.cluster.watch.nodes import STEP as DISTRIBUTED
from runner.cluster.watch.nodes import Nodes
from runner.cluster.watch.pods import correct_by_pods, measure, reasons_of, refusals, without_pods
from runner.cluster.watch.view import View
from runner.graphs import graph_of

SHOWN = 10


class StepStatus(Part):
    """A step of a run: its state, Kubernetes' reason while it waits, and why it or a node of it ended."""

    step: str
    state: str
    seconds: Number
    waits: str | None
    error: str | None


class StatusDocument(Answer):
    """A run and its steps."""

    FORMAT = "torch2kubeflow/status"

    run: RunFacts
    steps: Items[StepStatus]


class RunsDocument(Answer):
    """The latest runs, newest first."""

    FORMAT = "torch2kubeflow/runs"

    runs: Items[RunFacts]


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Print the state of one run, or of the latest ones."""
    connection = connect(arguments)
    if not arguments.run:
        arguments.document = RunsDocument(runs=_print_runs(connection, pipelines))
        return 0
    pipeline, run = find_run(connection, arguments.run, pipelines)
    view = View(connection, run.run_id)
    run, pods = settled(view, run, pipeline)
    view.correct_record(run)
    say(f"{run.display_name}: {run_state.state(run)}")
    steps = _steps(view, run, pipeline, pods)
    _print_steps(run, steps)
    arguments.document = StatusDocument(run=facts(connection, run), steps=steps)
    say(connection.ui_link("run", run.run_id))
    return 0


def _steps(view: View, run: Any, pipeline: BaseComponent, pods: list[Any]) -> list[StepStatus]:
    """Return state and seconds of each step, why it waits, and why it failed."""
    steps, nodes = run_state.steps(run, pipeline), Nodes(view)
    correct_by_pods(steps, pods)
    measure(steps, view.pods(quietly=True))
    found = nodes.beside(pods)
    reasons = reasons_of(nodes, pods, found) | refusals(view, without_pods(steps, pods))
    errors = {DISTRIBUTED: "; ".join(nodes.newly_killed(found))}
    failure = find_failure(view, run, run_state.failed_step(run, pipeline), nodes)
    if failure.step and run_state.has_failed(run):
        errors[failure.step] = error_of(run, failure) or UNREADABLE
    return [
        StepStatus(
            step=name,
            state=step.state,
            seconds=step.seconds,
            waits=str(reasons[name]) if name in reasons else None,
            error=errors.get(name) or None,
        )
        for name, step in steps.items()
    ]


def _print_steps(run: Any, steps: list[StepStatus]) -> None:
    """Print the steps and, if the run has ended, the seconds of the whole."""
    column = max(len(step.step) for step in steps) + 2
    for step in steps:
        say(f"{step.step:<{column}}{step.state:<10}{step.seconds:>8.1f}")
        if step.waits:
            say(f"{'':<{column}}waits: {step.waits}")
        if step.error:
            say(f"{'':<{column}}{step.error}")
    if run.state in run_state.FINAL:
        say(f"{'total':<{column + 10}}{run_state.seconds(run, run.created_at, run.finished_at):>8.1f}")


def _print_runs(connection: Connection, pipelines: tuple[BaseComponent, ...]) -> list[RunFacts]:
    runs = latest_runs(connection, pipelines)[:SHOWN]
    for pipeline, run in runs:
        state, age = run_state.state(run), _age(run.created_at)
        say(f"{run.run_id}  {state:<10}{age:>6}  {graph_of(pipeline):<12}{run.display_name}")
    if not runs:
        say(f"{names_of(pipelines)} has no run yet; start one with `python pipeline.py run`")
    for found in filter(None, (find_pipeline(connection, str(pipeline.name)) for pipeline in pipelines)):
        say(connection.ui_link("pipeline", found))
    return [facts(connection, run) for _, run in runs]


def _age(created: datetime) -> str:
    minutes = int((datetime.now(UTC) - created).total_seconds() // 60)
    for unit, length in (("d", 24 * 60), ("h", 60)):
        if minutes >= length:
            return f"{minutes // length} {unit}"
    return f"{minutes} min"
