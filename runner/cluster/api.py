"""Look-ups in KFP's API that several verbs need: pipelines, their versions, experiments and runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import kfp_server_api
import yaml
from kfp.components import load_component_from_text
from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from runner.cluster.connection import Connection
from runner.cluster.rest import ApiError


class GraphRun(NamedTuple):
    """A run, and the pipeline that it is of."""

    pipeline: BaseComponent
    run: Any


@dataclass(frozen=True)
class Version:
    """A version of a pipeline in KFP; `is_new` if this command uploaded it."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool = False

    @property
    def ui_path(self) -> str:
        """What `Connection.ui_link("pipeline", ...)` wants."""
        return f"{self.pipeline_id}/version/{self.version_id}"


def find_pipeline(connection: Connection, name: str) -> str | None:
    """Return the id of the pipeline of that name; None if there is none."""
    client = connection.client
    found = connection.paginate(
        "pipelines", client.list_pipelines, namespace=connection.scope, filter=name_filter(name)
    )
    # If KFP has many users, the list includes the pipelines that all of them share.
    return next((item.pipeline_id for item in found if (item.namespace or None) == connection.scope), None)


def find_versions(connection: Connection, pipeline_id: str, part: str = "") -> list[Version]:
    """Return the versions whose name contains `part`, newest first."""
    found = connection.paginate(
        "pipeline_versions",
        connection.client.list_pipeline_versions,
        pipeline_id=pipeline_id,
        sort_by="created_at desc",
        filter=name_filter(part, "IS_SUBSTRING") if part else None,
    )
    return [Version(pipeline_id, item.pipeline_version_id, item.display_name) for item in found]


def find_version(connection: Connection, pipeline_name: str, version_name: str) -> Version:
    """Return the version of that name. Raises UserError, which lists the newest versions, if there is none."""
    pipeline_id = find_pipeline(connection, pipeline_name)
    if not pipeline_id:
        raise UserError(f"{pipeline_name} is not uploaded", "run `python pipeline.py upload` first")
    found = find_versions(connection, pipeline_id)
    for version in found:
        if version.name == version_name:
            return version
    newest = ", ".join(version.name for version in found[:3]) or "none"
    raise UserError(f"{pipeline_name} has no version {version_name}", f"the newest are: {newest}")


def load_version(connection: Connection, version: Version) -> BaseComponent:
    """Return the uploaded pipeline, whose parameters may differ from those of the present code."""
    found = connection.client.get_pipeline_version(version.pipeline_id, version.version_id)
    spec = found.pipeline_spec
    documents = [spec["pipeline_spec"], spec["platform_spec"]] if "pipeline_spec" in spec else [spec]
    return load_component_from_text(yaml.safe_dump_all(documents))


def find_or_create_experiment(connection: Connection, name: str) -> str:
    """Return the id of the experiment of that name, which is created if it does not exist."""
    client, scope = connection.client, connection.scope
    for item in connection.paginate("experiments", client.list_experiments, namespace=scope, filter=name_filter(name)):
        return str(item.experiment_id)
    fresh = kfp_server_api.V2beta1Experiment(display_name=name, namespace=scope)
    try:
        return str(client.experiments.experiment_service_create_experiment(experiment=fresh).experiment_id)
    except ApiError as error:
        if error.status != 409:  # another process was faster
            raise
        return find_or_create_experiment(connection, name)


def find_run(connection: Connection, run_id: str, pipelines: Sequence[BaseComponent]) -> GraphRun:
    """Return the run of that id, or the `latest` one of the pipelines. Raises UserError if it is of none of them."""
    if run_id == "latest":
        newest = latest_runs(connection, pipelines)
        if not newest:
            raise UserError(f"{names_of(pipelines)} has no run", "start one with `python pipeline.py run`")
        return GraphRun(newest[0].pipeline, connection.client.get_run(newest[0].run.run_id))
    try:
        run = connection.client.get_run(run_id)
    except ApiError as error:
        if error.status != 404:
            raise
        raise UserError(f"no run has the id {run_id}", "`python pipeline.py status` lists the latest") from None
    return GraphRun(_pipeline_of(connection, run, pipelines), run)


def latest_runs(connection: Connection, pipelines: Sequence[BaseComponent]) -> list[GraphRun]:
    """Return the runs of the pipelines, newest first, that are among the latest hundred of all runs."""
    page = connection.client.list_runs(page_size=100, sort_by="created_at desc", namespace=connection.scope)
    found = _uploaded(connection, pipelines)
    references = [(run.pipeline_version_reference, run) for run in page.runs or []]
    return [GraphRun(found[one.pipeline_id], run) for one, run in references if one and one.pipeline_id in found]


def names_of(pipelines: Sequence[BaseComponent]) -> str:
    """Return the names of pipelines for a message."""
    return " or ".join(str(pipeline.name) for pipeline in pipelines)


def _pipeline_of(connection: Connection, run: Any, pipelines: Sequence[BaseComponent]) -> BaseComponent:
    """Return the pipeline that a run is of. Raises UserError if it is none of these."""
    reference = run.pipeline_version_reference
    found = _uploaded(connection, pipelines).get(reference.pipeline_id) if reference else None
    if found is None:
        remedy = "leave out --graph" if len(pipelines) == 1 else "KFP's UI shows it"
        raise UserError(f"run {run.run_id} is not one of {names_of(pipelines)}", remedy)
    return found


def _uploaded(connection: Connection, pipelines: Sequence[BaseComponent]) -> dict[str, BaseComponent]:
    """Return those of the pipelines that are in KFP, by their ids."""
    return {found: one for one in pipelines if (found := find_pipeline(connection, str(one.name)))}


def name_filter(name: str, operation: str = "EQUALS") -> str:
    """Return a filter for KFP's lists: items with that display name, or that contain it (IS_SUBSTRING)."""
    return json.dumps({"predicates": [{"operation": operation, "key": "display_name", "string_value": name}]})


def list_recurring_runs(connection: Connection) -> list[Any]:
    """Return all recurring runs of the namespace as KFP's items, sorted by name."""
    client = connection.client
    found = connection.paginate("recurring_runs", client.list_recurring_runs, namespace=connection.scope)
    return sorted(found, key=lambda item: (item.display_name, item.created_at))


def delete_recurring_run(connection: Connection, recurring_run_id: str) -> None:
    """Delete a recurring run, but not a run of it that is active."""
    # By default, Kubernetes deletes the workflows of a recurring run with it (kubeflow/pipelines#12574).
    connection.client.recurring_runs.recurring_run_service_delete_recurring_run(
        recurring_run_id, propagation_policy="ORPHAN"
    )
