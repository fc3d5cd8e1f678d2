"""Verb `upload`: the compiled pipeline -> a version of it in KFP, unless one with the same content is there."""

import argparse
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml
from kfp.components import load_component_from_text
from kfp.dsl.base_component import BaseComponent

from components.shared.core.code_digest import code_version
from components.shared.core.errors import UserError
from components.shared.core.files import sha256_json
from runner.cluster.connection import Connection, add_options, connect
from runner.cluster.rest import ApiError
from runner.compile import compile_pipeline, read_package, warn_of_tags
from runner.graphs import add_graph_option
from runner.revision import git_revision


@dataclass(frozen=True)
class Version:
    """A version of a pipeline in KFP; `is_new` where this command has uploaded it."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool = False

    @property
    def place(self) -> str:
        """What `Connection.ui_link("pipeline", ...)` wants."""
        return f"{self.pipeline_id}/version/{self.version_id}"


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("upload", help="upload the pipeline to Kubeflow, if its content is not there")
    add_graph_option(parser)
    add_options(parser)
    parser.set_defaults(handle=handle)


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Compile and upload; 0 also where nothing had to be uploaded."""
    connection = connect(arguments)
    version = upload(connection, pipeline)
    print(describe(version, pipeline.name))
    print(connection.ui_link("pipeline", version.place))
    return 0


def describe(version: Version, pipeline_name: str) -> str:
    """What has been done about the version, in one line."""
    if version.is_new:
        return f"uploaded version {version.name} of {pipeline_name}"
    return f"nothing to upload: version {version.name} of {pipeline_name} has the same content"


def upload(connection: Connection, pipeline: BaseComponent) -> Version:
    """The version of the pipeline with its present content, uploaded if it is not there."""
    with tempfile.TemporaryDirectory() as folder:
        package = compile_pipeline(pipeline, Path(folder) / "pipeline.yaml")
        documents = read_package(package)
        digest = content_digest(documents)
        pipeline_id, there = find_same(connection, pipeline.name, digest)
        warn_of_tags(documents)
        if there:
            return there
        if not pipeline_id:
            pipeline_id = _create_pipeline(connection, pipeline)
        return _create_version(connection, pipeline_id, package, f"{_revision()}-{digest}")


def find_same(connection: Connection, pipeline_name: str, digest: str) -> tuple[str | None, Version | None]:
    """The id of the pipeline of that name, and its newest version of that content; None for what is not there."""
    pipeline_id = find_pipeline(connection, pipeline_name)
    there = versions(connection, pipeline_id, digest) if pipeline_id else []
    return pipeline_id, there[0] if there else None


def choose(
    connection: Connection,
    pipeline: BaseComponent,
    version_name: str | None,
    read: Callable[[BaseComponent], dict[str, Any]],
) -> tuple[Version, dict[str, Any]]:
    """The version that will run, and the parameters that `read` finds right for its pipeline.

    It is the one of that name or, without a name, that of the present content, uploaded if it is not there.
    """
    if version_name:
        version = find_version(connection, pipeline.name, version_name)
        return version, read(load_version(connection, version))
    parameters = read(pipeline)  # before anything is uploaded
    version = upload(connection, pipeline)
    print(describe(version, pipeline.name))
    return version, parameters


def find_pipeline(connection: Connection, name: str) -> str | None:
    """The id of the pipeline of that name; None where there is none."""
    client = connection.client
    found = connection.every("pipelines", client.list_pipelines, namespace=connection.scope, filter=named(name))
    # Where there are many users, pipelines that all share come along.
    return next((item.pipeline_id for item in found if (item.namespace or None) == connection.scope), None)


def versions(connection: Connection, pipeline_id: str, part: str = "") -> list[Version]:
    """The versions whose name contains `part`, newest first."""
    found = connection.every(
        "pipeline_versions",
        connection.client.list_pipeline_versions,
        pipeline_id=pipeline_id,
        sort_by="created_at desc",
        filter=named(part, "IS_SUBSTRING") if part else None,
    )
    return [Version(pipeline_id, item.pipeline_version_id, item.display_name) for item in found]


def find_version(connection: Connection, pipeline_name: str, version_name: str) -> Version:
    """The version of that name; UserError naming the latest ones where there is none."""
    pipeline_id = find_pipeline(connection, pipeline_name)
    if not pipeline_id:
        raise UserError(f"{pipeline_name} is not uploaded; run `python pipeline.py upload` first")
    there = versions(connection, pipeline_id)
    for version in there:
        if version.name == version_name:
            return version
    newest = ", ".join(version.name for version in there[:3]) or "none"
    raise UserError(f"{pipeline_name} has no version {version_name}; the newest are: {newest}")


def load_version(connection: Connection, version: Version) -> BaseComponent:
    """The uploaded pipeline itself, whose parameters may differ from those of the present code."""
    found = connection.client.get_pipeline_version(version.pipeline_id, version.version_id)
    spec = found.pipeline_spec
    documents = [spec["pipeline_spec"], spec["platform_spec"]] if "pipeline_spec" in spec else [spec]
    return load_component_from_text(yaml.safe_dump_all(documents))


def content_digest(documents: list[Any]) -> str:
    """Twelve hexadecimal digits over what the documents of a compiled pipeline say."""
    return sha256_json(documents)[:12]


def named(name: str, operation: str = "EQUALS") -> str:
    """A filter of KFP's lists: what has that display name, or contains it (IS_SUBSTRING)."""
    return json.dumps({"predicates": [{"operation": operation, "key": "display_name", "string_value": name}]})


def _revision() -> str:
    """What git calls the present commit, as Kubernetes may name an object; the code's version where there is no git."""
    told = git_revision()
    return re.sub(r"[^a-z0-9.-]+", "-", told.lower())[:60].strip("-.") if told else code_version()


def _create_pipeline(connection: Connection, pipeline: BaseComponent) -> str:
    """Make the pipeline, still without a version: an upload would name the first version after the pipeline."""
    fresh = kfp_server_api.V2beta1Pipeline(
        name=pipeline.name,
        display_name=pipeline.name,
        description=pipeline.component_spec.description,
        namespace=connection.scope,
    )
    try:
        made = connection.client.pipelines.pipeline_service_create_pipeline(pipeline=fresh)
        return str(made.pipeline_id)
    except ApiError as error:
        there = find_pipeline(connection, pipeline.name) if error.status in (0, 409) else None
        if not there:
            raise
        return there


def _create_version(connection: Connection, pipeline_id: str, package: Path, name: str) -> Version:
    try:
        made = connection.client.pipeline_uploads.upload_pipeline_version(
            str(package), name=name, pipelineid=pipeline_id, description=f"code {code_version()}"
        )
        return Version(pipeline_id, made.pipeline_version_id, name, is_new=True)
    except ApiError as error:
        # Someone else was quicker, or the answer was lost on its way.
        there = versions(connection, pipeline_id, name) if error.status in (0, 409) else []
        if not there:
            raise
        return there[0]
