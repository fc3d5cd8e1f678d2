"""Verb `apply`: make the recurring runs in Kubeflow match a deploy file, and show each change."""

import argparse
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.document import Items, Part
from components.shared.core.errors import UserError
from components.shared.core.printable import say, told
from runner.answer import Answer
from runner.cluster.api import Version, delete_recurring_run, find_versions, list_recurring_runs
from runner.cluster.carry_over import carry_over
from runner.cluster.connection import Connection, connect
from runner.cluster.upload import content_digest, find_same, upload
from runner.compile import compile_pipeline, read_package
from runner.parameters import parse_inputs
from runner.schedules import deploy_file, recurring
from runner.schedules.cron_time_zone import find_cron_time_zone
from runner.schedules.deploy_file import Deployment, ScheduleSpec
from runner.schedules.recurring import (
    FOLLOWS_LATEST,
    RecurringRun,
    differences,
    print_next_times,
)

DONE = {
    "create": "created",
    "replace": "replaced",
    "pause": "paused",
    "resume": "resumed",
    "remove": "removed",
    "keep": "unchanged",
}
# Marks, as their description, the recurring runs that are removed once the file no longer names them. It is stored in
# KFP, so it must not change.
MANAGED = "kept by `python pipeline.py apply`"


@dataclass(frozen=True)
class Change:
    """The change of one recurring run."""

    name: str
    action: str  # a key of DONE
    wanted: RecurringRun | None = None  # to be created
    actual: Any = None  # KFP's item
    differences: dict[str, tuple[Any, Any]] = field(default_factory=dict)


class ChangeFacts(Part):
    """What is done, or would be, to a recurring run, and how it differs from the file."""

    name: str
    action: str  # create, replace, pause, resume, remove or keep
    differences: str


class ApplyDocument(Answer):
    """What makes the recurring runs match the file."""

    FORMAT = "torch2kubeflow/apply"

    version: str | None  # null: the present content is not uploaded
    is_dry_run: bool
    changes: Items[ChangeFacts]
    left_alone: Items[str]  # recurring runs that the file does not name


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Compare the file with KFP and, unless it is a dry run, change what differs. Return 0."""
    deployment = deploy_file.read(arguments.file)
    if deployment.pipeline != pipeline.name:
        raise UserError(
            f"{arguments.file}: pipeline {deployment.pipeline} is not this one",
            f"give {pipeline.name}, or another --graph",
        )
    parameters = [_parameters(arguments.file, spec, pipeline) for spec in deployment.schedules]
    connection = _connect(arguments, deployment)
    zone = find_cron_time_zone(connection, arguments)
    items = list_recurring_runs(connection)
    pipeline_id, version = _find_version(connection, pipeline)
    _refuse_used_names(items, deployment.schedules, pipeline_id)
    if not arguments.dry_run:
        if version:
            carry_over(connection, pipeline, version.pipeline_id)
        else:
            version = upload(connection, pipeline)
        pipeline_id, items = version.pipeline_id, list_recurring_runs(connection)
    _print_version(connection, version)
    wanted = [
        _wanted(spec, values, pipeline_id, version)
        for spec, values in zip(deployment.schedules, parameters, strict=True)
    ]
    versions = find_versions(connection, pipeline_id) if pipeline_id else []
    _print_newer(version, versions, deployment)
    names: dict[str | None, str] = {
        None: "new",
        FOLLOWS_LATEST: "latest",
        **{one.version_id: one.name for one in versions},
    }
    changes = list(_changes(items, wanted, pipeline_id))
    for change in changes:
        described = _describe(change.differences, names)
        if arguments.dry_run and change.action != "keep":
            say(f"{change.name}: would {change.action}{described}")
        else:
            created_id = _carry_out(connection, change)
            say(f"{change.name}: {DONE[change.action]}{described}")
            _print_created(connection, change, created_id, zone)
    for name in _unmanaged(items, wanted, pipeline_id):
        command = f"python pipeline.py schedule remove {shlex.quote(name)}"
        say(f"{name}: left alone (not in the file; remove it with `{command}`)")
    arguments.document = ApplyDocument(
        version=version.name if version else None,
        is_dry_run=arguments.dry_run,
        changes=[_facts(change, names) for change in changes],
        left_alone=_unmanaged(items, wanted, pipeline_id),
    )
    return 0


def _facts(change: Change, versions: dict[str | None, str]) -> ChangeFacts:
    differences = _describe(change.differences, versions).removeprefix(" (").removesuffix(")")
    return ChangeFacts(name=change.name, action=change.action, differences=differences)


def _parameters(path: Path, spec: ScheduleSpec, pipeline: BaseComponent) -> dict[str, Any]:
    try:
        return parse_inputs(pipeline, spec.words)
    except UserError as error:
        raise UserError(f"{path}: schedules.{spec.name}: {error.message}", error.remedy) from None


def _connect(arguments: argparse.Namespace, deployment: Deployment) -> Connection:
    """Reach KFP in the namespace that the file names."""
    namespace = deployment.namespace
    if namespace and arguments.namespace and arguments.namespace != namespace:
        raise UserError(f"--namespace {arguments.namespace} is not the file's, {namespace}", "leave one of them out")
    connection = connect(arguments, namespace)
    if namespace and not connection.multi_user and namespace != connection.kfp_namespace:
        raise UserError(
            f"namespace {namespace}: this KFP has one user, whose runs live in {connection.kfp_namespace}",
            f"give {connection.kfp_namespace}, or leave namespace out",
        )
    return connection


def _find_version(connection: Connection, pipeline: BaseComponent) -> tuple[str | None, Version | None]:
    """Return the id of the pipeline and its version with the present content; None for what is not uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        documents = read_package(compile_pipeline(pipeline, Path(folder) / "pipeline.yaml"))
    return find_same(connection, pipeline.name, content_digest(documents))


