"""The step finish: pytest tests/steps/test_finish.py"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.finish import finish
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
