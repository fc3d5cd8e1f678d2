"""A cluster that answers as a real one did, and a clock that only the waiting itself moves."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kfp.dsl.base_component import BaseComponent

import pipeline
from runner.cluster.connection import connect
from runner.cluster.watch import lag, watch
from runner.terminal import Terminal
from runner.verbs.parser import parse
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer, kube_server

CONTEXT = ("--context", "loopback")
Watched = Callable[..., tuple[int, str]]


class Clock:
    """Time that passes only while somebody sleeps; `at` are what happens at a time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [event for event in self.at if event[0] <= self.now]
        for event in due:
            self.at.remove(event)
            event[1]()


@pytest.fixture
def cluster(tmp_path: Path, kfp_api: KfpServer) -> Iterator[KubeServer]:
    """The Kubernetes API of the cluster of `kfp_api`."""
    with kube_server() as server:
        server.write_kubeconfig(tmp_path / ".kube" / "config")
        server.custom["workflows"] = []
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the waiting."""
    clock = Clock()
    for module in (watch, lag):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def watched(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> Watched:
    """Wait for the end of a run, and return the exit code and all that is shown."""

    def wait(run_id: str, *words: str, graph: BaseComponent = pipeline.training, live: bool = False) -> tuple[int, str]:
        stream = io.StringIO()
        stream.isatty = lambda: live  # type: ignore[method-assign]
        connection = connect(parse(["status", *words]))
        code = watch.Watch(connection, graph, run_id, 0, Terminal(stream)).wait(tmp_path)
        return code, stream.getvalue() + capsys.readouterr().err

    return wait
