"""A cluster in which a run would succeed, and doctor as a user runs it there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline
from runner.doctor import doctor
from tests.runner.doctor.objects import (
    PRIVATE,
    STANDALONE,
    AssertFound,
    Examine,
    argo,
    controller,
    kubernetes_endpoints,
    launcher,
    launcher_secret,
    namespace,
    node,
    s3_config,
    s3_secret,
    service_account,
    set_version,
)
from tests.runner.verbs import run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer, kube_server


@pytest.fixture
def cluster(tmp_path: Path, kfp_api: KfpServer) -> Iterator[KubeServer]:
    """A cluster with a standalone KFP 2.17 in which a run would succeed."""
    set_version(kfp_api, "2.17.0")
    with kube_server() as server:
        server.write_kubeconfig(tmp_path / ".kube" / "config")
        server.add(namespace(STANDALONE), namespace("kube-system"), kubernetes_endpoints(), service_account())
        server.add(s3_secret(), s3_config(), launcher_secret(), launcher(), argo("Always"), node("worker"))
        server.add(controller(DEFAULT_REQUEUE_TIME="1s"))
        yield server


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Examine:
    """Run doctor with some words; return its exit code and its table, each finding with its remedy on one line."""

    def run(*words: str, graph: str = "training") -> tuple[int, str]:
        code = run_verb(doctor, *words, pipeline=pipeline.GRAPHS[graph])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        assert PRIVATE not in shown.out + shown.err
        assert "[log]" not in shown.out
        return code, _unfold(shown.out)

    return run


@pytest.fixture
def assert_found(examine: Examine) -> AssertFound:
    """Run doctor; check that one finding has the text and a remedy, and that the exit code fits the table."""

    def check(text: str, *words: str) -> None:
        code, table = examine(*words)
        (line,) = [line for line in table.splitlines() if text in line]
        assert " -> " in line
        assert code == int("\nproblem " in "\n" + table)

    return check


def _unfold(table: str) -> str:
    """Join the lines of each finding."""
    return "\n".join(" ".join(block.split()) for block in table.replace("\n" + " " * 27, " ").split("\n"))
