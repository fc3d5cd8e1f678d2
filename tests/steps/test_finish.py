"""The step finish: pytest tests/steps/test_finish.py"""

import io
import json
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import OpenerDirector, ProxyHandler, Request

import pytest

from components.finish import finish
from components.shared.core import pod
from components.shared.storage.client import open_store
from tests.servers.s3_server import BUCKET, s3_server


@pytest.mark.parametrize("state, graph", [("SUCCEEDED", "training"), ("FAILED", "sweep")])
def test_the_record_holds_parameters_and_final_state(tmp_path: Path, state: str, graph: str) -> None:
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "of an earlier attempt").touch()
    status = SimpleNamespace(state=state, error_message="")
    finish(
        run_id="1234",
        run_name="nightly",
        status=status,
        record=tmp_path / "record",
        store="",
        graph=graph,
        seed=3,
        options={"stopping": "asha"} if graph == "sweep" else {},
    )
    assert [path.name for path in (tmp_path / "record").iterdir()] == ["record.json"]
    assert json.loads((tmp_path / "record" / "record.json").read_text()) == {
        "format": "torch2kubeflow/record",
        "run_id": "1234",
        "run_name": "nightly",
        "graph": graph,
        "state": state,
        "error": "",
        "parameters": {"store": "", "seed": 3, **({"stopping": "asha"} if graph == "sweep" else {})},
    }


def record_of(folder: Path, state: str = "FAILED") -> str:
    """Run the step after a run that ended so, and return the state in its record."""
    status = SimpleNamespace(state=state, error_message="")
    finish(
        run_id="1234", run_name="nightly", status=status, record=folder / "record", store="", graph="sweep", options={}
    )
    return str(json.loads((folder / "record" / "record.json").read_text())["state"])


@pytest.fixture
def workflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Workflows that Kubernetes lists for the step's pod; without any it refuses (403)."""
    listed: list[Any] = []

    def answer(opener: Any, request: Request, **_: object) -> io.BytesIO:
        assert not any(isinstance(one, ProxyHandler) for one in opener.handlers)
        assert request.full_url == (
            "https://10.0.0.1:443/apis/argoproj.io/v1alpha1/namespaces/team-a/workflows"
            "?labelSelector=pipeline/runid%3D1234"
        )
        assert request.get_header("Authorization") == "Bearer a-token"
        if not listed:
            raise HTTPError(request.full_url, 403, "Forbidden", Message(), None)
        return io.BytesIO(json.dumps({"items": listed}).encode())

    for name, text in {"token": "a-token\n", "namespace": "team-a"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(pod, "ACCOUNT", tmp_path)
    monkeypatch.setattr(OpenerDirector, "open", answer)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setattr("ssl.create_default_context", lambda cafile: None)
    return listed


@pytest.mark.parametrize(
    ("spec", "state"),
    [({"activeDeadlineSeconds": 0}, "CANCELED"), ({"shutdown": "Stop"}, "CANCELED"), ({"entrypoint": "e"}, "FAILED")],
)
def test_a_run_that_was_stopped_is_canceled(
    tmp_path: Path, workflows: list[Any], spec: dict[str, Any], state: str
) -> None:
    """How KFP's API server terminates a Workflow is read in its sources (execution_client's terminate patch)."""
    workflows.append({"spec": spec})
    assert record_of(tmp_path) == state
    assert record_of(tmp_path, "SUCCEEDED") == "SUCCEEDED"


def test_without_the_right_to_ask_the_state_stays(
    tmp_path: Path, workflows: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not workflows and record_of(tmp_path) == "FAILED"
    assert (
        "[finish] whether the run was stopped is not known (HTTP Error 403: Forbidden); ask" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_the_record_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(state="FAILED", error_message="")
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        uri = f"s3://{BUCKET}/team"
        finish(
            run_id="1234",
            run_name="nightly",
            status=status,
            record=tmp_path / "record",
            store=uri,
            graph="training",
            options={},
            seed=3,
        )
        content, _ = open_store(uri, server.environment).get_bytes("runs/1234.json")
    assert content == (tmp_path / "record" / "record.json").read_bytes()
