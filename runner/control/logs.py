"""Verb `logs`: print what the steps of a run printed, once or as it comes."""

import argparse
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.document import Items, Part
from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster import run_state
from runner.cluster.api import find_run
from runner.cluster.connection import connect
from runner.cluster.logs import HINT, read_log
from runner.cluster.run_facts import RunFacts, facts, has_ended, parameters_of
from runner.cluster.watch.lag import settled
from runner.cluster.watch.nodes import STEP as DISTRIBUTED
from runner.cluster.watch.nodes import Nodes
from runner.cluster.watch.origin import find_origin
from runner.cluster.watch.view import View
from runner.control.archive import read_archived
from runner.control.follow import Follower
from runner.control.log_lines import LogLine, LogReader, of_first_node
from runner.graphs import steps_of
from runner.terminal import note

GONE = "of a distributed training the log of the first node is kept; those of the others went with their pods"


class StepLog(Part):
    """What a step printed."""

    step: str
    state: str
    run_id: str | None  # in which it ran: another one if it was cached; null: not known
    lines: Items[LogLine]


class LogsDocument(Answer):
    """The logs of the steps of a run."""

    FORMAT = "torch2kubeflow/logs"

    run: RunFacts
    logs: Items[StepLog]


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Print the logs. Raises UserError if none can be read."""
    connection = connect(arguments)
    pipeline, run = find_run(connection, arguments.run, pipelines)
    if arguments.step and arguments.step not in steps_of(pipeline):
        raise UserError(f"{pipeline.name} has no step {arguments.step}", f"give one of {', '.join(steps_of(pipeline))}")
    view = View(connection, run.run_id)
    if arguments.follow and not has_ended(run):
        logs = _follow(view, run, pipeline, arguments)
        run = connection.client.get_run(run.run_id)
    else:
        logs = []
    if not logs:  # of a step that was cached, too
        run, _ = settled(view, run, pipeline)
        logs = _read_all(view, run, pipeline, arguments)
    say(connection.ui_link("run", run.run_id))
    arguments.document = LogsDocument(run=facts(connection, run), logs=logs)
    return 0


def _read_all(view: View, run: Any, pipeline: BaseComponent, arguments: argparse.Namespace) -> list[StepLog]:
    """Print and return the logs of the wanted steps that can be read."""
    states = {name: step.state for name, step in run_state.steps(run, pipeline).items()}
    wanted = [arguments.step] if arguments.step else [name for name, state in states.items() if state != "skipped"]
    if arguments.step and states[arguments.step] == "skipped":
        raise UserError(f"step {arguments.step} of run {run.run_id} did not run", "its state is skipped")
    logs = [_read(view, run, pipeline, step, states[step], arguments) for step in wanted]
    if not any(log.lines for log in logs):
        cached = [log.step for log in logs if log.state == "cached"]
        known = f"; {', '.join(cached)}: cached, from a run that is not known" if cached else ""
        raise UserError(f"no log of {' or '.join(wanted) or 'any step'} of run {run.run_id} can be read{known}", HINT)
    for log in logs:
        if len(logs) > 1 or log.state == "cached":
            say(f"== {log.step}{_source(log)}")
        for line in log.lines:
            say(line.shown())
    if arguments.times and not any(line.time for log in logs for line in log.lines):
        note("only pods tell the times of lines, and these lines are from KFP")
    return logs


def _read(
    view: View, run: Any, pipeline: BaseComponent, step: str, state: str, arguments: argparse.Namespace
) -> StepLog:
    source = find_origin(view, run, pipeline, step) if state == "cached" else run
    log = read_log(view.connection, source, step, times=arguments.times) if source else None
    if log is None and source and has_ended(source):
        log = read_archived(view, source, pipeline, step)
    lines = list(LogReader(arguments.all, arguments.times).read((log or "").splitlines()))
    if step == DISTRIBUTED and source is run:
        lines = [*map(of_first_node, lines), *_of_other_nodes(view, run, arguments)]
    return StepLog(step=step, state=state, run_id=source and source.run_id, lines=lines)


def _of_other_nodes(view: View, run: Any, arguments: argparse.Namespace) -> list[LogLine]:
    """Return the lines of the nodes of a distributed training but for the first, as long as their pods exist."""
    lines: list[LogLine] = []
    others = [(rank, pod) for rank, pod in Nodes(view).find() if rank]
    for rank, pod in others:
        container = pod.spec.containers[0].name
        log = view.log(pod.metadata.name, container=container, timestamps=arguments.times or None) or ""
        lines += LogReader(arguments.all, arguments.times).read(log.splitlines(), rank)
    if not others and not view.refused and int(parameters_of(run).get("nodes", 1)) > 1:
        view.say(GONE)
    return lines


def _source(log: StepLog) -> str:
    """Return where a log is from, and why there is none, for the end of a title."""
    if log.state == "cached" and log.run_id is None:
        return ": cached, from a run that is not known"
    source = f": cached, from run {log.run_id}" if log.state == "cached" else ""
    return source if log.lines else f"{source or ':'} (no lines can be read)"


def _follow(view: View, run: Any, pipeline: BaseComponent, arguments: argparse.Namespace) -> list[StepLog]:
    """Print lines as they come until the run ends, and return them."""
    steps = [arguments.step] if arguments.step else list(steps_of(pipeline))
    follower = Follower(view, pipeline, steps, arguments.all, arguments.times)
    found: dict[str, list[LogLine]] = {step: [] for step in steps}
    for step, line in follower.lines(run):
        say(line.shown(), flush=True)
        found[step].append(line)
    states = run_state.steps(view.connection.client.get_run(run.run_id), pipeline)
    return [
        StepLog(step=step, state=states[step].state, run_id=run.run_id, lines=lines)
        for step, lines in found.items()
        if lines
    ]
