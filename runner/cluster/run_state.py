"""The states of a run in the cluster and of its steps, from KFP's API.

KFP lists what Argo ran, by name and without the tree: for step `train` a driver (`train-driver`), the step itself
(`train`) and, within its time, the pod (`executor`), which is skipped if the cache had the result. A step in a loop
appears once for each pass, under one name. Each of these is listed again for each attempt, with its number
(`executor(0)`), and the launcher adds an entry without a name for the time that the container took.

These states are stale where Argo has compressed the Workflow: the run's own state is the truth.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from itertools import zip_longest
from typing import Any, NamedTuple

from kfp.dsl.base_component import BaseComponent

from components.shared.core.printable import told_values
from runner.graphs import steps_of
from runner.parameters import flat
from runner.summary import Predicted, Registered, StepState, SummaryDocument, time_text

FINAL = {"SUCCEEDED": "done", "FAILED": "failed", "CANCELED": "canceled", "SKIPPED": "skipped"}
UNKNOWN = "not known"
STATES = {**FINAL, "RUNNING": "running", "PENDING": "waiting", "CANCELING": "canceling", "PAUSED": "paused"}
# The states, once the run has ended, of steps that did not start (Argo's Omitted has no state in KFP) or did not end.
UNFINISHED = {"waiting": "skipped", **dict.fromkeys(("starting", "running", "canceling", "paused"), "canceled")}
CERTAIN = ("done", "cached", "failed")  # states of a step that stay, however old they are
# A step in a loop has the first of these states that one of its passes has.
BY_WEIGHT = ("failed", "running", "starting", "canceling", "canceled", "paused", "waiting", "done", "cached", "skipped")
UNENDED = ("PENDING", "RUNNING")  # of tasks, which then have no time of their end
POD = "executor"
POD_ATTEMPTS, LAUNCHED = "executor(n)", None  # under which attempts, and the launcher's entries, are gathered
ATTEMPT = re.compile(r"executor\(\d+\)")
MAX_ATTEMPTS = 10  # of a step


class Verdict(NamedTuple):
    """What steps `evaluate` and `register` reported, in this run or in the one that a cached result is from."""

    accuracy: float | None = None
    accepted: bool | None = None
    reasons: list[str] | None = None
    registered: Registered | None = None
    from_run: str | None = None  # the run that reported it, if it is another one
    predicted: Predicted | None = None  # of a prediction, which has no verdict


def tasks(run: Any) -> list[Any]:
    """Return the details of a run's tasks; none before its first pod."""
    return list((run.run_details and run.run_details.task_details) or [])


def state(run: Any) -> str:
    """Return the state of a run in the words of `summary.json`."""
    return "canceled" if was_stopped(run) else _word(run)


def was_stopped(run: Any) -> bool:
    """Return whether a run has ended because it was terminated, which KFP calls a failure."""
    before = [entry.state for entry in run.state_history or [] if entry.state != run.state]
    return run.state == "CANCELED" or (run.state == "FAILED" and before[-1:] == ["CANCELING"])


def has_failed(run: Any) -> bool:
    """Return whether a run has failed by itself."""
    return run.state == "FAILED" and not was_stopped(run)


def is_stale(run: Any) -> bool:
    """Return whether KFP shows tasks of a run that has ended as if they went on."""
    return run.state in FINAL and any(task.state in UNENDED for task in tasks(run))


def steps(run: Any, pipeline: BaseComponent) -> dict[str, StepState]:
    """Return state and seconds of every step of the pipeline, as in the summary of a local run."""
    found: dict[str | None, list[Any]] = defaultdict(list)
    for task in tasks(run):
        found[POD_ATTEMPTS if ATTEMPT.fullmatch(task.display_name or "") else task.display_name].append(task)
    found_steps = {name: _step(found, name) for name in steps_of(pipeline)}
    for step in found_steps.values() if run.state in FINAL else ():
        step.state = _at_the_end(step.state, run)
    return found_steps


def _at_the_end(word: str, run: Any) -> str:
    """Return a step's state when its run has ended, of which KFP may not have heard."""
    if is_stale(run):
        return word if word in CERTAIN else UNKNOWN
    if was_stopped(run) and word == "failed":
        return "canceled"
    return UNFINISHED.get(word, word)


def failed_step(run: Any, pipeline: BaseComponent) -> str | None:
    """Return the first step that failed; None if none did."""
    return next((name for name, step in steps(run, pipeline).items() if step.state == "failed"), None)


def seconds(item: Any, started: datetime | None, ended: datetime | None) -> float:
    """Return how long a finished run or task took; 0 while it runs."""
    return _span(started, ended) if item.state in FINAL else 0.0


def within(pod: Any, step: Any) -> bool:
    """Return whether a pod ran in the time of a step, which is its own if no other step ran beside it."""
    return bool(step.start_time <= pod.start_time and (step.state in UNENDED or pod.start_time <= step.end_time))


