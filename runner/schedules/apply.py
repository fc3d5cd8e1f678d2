"""Verb `apply`: make Kubeflow agree with a file, and say of each item what that takes."""

import argparse
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from runner.cluster.api import Version, find_versions
from runner.cluster.connection import Connection, connect
from runner.cluster.options import add_options
from runner.cluster.upload import content_digest, find_same, upload
from runner.compile import compile_pipeline, read_package
from runner.graphs import add_graph_option
from runner.schedules import deploy_file, recurring
from runner.schedules.deploy_file import Deployment, Plan
from runner.schedules.recurring import FOLLOWS_LATEST, Recurring, differences
from runner.schedules.schedule import add_zone_option, find_zone, given, show_times

DONE = {
    "create": "created",
    "replace": "replaced",
    "pause": "paused",
    "resume": "resumed",
    "remove": "removed",
    "keep": "unchanged",
}
# The description of the recurring runs that are removed when the file no longer names them.
OURS = "kept by `python pipeline.py apply`"
TO_COME = "to come"  # the id of a version that a dry run does not upload


@dataclass(frozen=True)
class Change:
    """What one recurring run takes: a key of DONE, what is wanted, KFP's item that is there, and what differs."""

    name: str
    verb: str
    wanted: Recurring | None = None
    there: Any = None
    differs: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("apply", help="make Kubeflow agree with a file: the pipeline's version and its schedules")
    parser.add_argument("-f", "--file", type=Path, required=True, metavar="FILE", help="such as deploy.yaml")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
    add_zone_option(parser)
    add_graph_option(parser)
    add_options(parser)
    parser.set_defaults(handle=handle)


