"""The states of a run in the cluster and of its steps, from KFP's API.

KFP lists what Argo ran, by name and without the tree: for step `train` a driver (`train-driver`), the step itself
(`train`) and, within its time, the pod (`executor`), which is skipped if the cache had the result. A step in a loop
appears once for each pass, under one name.
"""

from collections import defaultdict
from datetime import datetime
from itertools import zip_longest
from typing import Any, NamedTuple

from kfp.dsl.base_component import BaseComponent

from runner.graphs import steps_of
from runner.parameters import flat
from runner.summary import StepState, SummaryDocument, time_text

FINAL = {"SUCCEEDED": "done", "FAILED": "failed", "CANCELED": "canceled", "SKIPPED": "skipped"}
STATES = {**FINAL, "RUNNING": "running", "PENDING": "waiting", "CANCELING": "canceling", "PAUSED": "paused"}
# The states, once the run has ended, of steps that did not start (Argo's Omitted has no state in KFP) or did not end.
UNFINISHED = {"waiting": "skipped", "running": "canceled", "canceling": "canceled", "paused": "canceled"}
# A step in a loop has the first of these states that one of its passes has.
BY_WEIGHT = ("failed", "running", "canceling", "canceled", "paused", "waiting", "done", "cached", "skipped")
POD = "executor"


class Verdict(NamedTuple):
    """What step `evaluate` reported."""

    accuracy: float
    reasons: list[str]


def tasks(run: Any) -> list[Any]:
    """Return the details of a run's tasks; none before its first pod."""
    return list((run.run_details and run.run_details.task_details) or [])


def state(item: Any) -> str:
    """Return the state of a run or a task in the words of `summary.json`."""
    return STATES.get(item.state, "waiting")


def steps(run: Any, pipeline: BaseComponent) -> dict[str, StepState]:
    """Return state and seconds of every step of the pipeline, as in the summary of a local run."""
    found: dict[str, list[Any]] = defaultdict(list)
    for task in tasks(run):
        found[task.display_name].append(task)
    found_steps = {name: _step(found[name], found[f"{name}-driver"], found[POD]) for name in steps_of(pipeline)}
    if run.state in FINAL:
        for step in found_steps.values():
            step.state = UNFINISHED.get(step.state, step.state)
    return found_steps


def failed_step(run: Any, pipeline: BaseComponent) -> str | None:
    """Return the first step that failed; None if none did."""
    return next((name for name, step in steps(run, pipeline).items() if step.state == "failed"), None)


def seconds(item: Any, started: datetime | None, ended: datetime | None) -> float:
    """Return how long a finished run or task took; 0 while it runs."""
    if item.state not in FINAL or not started or not ended:
        return 0.0
    return max(round((ended - started).total_seconds(), 3), 0.0)


def within(pod: Any, step: Any) -> bool:
    """Return whether a pod is the step's own: apart from the passes of a loop, steps run one after the other."""
    return bool(step.start_time <= pod.start_time and (step.state not in FINAL or pod.start_time <= step.end_time))


def summarise(run: Any, pipeline: BaseComponent, error: str | None, verdict: Verdict | None) -> SummaryDocument:
    """Return the summary of a run of the pipeline, from KFP's API and the `verdict` if it could be read.

    The API returns neither artifacts nor their content: `artifacts` is empty, and what is not known is null.
    """
    found_steps = steps(run, pipeline)
    accepted = found_steps["export"].state in ("done", "cached") or (
        False if found_steps["evaluate"].state in ("done", "cached") and run.state == "SUCCEEDED" else None
    )
    return SummaryDocument(
        pipeline=pipeline.name,
        run_id=run.run_id,
        state=state(run),
        started=time_text(run.created_at.timestamp()),
        seconds=seconds(run, run.created_at, run.finished_at),
        parameters=flat((run.runtime_config and run.runtime_config.parameters) or {}),
        steps=found_steps,
        error=error,
        dataset=None,
        test_accuracy=verdict and verdict.accuracy,
        accepted=accepted,
        reasons=verdict and verdict.reasons,
        registered=None,
        sweep=None,
        artifacts={},
    )


def _step(tasks: list[Any], drivers: list[Any], pods: list[Any]) -> StepState:
    """Return state and seconds of a step, which in a loop has a task for each pass."""
    passes = [_pass(task, driver, pods) for task, driver in zip_longest(tasks, drivers)] or [_pass(None, None, [])]
    worst = min(passes, key=lambda one: BY_WEIGHT.index(one.state))
    return StepState(state=worst.state, seconds=round(sum(one.seconds for one in passes), 3))


def _pass(task: Any, driver: Any, pods: list[Any]) -> StepState:
    if driver and driver.state == "FAILED":
        return StepState(state="failed", seconds=seconds(driver, driver.start_time, driver.end_time))
    if not task:
        return StepState(state="running" if driver and driver.state == "RUNNING" else "skipped", seconds=0.0)
    spent = seconds(task, task.start_time, task.end_time)
    mine = [pod for pod in pods if within(pod, task)]
    if task.state == "SUCCEEDED" and mine and all(pod.state == "SKIPPED" for pod in mine):
        return StepState(state="cached", seconds=spent)
    return StepState(state=state(task), seconds=spent)