def summarise(run: Any, pipeline: BaseComponent, error: str | None, verdict: Verdict) -> SummaryDocument:
    """Return the summary of a run of the pipeline, from KFP's API and what its steps reported.

    The API returns neither artifacts nor their content: `artifacts` is empty, and what is not known is null.
    """
    return SummaryDocument(
        pipeline=pipeline.name,
        run_id=run.run_id,
        state=state(run),
        started=time_text(run.created_at.timestamp()),
        seconds=seconds(run, run.created_at, run.finished_at),
        parameters=told_values(flat((run.runtime_config and run.runtime_config.parameters) or {})),
        steps=steps(run, pipeline),
        error=error,
        dataset=None,
        test_accuracy=verdict.accuracy,
        accepted=verdict.accepted,
        reasons=verdict.reasons,
        registered=verdict.registered,
        sweep=None,
        predicted=verdict.predicted,
        artifacts={},
    )


def _word(item: Any) -> str:
    return STATES.get(item.state, "waiting")


def _step(found: dict[str | None, list[Any]], name: str) -> StepState:
    """Return state and seconds of a step, which in a loop has a task for each pass."""
    tasks, drivers = found[name], found[f"{name}-driver"]
    passes = [_pass(task, driver, found) for task, driver in zip_longest(tasks, drivers)]
    attempts = [pod for pod in found[POD_ATTEMPTS] if any(within(pod, task) for task in tasks)]
    launched = found[LAUNCHED]
    if 0 < sum(len(pod.child_tasks or []) for task in tasks for pod in pods_of(task, found[POD])) < len(attempts):
        attempts, launched = [], []  # some are of a step beside it, and nothing tells which
    failed = [driver for driver in drivers if driver.state == "FAILED"]
    spent = _container_seconds(attempts or tasks, launched) + sum(_seconds(driver) for driver in failed)
    return StepState(state=min(passes or ["skipped"], key=BY_WEIGHT.index), seconds=round(spent, 3))


def _pass(task: Any, driver: Any, found: dict[str | None, list[Any]]) -> str:
    """Return the state of one pass of a step."""
    if driver and driver.state == "FAILED":
        return "failed"
    if not task:
        return "starting" if driver and driver.state == "RUNNING" else "skipped"
    mine = pods_of(task, found[POD])
    if task.state == "SUCCEEDED" and mine and all(pod.state == "SKIPPED" for pod in mine):
        return "cached"
    attempts = [pod.state for pod in found[POD_ATTEMPTS] if within(pod, task)]
    is_starting = task.state == "RUNNING" and "PENDING" in attempts and "RUNNING" not in attempts
    if len(attempts) > sum(len(pod.child_tasks or []) for pod in mine):  # some are of a step beside it
        is_starting = is_starting and set(attempts) == {"PENDING"}
    return "starting" if is_starting else _word(task)


def pods_of(task: Any, executors: Iterable[Any]) -> list[Any]:
    """Return the entries of the pods of a step, one for each pass.

    Those of steps side by side differ in the pods that they had; one that was skipped had none.
    """
    near = [pod for pod in executors if within(pod, task)]
    node = _node_of(task)
    if node is None or len(near) < 2:
        return near
    attempts = {node_id(f"{node}.{POD}({number})") for number in range(MAX_ATTEMPTS)}
    own = [pod for pod in near if not attempts.isdisjoint(children(pod))]
    return own or [pod for pod in near if not pod.child_tasks]


def _node_of(task: Any) -> str | None:
    """Return Argo's name of the node of a step that is in no loop; None if it is in one."""
    workflow = next((child.rpartition("-")[0] for child in children(task)), "")
    node = f"{workflow}(0).root(0).exit-handler-1(0).{task.display_name}(0)"
    return node if node_id(node) in children(task) else None


def node_id(node: str) -> str:
    """Return Argo's ID of a node by its name: that of the Workflow, and the FNV-1a hash of the whole (32 bits)."""
    digest = 0x811C9DC5
    for byte in node.encode():
        digest = (digest ^ byte) * 0x01000193 % 2**32
    return f"{node.partition('(')[0]}-{digest}"


def children(task: Any) -> list[str]:
    """Return the IDs of the nodes below a task."""
    return [child.pod_name for child in task.child_tasks or [] if child.pod_name]


def _container_seconds(attempts: list[Any], launched: Iterable[Any]) -> float:
    """Return the seconds of a step's containers: the launcher's if it told them, else Kubernetes' of the pods.

    Those of Argo's own nodes are mostly its interval of 10 s.
    """
    left, spent = sorted(launched, key=lambda entry: entry.start_time), 0.0
    for attempt in attempts:
        own = next((entry for entry in left if within(entry, attempt)), None)
        if own:
            left.remove(own)
        spent += _span(own.start_time, own.end_time) if own else _seconds(attempt)
    return spent


def _seconds(task: Any) -> float:
    return seconds(task, task.start_time, task.end_time)


def _span(started: datetime | None, ended: datetime | None) -> float:
    return max(round((ended - started).total_seconds(), 3), 0.0) if started and ended else 0.0
