"""Verb `rerun`: start a run with version, parameters and service account of another, but for what is named."""

import argparse
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from components.shared.core.printable import say, told
from runner.cluster.api import Version, find_run, load_version
from runner.cluster.connection import Connection, connect
from runner.cluster.rest import ApiError
from runner.cluster.run import Wanted, start_and_watch
from runner.cluster.run_facts import parameters_of
from runner.parameters import as_inputs, parse_parameters


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Start the run and, if asked to, wait for its end; return the exit code."""
    connection = connect(arguments)
    pipeline, run = find_run(connection, arguments.run, pipelines)
    version, loaded = _version_of(connection, run)
    changes = parse_parameters(loaded, arguments.parameters)
    say(f"again: {run.display_name}, version {version.name}{_describe(parameters_of(run), changes)}")
    config = run.runtime_config
    wanted = Wanted(
        pipeline_name=pipeline.name,
        version=version,
        inputs=as_inputs(loaded, parameters_of(run) | changes),
        experiment=connection.client.get_experiment(run.experiment_id).display_name,
        pipeline_root=config and config.pipeline_root,
        name=arguments.name,
        description=arguments.description,
        service_account=run.service_account,
    )
    return start_and_watch(connection, pipeline, wanted, arguments)


def _version_of(connection: Connection, run: Any) -> tuple[Version, BaseComponent]:
    """Return the version of a run, and its pipeline. Raises UserError if it was deleted."""
    reference = run.pipeline_version_reference
    try:
        found = connection.client.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id)
    except ApiError as error:
        if error.status != 404:
            raise
        raise UserError(
            f"the version that run {run.run_id} had was deleted", "start one of the present code with `run`"
        ) from None
    version = Version(reference.pipeline_id, reference.pipeline_version_id, found.display_name)
    return version, load_version(connection, version)


def _describe(before: dict[str, Any], changes: dict[str, Any]) -> str:
    """Return what is different, for the end of a line; what a run was not given has its version's default."""
    parts = [told(f"{name} {before.get(name, 'default')} -> {value}") for name, value in changes.items()]
    return f", {'; '.join(parts)}" if parts else ", with the same parameters"
