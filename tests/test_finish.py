"""The record of how a run ended."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from components.finish import finish


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_the_record_names_the_run_and_its_final_state(tmp_path: Path, state: str) -> None:
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "of an earlier attempt").touch()
    status = SimpleNamespace(state=state, error_message="")
    finish(run_id="1234", run_name="nightly", status=status, record=tmp_path / "record")
    assert [path.name for path in (tmp_path / "record").iterdir()] == ["record.json"]
    assert json.loads((tmp_path / "record" / "record.json").read_text()) == {
        "format": "torch2kubeflow/record",
        "run_id": "1234",
        "run_name": "nightly",
        "state": state,
        "error": "",
    }
