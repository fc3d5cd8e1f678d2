"""Verb `stop`, with servers of KFP's and Kubernetes' API and a clock of the test's."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl
from kubernetes import client

from components.shared.core.errors import UserError
from components.shared.core.workflow import RUN_LABEL
from runner.cluster import run
from runner.cluster.watch.nodes import GROUP, JOB_LABEL, VERSION
from runner.control import stop
from tests.conftest import ROOT
from tests.runner.verbs import _step, answered, pipeline, run_verb
from tests.servers.kfp_http import error
from tests.servers.kfp_server import KfpServer, Stage
from tests.servers.kube_server import KubeServer, kube_server

JOB = "train-1"


class Clock:
    """Time that passes only while somebody sleeps; `after` says what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 0.0
        self.after: dict[float, Callable[[], object]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for time in [time for time in self.after if time <= self.now]:
            self.after.pop(time)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stop, "time", clock)
    return clock


@pytest.fixture
def cluster(tmp_path: Path, kfp_api: KfpServer) -> Iterator[KubeServer]:
    """Kubernetes, with the context `loopback`."""
    with kube_server() as server:
        server.write_kubeconfig(tmp_path / ".kube" / "config")
        yield server


@dsl.pipeline(name="torch2kubeflow-distributed", description="One with a TrainJob.")
def distributed(data: str = "mnist") -> None:
    _step("train_distributed")()


@pytest.fixture(params=[distributed])
def run_id(kfp_api: KfpServer, request: pytest.FixtureRequest) -> str:
    """The id of a run that trains, with a store."""
    kfp_api.plan = [Stage("RUNNING", {"train": "RUNNING"})]
    run_verb(run, pipeline=request.param)
    (found,) = kfp_api.runs.values()
    found.runtime_config.parameters = {"options": {"store": "s3://bucket/team"}}
    return str(found.run_id)


def _pod(name: str, **labels: str) -> client.V1Pod:
    metadata = client.V1ObjectMeta(name=name, namespace="kubeflow", labels=labels)
    return client.V1Pod(metadata=metadata, status=client.V1PodStatus(phase="Running"))


def _of_run(run_id: str) -> dict[str, Any]:
    return {RUN_LABEL: run_id}


def _trainjob(run_id: str) -> dict[str, Any]:
    return {"metadata": {"name": JOB, "labels": _of_run(run_id)}}


def test_stop_waits_until_pods_and_trainjob_are_gone(
    kfp_api: KfpServer, cluster: KubeServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(_pod("train-pod", **_of_run(run_id)), _pod("node-0", **{JOB_LABEL: JOB}))
    cluster.custom["trainjobs"] = [_trainjob(run_id), _trainjob("another")]
    clock.after = {
        10: lambda: cluster.remove("pods", "train-pod"),
        20: lambda: cluster.custom["trainjobs"].pop(0),
        36: lambda: cluster.remove("pods", "node-0"),  # it outlives its job
    }
    capsys.readouterr()
    assert run_verb(stop, run_id, "--context", "loopback", pipeline=distributed) == 0
    assert clock.now == 36
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[2] for line in lines[1:3]] == ["canceled", "its pods and TrainJobs are gone"]
    assert "its checkpoints, if it made any, in s3://bucket/team" in lines[3]


@pytest.mark.slow
def test_what_does_not_end_is_named(
    kfp_api: KfpServer, cluster: KubeServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add(_pod("train-pod", **_of_run(run_id)))
    cluster.custom["trainjobs"] = [_trainjob(run_id)]
    assert run_verb(stop, "latest", "--context", "loopback", pipeline=distributed) == 1
    assert stop.PATIENCE <= clock.now < stop.PATIENCE + 10
    assert f"not gone yet: pod train-pod, TrainJob {JOB}\n" in capsys.readouterr().out


def test_stop_of_a_run_that_has_ended_says_so(
    kfp_api: KfpServer, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run_verb(run)
    capsys.readouterr()
    assert run_verb(stop, "latest") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(" had ended already: done")
    assert lines[1] == "whether its pods are gone is not known: give --context to see them"
    assert "without a store there are no" in lines[2]
    assert not kfp_api.asked("POST .*:terminate") and clock.now == 0


def test_a_run_that_ends_meanwhile_is_no_error(
    kfp_api: KfpServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(handler: Any, request: Any) -> None:
        kfp_api.runs[run_id].state = "SUCCEEDED"
        kfp_api._plans[run_id] = []
        error(400, "Row not found")(handler, request)

    kfp_api.script("POST .*:terminate", ended, error(400, "no right"))
    assert run_verb(stop, run_id, pipeline=distributed) == 0
    kfp_api.runs[run_id].state = "RUNNING"
    with pytest.raises(UserError, match="no right"):
        run_verb(stop, run_id, pipeline=distributed)


def test_without_rights_on_pods_it_says_what_is_not_known(
    kfp_api: KfpServer, cluster: KubeServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.denied = {"list pods"}
    assert run_verb(stop, run_id, "--context", "loopback", pipeline=distributed) == 0
    out = capsys.readouterr().out
    refused = "Kubernetes refuses to list pods in namespace kubeflow (403 Forbidden); ask for that right"
    assert out.count(f"whether its pods are gone is not known: {refused}") == 1


@pytest.mark.parametrize("run_id", [distributed, pipeline], indirect=True)
def test_without_rights_on_trainjobs_pods_are_waited_for(
    cluster: KubeServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """Only the graph `distributed` has TrainJobs: of other runs nothing is unknown without that right."""
    graph = request.node.callspec.params["run_id"]
    cluster.add(_pod("train-pod", **_of_run(run_id)))
    cluster.denied = {"list trainjobs"}
    clock.after = {10: lambda: cluster.remove("pods", "train-pod")}
    capsys.readouterr()
    assert run_verb(stop, run_id, "--context", "loopback", pipeline=graph) == 0
    assert clock.now == 10
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "its pods are gone"
    unseen = "whether its TrainJobs are gone is not known: Kubernetes refuses to list TrainJobs in namespace kubeflow"
    assert lines[3].startswith(unseen) == (graph is distributed)


def test_the_labels_are_those_of_a_real_cluster() -> None:
    recorded = json.loads((ROOT / "tests/servers/recorded/trainjob.json").read_text())
    assert RUN_LABEL in recorded["running"]["metadata"]["labels"]
    assert f"{GROUP}/{VERSION}" == recorded["running"]["apiVersion"]


def test_the_document_of_stop(
    kfp_api: KfpServer, clock: Clock, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = answered(stop, run_id, pipeline=distributed)
    assert isinstance(document, stop.StopDocument)
    assert (document.run.run_id, document.run.state, document.had_ended) == (run_id, "canceled", False)
    assert (document.leftovers, document.store) == (None, "s3://bucket/team")
    assert document.run.link == f"{kfp_api.url}/#/runs/details/{run_id}"
