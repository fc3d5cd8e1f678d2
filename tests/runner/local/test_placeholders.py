"""What KFP's local runner puts in for placeholders, in a small pipeline with one step."""

import json
from pathlib import Path

import pytest
from kfp import dsl

from runner.local import run as local_run
from tests.runner.local import loop_steps

tell = loop_steps.component(loop_steps.tell)
slow = pytest.mark.slow


@dsl.pipeline(name="torch2kubeflow-training")
def small(data: str = "/kfp-workspace/pets") -> None:
    tell(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, data=data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "{{$.inputs}}",
        *(pytest.param(name, marks=slow) for name in ("runs", "{{$x", "{{$}}", "kfp-workspace", "a {{$.outputs.b}} c")),
    ],
)
def test_a_run_has_its_id_and_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    runs = tmp_path / name / "runs"
    assert local_run.run(small, {}, runs, embedded=False, caching=True) == 0
    (folder,) = [path for path in runs.iterdir() if local_run.RUN.fullmatch(path.name)]
    summary = json.loads((folder / "summary.json").read_bytes())
    told = (folder / summary["artifacts"]["told"]).read_text()
    assert told == f"{summary['run_id']} /kfp-workspace/pets" == f"{folder.name} /kfp-workspace/pets"
    assert [path.name for path in tmp_path.iterdir()] == [name]
