"""Start a run of an uploaded version."""

import secrets
import time
from dataclasses import dataclass
from typing import Any

import kfp_server_api as api

from runner.cluster.api import Version, find_or_create_experiment, name_filter
from runner.cluster.connection import Connection
from runner.cluster.rest import ApiError


@dataclass(frozen=True)
class Wanted:
    """A run to start; without a name it gets one from the pipeline and the time."""

    pipeline_name: str
    version: Version
    inputs: dict[str, Any]
    experiment: str  # its name
    pipeline_root: str | None = None
    name: str | None = None
    description: str | None = None


def start(connection: Connection, wanted: Wanted) -> Any:
    """Create the run once, also if its creation is not confirmed: then it is found by its name."""
    name = wanted.name or _unique_name(wanted.pipeline_name)
    # Several runs may have a name that a user gives.
    before = {run.run_id for run in _named(connection, name)} if wanted.name else set()
    fresh = api.V2beta1Run(
        display_name=name,
        description=wanted.description,
        experiment_id=find_or_create_experiment(connection, wanted.experiment),
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=wanted.version.pipeline_id, pipeline_version_id=wanted.version.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=wanted.inputs, pipeline_root=wanted.pipeline_root),
    )
    try:
        return connection.client.runs.run_service_create_run(run=fresh)
    except ApiError as error:
        if error.status != 0:
            raise
        for run in _named(connection, name):
            if run.run_id not in before:
                return run
        raise


def _unique_name(pipeline_name: str) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return f"{pipeline_name}-{stamp}-{secrets.token_hex(2)}"


def _named(connection: Connection, name: str) -> list[Any]:
    """Return the newest hundred runs of that name."""
    page = connection.client.list_runs(
        page_size=100, sort_by="created_at desc", namespace=connection.scope, filter=name_filter(name)
    )
    return page.runs or []
