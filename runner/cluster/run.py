"""Verb `run`: start a run of the pipeline in the cluster and, with `--wait`, wait for its end."""

import argparse
import secrets
import sys
import time
from typing import Any

import kfp_server_api as api
from kfp.dsl.base_component import BaseComponent

from runner.cluster.api import Version, find_or_create_experiment, name_filter
from runner.cluster.connection import Connection, connect
from runner.cluster.rest import ApiError
from runner.cluster.upload import resolve_version
from runner.cluster.watch.watch import Watch
from runner.failures import DONE
from runner.parameters import parse_inputs
from runner.terminal import Terminal


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Start a run and, if asked to, wait for its end; return the exit code, 0 only if it succeeds."""
    connection = connect(arguments)
    version, inputs = resolve_version(
        connection, pipeline, arguments.version, lambda chosen: parse_inputs(chosen, arguments.parameters)
    )
    started = _start(connection, pipeline.name, version, inputs, arguments)
    print(f"started run {started.display_name}: {started.run_id}")
    print(connection.ui_link("run", started.run_id), flush=True)
    if not arguments.wait and not arguments.retries:
        return DONE
    watch = Watch(connection, pipeline, started.run_id, arguments.retries, Terminal(sys.stdout))
    return watch.wait(arguments.runs)


def _start(
    connection: Connection,
    pipeline_name: str,
    version: Version,
    inputs: dict[str, Any],
    arguments: argparse.Namespace,
) -> Any:
    """Create the run under a unique name, by which a run whose creation was not confirmed is found, not made twice."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    name = f"{pipeline_name}-{stamp}-{secrets.token_hex(2)}"
    client = connection.client
    fresh = api.V2beta1Run(
        display_name=name,
        experiment_id=find_or_create_experiment(connection, arguments.experiment),
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.version_id
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=inputs, pipeline_root=arguments.pipeline_root),
    )
    try:
        return client.runs.run_service_create_run(run=fresh)
    except ApiError as error:
        if error.status != 0:
            raise
        for run in client.list_runs(namespace=connection.scope, filter=name_filter(name)).runs or []:
            return run
        raise
