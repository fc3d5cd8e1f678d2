"""Verb `run`: start a run of the pipeline in the cluster and, with `--wait`, wait for its end."""

import argparse
import sys

from kfp.dsl.base_component import BaseComponent

from runner.cluster.connection import Connection, connect
from runner.cluster.start import Wanted, start
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
    wanted = Wanted(
        pipeline_name=str(pipeline.name),
        version=version,
        inputs=inputs,
        experiment=arguments.experiment,
        pipeline_root=arguments.pipeline_root,
        name=arguments.name,
        description=arguments.description,
    )
    return start_and_watch(connection, pipeline, wanted, arguments)


def start_and_watch(
    connection: Connection, pipeline: BaseComponent, wanted: Wanted, arguments: argparse.Namespace
) -> int:
    """Start a run and, if asked to, wait for its end; return the exit code."""
    started = start(connection, wanted)
    print(f"started run {started.display_name}: {started.run_id}")
    print(connection.ui_link("run", started.run_id), flush=True)
    return watch(connection, pipeline, started.run_id, arguments)


def watch(connection: Connection, pipeline: BaseComponent, run_id: str, arguments: argparse.Namespace) -> int:
    """Wait for the end of a run if the options say so, and return the exit code."""
    if not arguments.wait and not arguments.retries:
        return DONE
    return Watch(connection, pipeline, run_id, arguments.retries, Terminal(sys.stdout)).wait(arguments.runs)
