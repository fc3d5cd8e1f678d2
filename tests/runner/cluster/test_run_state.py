"""The states of steps, of a recorded run in which export is put beside evaluate, as the pipeline has it now."""

from typing import Any

import pytest
from kfp_server_api import PipelineTaskDetailChildTask, V2beta1Run

import pipeline
from runner.cluster.run_state import node_id, steps
from tests.servers.recorded_cluster import ended_run

NODE = "torch2kubeflow-training-4ptts(0).root(0).exit-handler-1(0)"


def side_by_side(run: V2beta1Run) -> dict[str, Any]:
    """Let export start when evaluate does; return the entries of their pods."""
    tasks = {task.display_name: task for task in run.run_details.task_details}
    began = {name: tasks[name].start_time for name in ("evaluate", "export")}
    moved = began["export"] - began["evaluate"]
    pods = {}
    for task in run.run_details.task_details:
        for step, start in began.items():
            if task.display_name == "executor" and task.start_time == start:
                pods[step] = task
        if tasks["export"].start_time <= task.start_time <= tasks["export"].end_time and task is not tasks["export"]:
            task.start_time, task.end_time = task.start_time - moved, task.end_time - moved
    tasks["export"].start_time, tasks["export"].end_time = began["evaluate"], tasks["export"].end_time - moved
    tasks["export"].child_tasks = [PipelineTaskDetailChildTask(pod_name=node_id(f"{NODE}.export(0)"))]
    attempt = node_id(f"{NODE}.export(0).executor(0)")
    pods["export"].child_tasks = [PipelineTaskDetailChildTask(pod_name=attempt)]
    return pods


def cache(run: V2beta1Run, pod: Any) -> None:
    """Let a step take an earlier result: its pod is skipped, and has no attempt."""
    attempt = next(
        task
        for task in run.run_details.task_details
        if task.display_name == "executor(0)" and task.start_time == pod.start_time
    )
    run.run_details.task_details.remove(attempt)
    pod.state, pod.child_tasks = "SKIPPED", None


def test_the_name_of_a_node_is_its_id() -> None:
    (evaluate,) = [task for task in ended_run().run_details.task_details if task.display_name == "evaluate"]
    assert evaluate.child_tasks[0].pod_name == node_id(f"{NODE}.evaluate(0)")


@pytest.mark.parametrize("name", ["evaluate", "export"])
def test_of_two_steps_side_by_side_one_is_cached(name: str) -> None:
    run = ended_run()
    cache(run, side_by_side(run)[name])
    found = steps(run, pipeline.training)
    expected = {"evaluate": "done", "export": "done", name: "cached"}
    assert {step: found[step].state for step in expected} == expected


@pytest.mark.parametrize(
    ("attempts", "states"),
    [
        ({"evaluate": "SUCCEEDED", "export": "PENDING"}, {"evaluate": "running", "export": "running"}),
        ({"evaluate": "PENDING", "export": "PENDING"}, {"evaluate": "starting", "export": "starting"}),
        ({"evaluate": "RUNNING", "export": "RUNNING"}, {"evaluate": "running", "export": "running"}),
    ],
)
def test_a_step_is_not_called_starting_for_one_beside_it(attempts: dict[str, str], states: dict[str, str]) -> None:
    """KFP does not say whose attempt is whose: one that has ended, of a step whose end Argo has not seen yet."""
    run = ended_run()
    run.state = "RUNNING"
    side_by_side(run)
    tasks = [task for task in run.run_details.task_details if task.display_name]
    (start,) = {task.start_time for task in tasks if task.display_name in states}
    run.run_details.task_details = [task for task in tasks if task.start_time <= start]  # nothing is later yet
    entries = [task for task in tasks if task.start_time == start and task.display_name == "executor(0)"]
    for entry, state in zip(entries, attempts.values(), strict=True):
        entry.state = state
    for task in tasks:
        if task.display_name in states:
            task.state = "RUNNING"
    found = steps(run, pipeline.training)
    assert {step: found[step].state for step in states} == states


def test_the_time_of_steps_side_by_side_is_argos() -> None:
    run = ended_run()
    assert steps(run, pipeline.training)["evaluate"].seconds == 4.0, "the container's own"
    side_by_side(run)
    found = steps(run, pipeline.training)
    assert (found["evaluate"].seconds, found["export"].seconds) == (10.0, 20.0)
