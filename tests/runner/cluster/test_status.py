"""Verb `status` against servers of KFP's and Kubernetes' API."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import kfp_server_api
import pytest

from components.shared.core.errors import UserError
from components.step_table import names_in
from pipeline import GRAPHS, sweep, training
from runner.cluster import run, run_state
from runner.cluster.api import find_run, latest_runs
from runner.cluster.connection import connect
from runner.control import status
from runner.graphs import graph_of
from runner.summary import StepState
from runner.verbs.parser import parse
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import OMITTED, KfpServer, Stage

TRAINING = {"resolve": "SUCCEEDED", "executor#resolve": "SUCCEEDED", "train": "RUNNING", "executor#train": "RUNNING"}


@pytest.fixture
def run_id(kfp_api: KfpServer) -> str:
    """The id of a run that trains."""
    kfp_api.plan = [Stage("RUNNING", TRAINING)]
    run_verb(run)
    return next(iter(kfp_api.runs))


def test_before_the_first_run(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(status) == 0
    assert (
        capsys.readouterr().out == "torch2kubeflow-training has no run yet; start one with `python pipeline.py run`\n"
    )
    with pytest.raises(UserError, match="torch2kubeflow-training has no run; start one"):
        run_verb(status, "latest")


def test_the_latest_runs_of_this_pipeline_are_listed(
    kfp_api: KfpServer, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = kfp_api.runs[run_id].pipeline_version_reference
    now = datetime.now(UTC)
    for state, age in (("SUCCEEDED", timedelta(minutes=5)), ("FAILED", timedelta(hours=3))):
        kfp_api.add_run(display_name=state, state=state, created_at=now - age, pipeline_version_reference=reference)
    another = kfp_server_api.V2beta1PipelineVersionReference(pipeline_id="another")
    kfp_api.add_run(display_name="another pipeline's", pipeline_version_reference=another, created_at=now)
    capsys.readouterr()
    assert run_verb(status) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:] for line in lines[:2]] == [
        ["done", "5", "min", "training", "SUCCEEDED"],
        ["failed", "3", "h", "training", "FAILED"],
    ]
    assert lines[2].startswith(f"{run_id}  running")
    assert lines[3] == f"{kfp_api.url}/#/pipelines/details/{reference.pipeline_id}"


def test_a_run_name_cannot_forge_a_line(kfp_api: KfpServer, run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    reference = kfp_api.runs[run_id].pipeline_version_reference
    now = datetime.now(UTC)
    name = "nightly\x1b[1A\nsucceeded"
    kfp_api.add_run(display_name=name, state="FAILED", created_at=now, pipeline_version_reference=reference)
    capsys.readouterr()
    assert run_verb(status) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith(r"training    nightly\x1b[1A\nsucceeded")


def test_latest_is_the_newest_run_of_all_graphs(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    for graph, minutes in (("training", 9), ("sweep", 4), ("distributed", 7)):
        pipeline_id = f"id-{graph}"
        name = f"torch2kubeflow-{graph}"
        kfp_api.pipelines[pipeline_id] = kfp_server_api.V2beta1Pipeline(
            pipeline_id=pipeline_id, display_name=name, created_at=now
        )
        reference = kfp_server_api.V2beta1PipelineVersionReference(pipeline_id=pipeline_id)
        created = now - timedelta(minutes=minutes)
        kfp_api.add_run(run_id=f"run-{graph}", created_at=created, pipeline_version_reference=reference)
    graphs = [*GRAPHS.values()]
    connection = connect(parse(["status"]))
    assert [graph_of(found.pipeline) for found in latest_runs(connection, graphs)] == [
        "sweep",
        "distributed",
        "training",
    ]
    assert find_run(connection, "latest", graphs).run.run_id == "run-sweep"
    assert find_run(connection, "latest", [training]).run.run_id == "run-training", "--graph training"
    assert find_run(connection, "run-distributed", graphs).pipeline.name == "torch2kubeflow-distributed"
    with pytest.raises(UserError, match="run run-sweep is not one of torch2kubeflow-training; leave out --graph"):
        find_run(connection, "run-sweep", [training])


@pytest.mark.parametrize("latest", [False, True])
def test_one_run_is_shown_step_by_step(
    kfp_api: KfpServer, run_id: str, latest: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_verb(status, "latest" if latest else run_id) == 0
    title, *steps, link = capsys.readouterr().out.splitlines()
    assert title.endswith(": running")
    assert [line.split()[0] for line in steps] == list(names_in("training"))
    shown = _by_step(steps)
    assert (shown["resolve"], shown["download"]) == (["done", "7.0"], ["skipped", "0.0"])
    assert shown["train"] == ["running", "0.0"]
    assert link == f"{kfp_api.url}/#/runs/details/{run_id}"


def test_a_failed_run_waits_for_nothing(kfp_api: KfpServer, capsys: pytest.CaptureFixture[str]) -> None:
    kfp_api.plan = [Stage("FAILED", {"train": "FAILED", "evaluate-driver": OMITTED, "evaluate": OMITTED})]
    run_verb(run)
    capsys.readouterr()
    assert run_verb(status, "latest") == 0
    shown = _by_step(capsys.readouterr().out.splitlines()[1:-1])
    assert (shown["train"], shown["evaluate"]) == (["failed", "10.0"], ["skipped", "0.0"])


def _by_step(lines: list[str]) -> dict[str, list[str]]:
    """State and seconds of each step, as `status` shows them."""
    return {name: facts for name, *facts in (line.split() for line in lines)}


def test_an_unknown_run(kfp_api: KfpServer) -> None:
    with pytest.raises(UserError, match=r"no run has the id 7; `python pipeline.py status` lists the latest"):
        run_verb(status, "7")


@pytest.mark.parametrize(
    ("passes", "state"),
    [
        (["SUCCEEDED", "SUCCEEDED"], "done"),
        (["SUCCEEDED", "RUNNING"], "running"),
        (["FAILED", "RUNNING"], "failed"),
        (["RUNNING", "PENDING"], "running"),
    ],
)
def test_a_loop_has_the_most_important_state_of_its_passes(passes: list[str], state: str) -> None:
    now = datetime.now(UTC)
    tasks = [
        SimpleNamespace(
            display_name="trial", state=one, start_time=now, end_time=now + timedelta(seconds=10), child_tasks=None
        )
        for one in passes
    ]
    run = SimpleNamespace(state="RUNNING", run_details=SimpleNamespace(task_details=tasks))
    steps = run_state.steps(run, sweep)
    assert list(steps) == list(names_in("sweep"))
    seconds = 10.0 * sum(one in run_state.FINAL for one in passes)
    assert steps["trial"] == StepState(state=state, seconds=seconds)
    assert steps["compare"] == StepState(state="skipped", seconds=0.0)
