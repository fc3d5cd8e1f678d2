"""Verbs `archive` and `delete`: put runs out of sight, or remove them or uploaded versions for good."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from kfp.dsl.base_component import BaseComponent

from components.shared.core.document import Items
from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster import run_state
from runner.cluster.api import find_pipeline, find_run, list_recurring_runs
from runner.cluster.connection import Connection, connect
from runner.cluster.run_facts import has_ended
from runner.terminal import ask

ARCHIVED = "ARCHIVED"


class RemoveDocument(Answer):
    """What `archive` or `delete` did."""

    FORMAT = "torch2kubeflow/remove"

    action: str  # archive, unarchive or delete
    kind: str  # run or version
    ids: Items[str]  # of what was archived, brought back or deleted
    kept: Items[str]  # what is old as well, and why it stays


class Item(NamedTuple):
    """A run or a version: its name for people, what is done with it, and why it is left alone, if it is."""

    id: str
    name: str
    act: Callable[[], Any]
    why_kept: str = ""


def handle(arguments: argparse.Namespace, *pipelines: BaseComponent) -> int:
    """Ask if there is a terminal, do it, and return 0. Raises UserError for what cannot be done, before anything is."""
    action = "unarchive" if arguments.verb == "archive" and arguments.undo else arguments.verb
    kind = "version" if arguments.verb == "delete" and arguments.versions else "run"
    if bool(arguments.names) == (arguments.older_than is not None):
        raise UserError(f"{arguments.verb} needs to know which {kind}s", "name them, or give --older-than DAYS")
    connection = connect(arguments)
    found = list((_versions if kind == "version" else _runs)(connection, arguments, action, pipelines))
    items, kept = [one for one in found if not one.why_kept], [one for one in found if one.why_kept]
    if kept and arguments.names:
        raise UserError(f"{kind} {kept[0].name}: {kept[0].why_kept}", "leave it out; nothing was done")
    # Without a terminal, the command itself is the user's word.
    if items and not arguments.yes and ask(f"{action} {_count(items, kind)}?") is False:
        say("nothing was done")
        items = []
    for item in items:
        item.act()
        say(f"{action}d {kind} {item.name}")
    lines = [f"{kind} {one.name} stays: {one.why_kept}" for one in kept]
    say(*lines, *([] if found else [f"nothing to {action}"]))
    if items and (action, kind) == ("delete", "run"):
        say("what stays: their artifacts, which later runs may reuse, and what they left in the store")
    arguments.document = RemoveDocument(action=action, kind=kind, ids=[item.id for item in items], kept=lines)
    return 0


def _count(items: Sequence[Item], kind: str) -> str:
    """Return the number of the items with the names of the first."""
    names = ", ".join(item.name for item in items[:3])
    return f"{len(items)} {kind}{'s' * (len(items) > 1)} ({names}{', ...' * (len(items) > 3)})"


def _runs(
    connection: Connection, arguments: argparse.Namespace, action: str, pipelines: Sequence[BaseComponent]
) -> Iterator[Item]:
    """Yield the runs that are named, or that are old and not yet as wanted."""
    act = getattr(connection.client.runs, f"run_service_{action}_run")
    if arguments.names:
        found = [find_run(connection, name, pipelines).run for name in arguments.names]
    else:
        found = list(_old_runs(connection, arguments.older_than, pipelines, action))
    for run in found:
        why = "" if has_ended(run) else f"it is {run_state.state(run)}; `python pipeline.py stop` ends it"
        yield Item(run.run_id, run.display_name, partial(act, run_id=run.run_id), why)


def _old_runs(connection: Connection, days: float, pipelines: Sequence[BaseComponent], action: str) -> Iterator[Any]:
    ids = {find_pipeline(connection, pipeline.name) for pipeline in pipelines} - {None}
    for run in connection.paginate("runs", connection.client.list_runs, namespace=connection.scope):
        is_as_wanted = action != "delete" and (run.storage_state == ARCHIVED) == (action == "archive")
        reference = run.pipeline_version_reference
        if reference and reference.pipeline_id in ids and _is_old(run, days) and not is_as_wanted:
            yield run


def _versions(
    connection: Connection, arguments: argparse.Namespace, _action: str, pipelines: Sequence[BaseComponent]
) -> Iterator[Item]:
    """Yield the versions that are named, or that are old."""
    unknown, pinned = set(arguments.names), _pinned(connection)
    for pipeline in pipelines:
        for number, version in enumerate(_list_versions(connection, pipeline)):
            name, ids = version.display_name, (version.pipeline_id, version.pipeline_version_id)
            unknown.discard(name)
            if name in arguments.names if arguments.names else _is_old(version, arguments.older_than):
                act = partial(connection.client.delete_pipeline_version, *ids)
                why = pinned.get(ids[1]) or ("it is the newest" if number == 0 else "")
                yield Item(ids[1], f"{name} of {pipeline.name}", act, why)
    if unknown:
        raise UserError(f"no version is called {', '.join(sorted(unknown))}", "see them in KFP's UI; nothing was done")


def _pinned(connection: Connection) -> dict[str, str]:
    """Return version id -> which recurring run needs it."""
    references = [(item, item.pipeline_version_reference) for item in list_recurring_runs(connection)]
    return {
        reference.pipeline_version_id: f"recurring run {item.display_name} runs it"
        for item, reference in references
        if reference and reference.pipeline_version_id
    }


def _list_versions(connection: Connection, pipeline: BaseComponent) -> list[Any]:
    """Return the versions of a pipeline, newest first."""
    pipeline_id = find_pipeline(connection, pipeline.name)
    method = connection.client.list_pipeline_versions
    found = connection.paginate("pipeline_versions", method, pipeline_id=pipeline_id, sort_by="created_at desc")
    return list(found) if pipeline_id else []


def _is_old(item: Any, days: float) -> bool:
    return bool(item.created_at < datetime.now(UTC) - timedelta(days=days))