def _refuse_used_names(items: list[Any], specs: list[ScheduleSpec], pipeline_id: str | None) -> None:
    """Raise UserError if a recurring run of another pipeline has a name of the file."""
    names = {spec.name for spec in specs}
    for item in items:
        if item.display_name in names and recurring.read(item).pipeline_id != pipeline_id:
            raise UserError(
                f"{item.display_name} is the name of a recurring run of another pipeline, {item.recurring_run_id}",
                "choose another name",
            )


def _print_version(connection: Connection, version: Version | None) -> None:
    if not version:
        say("version: would upload the present content")
        return
    say(f"version: {'uploaded' if version.is_new else 'unchanged,'} {version.name}")
    say(f"  {connection.ui_link('pipeline', version.ui_path)}")


def _print_newer(version: Version | None, versions: list[Version], deployment: Deployment) -> None:
    """Print the version that the schedules that follow the latest run, if it is newer than the present content."""
    is_older = version and not version.is_new and versions[0].name != version.name
    if is_older and any(spec.follow_latest for spec in deployment.schedules):
        say(f"  schedules that follow the latest run {versions[0].name}, which was uploaded later")


def _wanted(
    spec: ScheduleSpec, parameters: dict[str, Any], pipeline_id: str | None, version: Version | None
) -> RecurringRun:
    pinned = version.version_id if version else None
    return RecurringRun(
        name=spec.name,
        schedule=spec.schedule,
        pipeline_id=pipeline_id,
        version_id=FOLLOWS_LATEST if spec.follow_latest else pinned,
        parameters=parameters,
        description=MANAGED,
        max_concurrency=spec.max_concurrency,
        catch_up=spec.catch_up,
        enabled=spec.enabled,
    )


def _changes(items: list[Any], wanted: list[RecurringRun], pipeline_id: str | None) -> Iterator[Change]:
    """Yield the changes that make the pipeline's recurring runs, among KFP's `items`, match those that are wanted."""
    for one in wanted:
        # An interrupted apply leaves two of one name: the one with the fewest differences stays.
        actual = [item for item in items if item.display_name == one.name]
        actual.sort(key=lambda item: len(differences(recurring.read(item), one)))
        yield _change(one, actual[0] if actual else None)
        yield from (Change(f"{one.name}, old", "remove", actual=item) for item in actual[1:])
    for item in _not_wanted(items, wanted, pipeline_id):
        if item.description == MANAGED:
            yield Change(item.display_name, "remove", actual=item)


def _change(wanted: RecurringRun, actual: Any) -> Change:
    if not actual:
        return Change(wanted.name, "create", wanted)
    found = differences(recurring.read(actual), wanted)
    if not found:
        return Change(wanted.name, "keep", actual=actual)
    if found.keys() == {"enabled"}:
        return Change(wanted.name, "resume" if wanted.enabled else "pause", actual=actual)
    return Change(wanted.name, "replace", wanted, actual, found)


def _unmanaged(items: list[Any], wanted: list[RecurringRun], pipeline_id: str | None) -> list[str]:
    """Return the names of the pipeline's recurring runs that are neither in the file nor created by `apply`."""
    return [item.display_name for item in _not_wanted(items, wanted, pipeline_id) if item.description != MANAGED]


def _not_wanted(items: list[Any], wanted: list[RecurringRun], pipeline_id: str | None) -> list[Any]:
    names = {one.name for one in wanted}
    return [
        item for item in items if item.display_name not in names and recurring.read(item).pipeline_id == pipeline_id
    ]


def _carry_out(connection: Connection, change: Change) -> str | None:
    """Apply a change and return the id of the created item. A new item is created before the old one is deleted."""
    created_id = recurring.create(connection, change.wanted) if change.wanted else None
    if change.action == "pause":
        connection.client.disable_recurring_run(change.actual.recurring_run_id)
    elif change.action == "resume":
        connection.client.enable_recurring_run(change.actual.recurring_run_id)
    elif change.action in ("replace", "remove"):
        delete_recurring_run(connection, change.actual.recurring_run_id)
    return created_id


def _print_created(connection: Connection, change: Change, created_id: str | None, zone: tzinfo) -> None:
    """Print when a created recurring run runs next, and where it is shown."""
    if created_id and change.wanted:
        if change.wanted.enabled:
            print_next_times(change.wanted.schedule, zone)
        say(f"  {connection.ui_link('recurring_run', created_id)}")


def _describe(differences: dict[str, tuple[Any, Any]], versions: dict[str | None, str]) -> str:
    """Return the differences in brackets, actual -> wanted, with the names of versions in place of their ids."""
    parts = []
    for name, pair in differences.items():
        if name == "version_id":
            name, pair = "version", (versions.get(pair[0], pair[0]), versions.get(pair[1], pair[1]))
        actual, wanted = ("default" if value is None else value for value in pair)
        parts.append(told(f"{name} {actual} -> {wanted}"))
    return f" ({'; '.join(parts)})" if parts else ""
