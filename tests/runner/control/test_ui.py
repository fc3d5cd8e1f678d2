"""Verbs `ui` and `runs open`, with a web server in the place of the UI's pod."""

import os
import signal
import threading
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kubernetes import client

from components.shared.core.errors import UserError
from runner.cli import main
from runner.cluster import run
from runner.control import ui
from runner.verbs.parser import parse
from tests.runner.verbs import pipeline, run_verb
from tests.servers.kfp_server import KfpServer
from tests.servers.kube_server import KubeServer, kube_server
from tests.servers.web_server import WebServer

PAGE = b"<html>Kubeflow Pipelines</html>"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The links that were opened in a browser."""
    links: list[str] = []

    def open_link(link: str) -> bool:
        links.append(link)
        return True

    monkeypatch.setattr(webbrowser, "open", open_link)
    return links


@pytest.fixture
def inside(
    tmp_path: Path, kfp_api: KfpServer, web_server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KubeServer]:
    """A cluster whose KFP and its UI are reached through the Kubernetes API only."""
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    web_server.files["/"] = PAGE
    with kube_server() as server:
        server.write_kubeconfig(tmp_path / ".kube" / "config")
        for name, namespace, labels, ports in (
            ("ml-pipeline-1", "kubeflow", {"app": "ml-pipeline"}, {8888: kfp_api.server_port}),
            ("ui-1", "kubeflow", {"app": "ml-pipeline-ui"}, {3000: web_server.server_port}),
            ("gateway-1", "istio-system", {"istio": "ingressgateway"}, {8080: web_server.server_port}),
        ):
            metadata = client.V1ObjectMeta(name=name, namespace=namespace, labels=labels)
            server.add(client.V1Pod(metadata=metadata, status=client.V1PodStatus(phase="Running")))
            server.forwards |= {(name, port): target for port, target in ports.items()}
        yield server


def _handle(*words: str) -> int:
    arguments = parse([*words])
    return ui.handle(arguments, *([pipeline] if "graph" in arguments else []))


def test_a_known_address_is_opened(kfp_api: KfpServer, opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _handle("ui") == 0
    run_verb(run)
    (run_id,) = kfp_api.runs
    capsys.readouterr()
    assert _handle("runs", "open", "latest") == 0
    link = f"{kfp_api.url}/#/runs/details/{run_id}"
    assert opened == [f"{kfp_api.url}/#/runs", link]
    assert capsys.readouterr().out == f"{link}\n"
    assert _handle("runs", "open", run_id, "--no-browser") == 0
    assert len(opened) == 2


@pytest.mark.parametrize(
    ("words", "path"), [([], "/#/runs"), (["--namespace", "team-a"], "/_/pipeline/?ns=team-a#/runs")]
)
def test_without_an_address_a_port_is_forwarded(
    kfp_api: KfpServer,
    inside: KubeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    path: str,
) -> None:
    kfp_api.multi_user = bool(words)
    seen = []

    def visit(link: str) -> bool:
        def get() -> None:
            with urllib.request.urlopen(f"http://{urlsplit(link).netloc}/") as answer:
                seen.append((link, answer.read()))
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=get).start()
        return True

    monkeypatch.setattr(webbrowser, "open", visit)
    with pytest.raises(SystemExit) as ended:
        main(dict, ["ui", "--port", "0", *words, "--json"])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    ((link, page),) = seen
    assert page == PAGE
    assert link.startswith("http://localhost:") and link.endswith(path)
    assert ui.UiDocument.parse(shown.out.encode(), "stdout").link == link
    assert shown.err == f"{link}\nCtrl-C ends the port-forward\n"


def test_a_pod_that_is_lost_meanwhile_is_said(
    inside: KubeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def visit(link: str) -> bool:
        def get() -> None:
            inside.remove("pods", "ui-1")
            try:
                urllib.request.urlopen(f"http://{urlsplit(link).netloc}/")
            except OSError as error:
                seen.append(error)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=get).start()
        return True

    monkeypatch.setattr(webbrowser, "open", visit)
    assert _handle("ui", "--port", "0") == 0
    assert seen and capsys.readouterr().err.startswith("error: no pod app=ml-pipeline-ui runs in namespace kubeflow")


def test_what_keeps_the_ui_from_being_opened(
    kfp_api: KfpServer, inside: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ui._listen(0) as taken, pytest.raises(UserError, match=r"is not free .*; give another --port"):
        _handle("ui", "--port", str(taken.getsockname()[1]))
    inside.remove("pods", "ui-1")
    with pytest.raises(UserError, match="no pod app=ml-pipeline-ui runs in namespace kubeflow"):
        _handle("ui")
    kfp_api.multi_user = True
    inside.remove("pods", "gateway-1")
    with pytest.raises(UserError, match="no pod istio=ingressgateway runs in namespace istio-system; many users need"):
        _handle("ui", "--namespace", "team-a")
