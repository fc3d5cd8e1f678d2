"""Step finish: the final state of a run -> a record. It runs last, also after a failure, and is never cached."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from components.shared.core import log
from components.shared.core.document import Document, JsonObject
from components.shared.core.errors import UserError
from components.shared.core.files import new_folder
from components.shared.core.printable import told_values
from components.shared.core.step import step
from components.shared.core.workflow import was_stopped
from components.shared.parameters.table import DISTRIBUTED
from components.shared.storage.client import open_store

FAILED, CANCELED = "FAILED", "CANCELED"  # KFP's words


class FinalStatus(Protocol):
    """What KFP passes to an exit task, as `kfp.dsl.PipelineTaskFinalStatus`; in a cluster the error is empty."""

    state: str
    error_message: str | None


class RecordDocument(Document):
    """`record.json`: how a run ended."""

    FORMAT = "torch2kubeflow/record"
    REMEDY = "run the pipeline again"

    run_id: str
    run_name: str
    graph: str
    state: str
    error: str | None
    parameters: JsonObject


@step
def finish(
    *,
    run_id: str,
    run_name: str,
    status: FinalStatus,
    graph: str,
    store: str,
    options: Mapping[str, Any],
    record: str | Path,
    **inputs: Any,
) -> None:
    """Write `record.json` to folder `record`: the run's id, name, graph, main parameters and final state.

    A run that somebody stopped, which is a failure to KFP, is CANCELED. With a `store`, the record is also stored
    there, as `runs/<run_id>.json`. The TrainJobs of a run of the graph `distributed` are deleted, if this
    is allowed.
    """
    state = _state(status.state, run_id)
    with new_folder(record) as folder:
        document = RecordDocument(
            run_id=run_id,
            run_name=run_name,
            graph=graph,
            state=state,
            error=status.error_message,
            parameters=told_values({"store": store, **inputs, **options}),
        )
        document.write(folder / "record.json")
    if graph == DISTRIBUTED:
        # Image `data`, in which other graphs run this step, lacks its packages.
        from components.shared.training.distributed.trainjob.backend import delete_jobs

        try:
            for name in delete_jobs(run_id):
                log.info(f"deleted TrainJob {name}")
        except UserError as error:  # training needs the same rights, so the run has failed of it already
            log.info(f"the run's TrainJobs, if there are any, remain: {error}")
    if store:
        open_store(store, os.environ).put_file(Path(record) / "record.json", f"runs/{run_id}.json")
    log.info(f"run {run_name} ended: {state}")


def _state(state: str, run_id: str) -> str:
    """Return how the run ended; KFP passes on only the state of its steps."""
    try:
        return CANCELED if state == FAILED and was_stopped(run_id) else state
    except OSError as error:
        log.info(f"whether the run was stopped is not known ({error}); ask for the verb list on Argo's workflows")
        return state
