"""Verb `upload`: upload the compiled pipeline to KFP as a new version, unless one with the same content exists."""

import argparse
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kfp_server_api
from kfp.dsl.base_component import BaseComponent

from components.shared.core.code_digest import code_version
from components.shared.core.files import sha256_json
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster.api import Version, find_pipeline, find_version, find_versions, load_version
from runner.cluster.carry_over import carry_over
from runner.cluster.connection import Connection, connect
from runner.cluster.rest import ApiError
from runner.compile import compile_pipeline, read_package, warn_of_tags
from runner.git import git_revision


class UploadDocument(Answer):
    """The version with the present content, and whether it had to be uploaded."""

    FORMAT = "torch2kubeflow/upload"

    pipeline: str
    version: str
    is_new: bool


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Compile and upload; return 0, also if nothing had to be uploaded."""
    connection = connect(arguments)
    version = upload(connection, pipeline)
    say(describe(version, pipeline.name))
    if not version.is_new:  # for recurring runs that were created since
        carry_over(connection, pipeline, version.pipeline_id)
    say(connection.ui_link("pipeline", version.ui_path))
    arguments.document = UploadDocument(pipeline=str(pipeline.name), version=version.name, is_new=version.is_new)
    return 0


def describe(version: Version, pipeline_name: str) -> str:
    """Return in one line what was done about the version."""
    if version.is_new:
        return f"uploaded version {version.name} of {pipeline_name}"
    return f"nothing to upload: version {version.name} of {pipeline_name} has the same content"


def upload(connection: Connection, pipeline: BaseComponent) -> Version:
    """Return the version of the pipeline with its present content, which is uploaded if it does not exist.

    Recurring runs that follow the latest version are then made to fit its inputs.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = compile_pipeline(pipeline, Path(folder) / "pipeline.yaml")
        documents = read_package(package)
        digest = content_digest(documents)
        pipeline_id, found = find_same(connection, pipeline.name, digest)
        warn_of_tags(documents)
        if found:
            return found
        if not pipeline_id:
            pipeline_id = _create_pipeline(connection, pipeline)
        version = _create_version(connection, pipeline_id, package, f"{_revision()}-{digest}")
    carry_over(connection, pipeline, pipeline_id)
    return version


def find_same(connection: Connection, pipeline_name: str, digest: str) -> tuple[str | None, Version | None]:
    """Return the id of the pipeline of that name and its newest version of that content; None for what is missing."""
    pipeline_id = find_pipeline(connection, pipeline_name)
    found = find_versions(connection, pipeline_id, digest) if pipeline_id else []
    return pipeline_id, found[0] if found else None


def resolve_version(
    connection: Connection,
    pipeline: BaseComponent,
    version_name: str | None,
    read: Callable[[BaseComponent], dict[str, Any]],
) -> tuple[Version, dict[str, Any]]:
    """Return the version that will run, and the parameters that `read` returns for its pipeline.

    It is the one of that name or, without a name, that of the present content, which is uploaded if it does not exist.
    """
    if version_name:
        version = find_version(connection, pipeline.name, version_name)
        return version, read(load_version(connection, version))
    parameters = read(pipeline)  # before anything is uploaded
    version = upload(connection, pipeline)
    say(describe(version, pipeline.name))
    return version, parameters


def content_digest(documents: list[Any]) -> str:
    """Return twelve hexadecimal digits over the documents of a compiled pipeline, whatever their layout."""
    return sha256_json(documents)[:12]


def _revision() -> str:
    """Return git's name of the present commit, as Kubernetes may name an object; without git the code's version."""
    revision = git_revision()
    return re.sub(r"[^a-z0-9.-]+", "-", revision.lower())[:60].strip("-.") if revision else code_version()


def _create_pipeline(connection: Connection, pipeline: BaseComponent) -> str:
    """Create the pipeline without a version: an upload would name the first version after the pipeline."""
    fresh = kfp_server_api.V2beta1Pipeline(
        name=pipeline.name,
        display_name=pipeline.name,
        description=pipeline.component_spec.description,
        namespace=connection.scope,
    )
    try:
        created = connection.client.pipelines.pipeline_service_create_pipeline(pipeline=fresh)
        return str(created.pipeline_id)
    except ApiError as error:
        found = find_pipeline(connection, pipeline.name) if error.status in (0, 409) else None
        if not found:
            raise
        return found


def _create_version(connection: Connection, pipeline_id: str, package: Path, name: str) -> Version:
    try:
        created = connection.client.pipeline_uploads.upload_pipeline_version(
            str(package), name=name, pipelineid=pipeline_id, description=f"code {code_version()}"
        )
        return Version(pipeline_id, created.pipeline_version_id, name, is_new=True)
    except ApiError as error:
        # Another process was faster, or the answer was lost on its way.
        found = find_versions(connection, pipeline_id, name) if error.status in (0, 409) else []
        if not found:
            raise
        return found[0]
