"""Recurring runs that follow the latest version of a pipeline, if a new version has other inputs than earlier ones.

KFP refuses to start a run with a parameter that its version does not have as an input. So a parameter that has become a
member of the input `options` is moved there: the recurring run is replaced by one that differs in nothing else.
"""

import sys
from collections.abc import Iterator
from typing import Any

import kfp_server_api as api
from kfp.dsl.base_component import BaseComponent

from components.shared.core.printable import say
from runner.cluster.api import delete_recurring_run, list_recurring_runs
from runner.cluster.connection import Connection
from runner.parameters import as_inputs, flat, names_of


def carry_over(connection: Connection, pipeline: BaseComponent, pipeline_id: str) -> None:
    """Replace the recurring runs that the present inputs of the pipeline would make fail, and print which."""
    inputs = pipeline.component_spec.inputs
    for item in _followers(connection, pipeline_id):
        given = (item.runtime_config and item.runtime_config.parameters) or {}
        moved = [name for name in given if name not in inputs]
        lost = [name for name in moved if name not in names_of(pipeline)]
        if lost:
            say(
                f"warning: {item.display_name} follows the latest version, which has no parameter {', '.join(lost)}: "
                "its runs will fail until it is replaced",
                file=sys.stderr,
            )
        elif moved:
            _replace(connection, item, as_inputs(pipeline, flat(given)))
            say(f"{item.display_name}: follows the latest version, so {', '.join(moved)} became part of `options`")


def _followers(connection: Connection, pipeline_id: str) -> Iterator[Any]:
    for item in list_recurring_runs(connection):
        reference = item.pipeline_version_reference
        if reference and reference.pipeline_id == pipeline_id and not reference.pipeline_version_id:
            yield item


def _replace(connection: Connection, item: Any, parameters: dict[str, Any]) -> None:
    """Create a recurring run like KFP's `item` with other parameters, then delete the item."""
    fresh = api.V2beta1RecurringRun(
        display_name=item.display_name,
        description=item.description,
        experiment_id=item.experiment_id,
        pipeline_version_reference=item.pipeline_version_reference,
        runtime_config=api.V2beta1RuntimeConfig(parameters=parameters, pipeline_root=item.runtime_config.pipeline_root),
        service_account=item.service_account,
        trigger=item.trigger,
        mode="ENABLE" if item.status == "ENABLED" else "DISABLE",
        no_catchup=item.no_catchup,
        max_concurrency=item.max_concurrency,
    )
    connection.client.recurring_runs.recurring_run_service_create_recurring_run(recurring_run=fresh)
    delete_recurring_run(connection, item.recurring_run_id)