def handle(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    """Compare and, unless it is a dry run, change what differs; 0 when all is well."""
    wanted = deploy_file.read(arguments.file)
    if wanted.pipeline != pipeline.name:
        raise UserError(f"{arguments.file}: pipeline: {wanted.pipeline} is none of ours; give {pipeline.name}")
    parameters = [_parameters(arguments.file, plan, pipeline) for plan in wanted.plans]
    connection = _connect(arguments, wanted)
    zone = find_zone(connection, arguments)
    items = recurring.every(connection)
    version = _find(connection, pipeline)
    _refuse_taken(items, wanted.plans, version.pipeline_id)
    if version.is_new and not arguments.dry_run:
        version = upload(connection, pipeline)
    print(f"version: {_describe(version, arguments.dry_run)}")
    if version.version_id != TO_COME:
        print(f"  {connection.ui_link('pipeline', version.ui_path)}")
    plans = [_recurring(plan, values, version) for plan, values in zip(wanted.plans, parameters, strict=True)]
    known = [] if version.pipeline_id == TO_COME else find_versions(connection, version.pipeline_id)
    if not version.is_new and known[0].name != version.name and any(plan.follow_latest for plan in wanted.plans):
        print(f"  schedules that follow the latest run {known[0].name}, which was uploaded after it")
    names = {FOLLOWS_LATEST: "latest", **{one.version_id: one.name for one in known}}
    for change in _changes(items, plans, version.pipeline_id):
        done = DONE[change.verb] if not arguments.dry_run or change.verb == "keep" else f"would {change.verb}"
        made = None if arguments.dry_run else _carry_out(connection, change)
        print(f"{change.name}: {done}{_tell(change.differs, names)}")
        if made and change.wanted and change.wanted.enabled:
            show_times(change.wanted.schedule, zone)
        if made:
            print(f"  {connection.ui_link('recurring_run', made)}")
    for name in _left_alone(items, plans, version.pipeline_id):
        command = f"python pipeline.py schedule remove {shlex.quote(name)}"
        print(f"{name}: left alone (not in the file; remove it with `{command}`)")
    return 0


def _changes(items: list[Any], plans: list[Recurring], pipeline_id: str) -> Iterator[Change]:
    """What makes the recurring runs of the pipeline, among KFP's `items`, agree with the plans."""
    for wanted in plans:
        # An apply that was cut off leaves two of one name: the one most alike is kept.
        there = [item for item in items if item.display_name == wanted.name]
        there.sort(key=lambda item: len(differences(recurring.read(item), wanted)))
        yield _change(wanted, there[0] if there else None)
        yield from (Change(f"{wanted.name}, old", "remove", there=item) for item in there[1:])
    for item in _unnamed(items, plans, pipeline_id):
        if item.description == OURS:
            yield Change(item.display_name, "remove", there=item)


def _left_alone(items: list[Any], plans: list[Recurring], pipeline_id: str) -> list[str]:
    """The names of the pipeline's recurring runs that the plans do not name and that no `apply` has made."""
    return [item.display_name for item in _unnamed(items, plans, pipeline_id) if item.description != OURS]


def _unnamed(items: list[Any], plans: list[Recurring], pipeline_id: str) -> list[Any]:
    names = {wanted.name for wanted in plans}
    return [
        item for item in items if item.display_name not in names and recurring.read(item).pipeline_id == pipeline_id
    ]


def _change(wanted: Recurring, there: Any) -> Change:
    if not there:
        return Change(wanted.name, "create", wanted)
    differs = differences(recurring.read(there), wanted)
    if not differs:
        return Change(wanted.name, "keep", there=there)
    if differs.keys() == {"enabled"}:
        return Change(wanted.name, "resume" if wanted.enabled else "pause", there=there)
    return Change(wanted.name, "replace", wanted, there, differs)


def _carry_out(connection: Connection, change: Change) -> str | None:
    """Do what a change says, and return the id of what it makes: what is new is there before what is old goes."""
    made = recurring.create(connection, change.wanted) if change.wanted else None
    if change.verb == "pause":
        connection.client.disable_recurring_run(change.there.recurring_run_id)
    elif change.verb == "resume":
        connection.client.enable_recurring_run(change.there.recurring_run_id)
    elif change.verb in ("replace", "remove"):
        recurring.remove(connection, change.there.recurring_run_id)
    return made


def _parameters(path: Path, plan: Plan, pipeline: BaseComponent) -> dict[str, Any]:
    try:
        return given(pipeline, plan.words)
    except UserError as error:
        raise UserError(f"{path}: schedules.{plan.name}: {error}") from None


def _connect(arguments: argparse.Namespace, wanted: Deployment) -> Connection:
    """Reach KFP in the namespace that the file names."""
    if wanted.namespace and arguments.namespace and arguments.namespace != wanted.namespace:
        raise UserError(
            f"--namespace {arguments.namespace} is not the file's, {wanted.namespace}", "leave one of them out"
        )
    connection = connect(arguments, wanted.namespace)
    if wanted.namespace and not connection.multi_user and wanted.namespace != connection.kfp_namespace:
        raise UserError(
            f"namespace {wanted.namespace}: this KFP has one user, whose runs live in {connection.kfp_namespace}; "
            "give that, or leave namespace out"
        )
    return connection


def _find(connection: Connection, pipeline: BaseComponent) -> Version:
    """The version with the present content, or what stands for it until it is uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        documents = read_package(compile_pipeline(pipeline, Path(folder) / "pipeline.yaml"))
    pipeline_id, there = find_same(connection, pipeline.name, content_digest(documents))
    return there or Version(pipeline_id or TO_COME, TO_COME, TO_COME, is_new=True)


def _refuse_taken(items: list[Any], plans: list[Plan], pipeline_id: str) -> None:
    """Refuse a plan whose name a recurring run of another pipeline has."""
    names = {plan.name for plan in plans}
    for item in items:
        if item.display_name in names and recurring.read(item).pipeline_id != pipeline_id:
            raise UserError(
                f"{item.display_name} is taken by a recurring run of another pipeline, {item.recurring_run_id}; "
                "choose another name"
            )


def _describe(version: Version, dry_run: bool) -> str:
    if version.is_new:
        return "would upload the present content" if dry_run else f"uploaded {version.name}"
    return f"unchanged, {version.name}"


def _recurring(plan: Plan, parameters: dict[str, Any], version: Version) -> Recurring:
    return Recurring(
        name=plan.name,
        schedule=plan.schedule,
        pipeline_id=version.pipeline_id,
        version_id=FOLLOWS_LATEST if plan.follow_latest else version.version_id,
        parameters=parameters,
        description=OURS,
        max_concurrency=plan.max_concurrency,
        catch_up=plan.catch_up,
        enabled=plan.enabled,
    )


def _tell(differs: dict[str, tuple[Any, Any]], versions: dict[str, str]) -> str:
    """The differences in brackets."""
    told = []
    for name, pair in differs.items():
        if name == "version_id":
            name, pair = "version", (versions.get(pair[0], pair[0]), versions.get(pair[1], pair[1]))
        old, new = ("default" if value is None else value for value in pair)
        told.append(f"{name} {old} -> {new}")
    return f" ({'; '.join(told)})" if told else ""
