"""Step finish: how the run ended -> a record. It runs last whatever happened, and is never cached."""

from pathlib import Path
from typing import Protocol

from components.shared.files import new_folder, write_json
from components.shared.progress import say

STEP = "finish"
FORMAT = "torch2kubeflow/record"


class FinalStatus(Protocol):
    """What KFP tells an exit task, as `kfp.dsl.PipelineTaskFinalStatus`; clusters leave the error empty."""

    state: str
    error_message: str


def finish(*, run_id: str, run_name: str, status: FinalStatus, record: str | Path) -> None:
    """Write `record.json` to folder `record`: the run's id and name, and the final state of its steps."""
    with new_folder(record) as folder:
        document = {
            "format": FORMAT,
            "run_id": run_id,
            "run_name": run_name,
            "state": status.state,
            "error": status.error_message,
        }
        write_json(folder / "record.json", document)
    say(STEP, f"run {run_name} ended: {status.state}")
