"""Verb `schedule`: runs of the pipeline that recur in Kubeflow."""

import argparse
from collections.abc import Callable
from datetime import tzinfo
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.document import Items, Part, Time
from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.answer import Answer
from runner.cluster.api import (
    Version,
    delete_recurring_run,
    find_pipeline,
    find_versions,
    list_recurring_runs,
    load_version,
)
from runner.cluster.connection import Connection, connect
from runner.cluster.upload import resolve_version
from runner.parameters import parse_inputs
from runner.schedules import recurring
from runner.schedules.audit import Audit, audit
from runner.schedules.cron import Schedule, parse, parse_kfp
from runner.schedules.cron_time_zone import find_cron_time_zone
from runner.schedules.recurring import FOLLOWS_LATEST, RecurringRun, print_next_times
from runner.summary import time_text


class ScheduleFacts(Part):
    """A recurring run."""

    id: str
    name: str
    enabled: bool
    schedule: str  # as `schedule add` takes it, if KFP's can be written so
    next: Time | None  # of the next run; null: none, or not known
    last: Time | None  # of the last run
    last_state: str | None
    version: str  # of the next run, in words
    problems: Items[str]  # that `schedule audit` finds


class SchedulesDocument(Answer):
    """The recurring runs of the namespace."""

    FORMAT = "torch2kubeflow/schedules"

    schedules: Items[ScheduleFacts]


class ScheduleDocument(Answer):
    """The recurring run that was added, paused, resumed or removed."""

    FORMAT = "torch2kubeflow/schedule"

    action: str
    id: str
    name: str
    note: str  # what it means for runs


def handle(arguments: argparse.Namespace, *pipeline: BaseComponent) -> int:
    """Perform the action, which has a pipeline if it is `add`, and return the exit code."""
    return ACTIONS[arguments.action](arguments, *pipeline)


def _add(arguments: argparse.Namespace, pipeline: BaseComponent) -> int:
    schedule = parse(arguments.when)
    connection = connect(arguments)
    zone = find_cron_time_zone(connection, arguments)  # refuses an unknown one before anything is created
    for item in list_recurring_runs(connection):
        if item.display_name == arguments.name:
            raise UserError(
                f"{arguments.name} is the name of recurring run {item.recurring_run_id}",
                "choose another name, or remove that one",
            )
    version, parameters = _resolve_version(connection, pipeline, arguments)
    wanted = RecurringRun(
        name=arguments.name,
        schedule=schedule,
        pipeline_id=version.pipeline_id,
        version_id=FOLLOWS_LATEST if arguments.follow_latest else version.version_id,
        parameters=parameters,
        max_concurrency=arguments.max_concurrency,
        catch_up=arguments.catch_up,
    )
    recurring_run_id = recurring.create(connection, wanted)
    used = f"{'the latest version, now' if arguments.follow_latest else 'version'} {version.name}"
    say(f"{arguments.name}: {schedule}, {used} of {pipeline.name}")
    print_next_times(schedule, zone)
    say(connection.ui_link("recurring_run", recurring_run_id))
    note = f"{schedule}, {used}"
    arguments.document = ScheduleDocument(action="add", id=recurring_run_id, name=arguments.name, note=note)
    return 0


def _resolve_version(
    connection: Connection, pipeline: BaseComponent, arguments: argparse.Namespace
) -> tuple[Version, dict[str, Any]]:
    """Return the version that will run, and the given parameters after checking them against it."""

    def read(chosen: BaseComponent) -> dict[str, Any]:
        return parse_inputs(chosen, arguments.parameters)

    if not arguments.follow_latest:
        return resolve_version(connection, pipeline, arguments.version, read)
    version = _latest_version(connection, pipeline.name)
    return version, read(load_version(connection, version))


def _latest_version(connection: Connection, pipeline_name: str) -> Version:
    pipeline_id = find_pipeline(connection, pipeline_name)
    for version in find_versions(connection, pipeline_id) if pipeline_id else []:
        return version
    raise UserError(f"{pipeline_name} has no version yet", "run `python pipeline.py upload` first")


def _list(arguments: argparse.Namespace) -> int:
    connection = connect(arguments)
    zone = find_cron_time_zone(connection, arguments)
    items = list_recurring_runs(connection)
    for item in items:
        one = recurring.read(item)
        line = f"{one.name:<22}  {_state(one):<8}  {one.schedule!s:<14}  {_next(connection, item, zone)}"
        say(line.rstrip())
    if not items:
        say("no recurring run yet; create one with `python pipeline.py schedule add`")
    if arguments.json:
        arguments.document = _schedules(connection, list(audit(connection, zone)), zone)
    return 0


def _schedules(connection: Connection, audits: list[Audit], zone: tzinfo) -> SchedulesDocument:
    """Return the document of audited recurring runs."""
    return SchedulesDocument(schedules=[_facts(connection, one, zone) for one in audits])


def _facts(connection: Connection, one: Audit, zone: tzinfo) -> ScheduleFacts:
    understood = _understood(one.recurring.schedule)
    time = recurring.next_time(connection, one.item, understood, zone) if understood else None
    return ScheduleFacts(
        id=one.id,
        name=one.recurring.name,
        enabled=one.recurring.enabled,
        schedule=str(one.recurring.schedule),
        next=time_text(time.timestamp()) if time else None,
        last=time_text(one.last_time.timestamp()) if one.last_time else None,
        last_state=one.last_state,
        version=one.version,
        problems=one.problems,
    )


def _next(connection: Connection, item: Any, zone: tzinfo) -> str:
    schedule = _understood(recurring.read(item).schedule)
    if not schedule:
        return "KFP misreads it, or it is not understood here; see `python pipeline.py schedule audit`"
    time = recurring.next_time(connection, item, schedule, zone)
    return f"next {time:%Y-%m-%d %H:%M} UTC" if time else ""


def _understood(schedule: Schedule) -> Schedule | None:
    """Return a schedule of KFP's as it is read here; None if KFP misreads it, or it is not understood here."""
    try:
        return parse_kfp(schedule.cron) if schedule.cron else schedule
    except UserError:
        return None


def _state(one: RecurringRun) -> str:
    return "enabled" if one.enabled else "paused"


def _pause(arguments: argparse.Namespace) -> int:
    connection = connect(arguments)
    item = recurring.find(connection, arguments.name)
    connection.client.disable_recurring_run(item.recurring_run_id)
    _print_done(arguments, item, "paused; an active run continues")
    say(connection.ui_link("recurring_run", item.recurring_run_id))
    return 0


def _print_done(arguments: argparse.Namespace, item: Any, note: str) -> None:
    """Say what was done to KFP's item, and what it means for runs."""
    say(f"{item.display_name}: {note}")
    arguments.document = ScheduleDocument(
        action=arguments.action, id=item.recurring_run_id, name=item.display_name, note=note
    )


def _resume(arguments: argparse.Namespace) -> int:
    connection = connect(arguments)
    zone = find_cron_time_zone(connection, arguments)
    item = recurring.find(connection, arguments.name)
    missed = _missed(connection, item, zone)  # before KFP starts a run
    connection.client.enable_recurring_run(item.recurring_run_id)
    _print_done(arguments, item, missed)
    say(connection.ui_link("recurring_run", item.recurring_run_id))
    return 0


def _missed(connection: Connection, item: Any, zone: tzinfo) -> str:
    """Return in words what resuming KFP's `item` does."""
    if item.status == "ENABLED":
        return "was not paused"
    schedule = _understood(recurring.read(item).schedule)
    if not schedule:
        return "resumed; whether a run was missed meanwhile is not known"
    count = recurring.count_missed(connection, item, schedule, zone)
    if not count:
        return "resumed; no run was missed meanwhile"
    if count == 1:
        return "resumed; the run that was missed meanwhile starts now"
    number = f"{count} or more" if count == recurring.MAX_COUNTED else count
    which = "the last starts now" if item.no_catchup else "every one is started"
    return f"resumed; of the {number} runs missed meanwhile, {which}"


def _remove(arguments: argparse.Namespace) -> int:
    connection = connect(arguments)
    item = recurring.find(connection, arguments.name)
    delete_recurring_run(connection, item.recurring_run_id)
    _print_done(arguments, item, "removed; an active run continues")
    return 0


def _audit(arguments: argparse.Namespace) -> int:
    connection = connect(arguments)
    zone = find_cron_time_zone(connection, arguments)
    audits = list(audit(connection, zone))
    for one in audits:
        say(f"{one.recurring.name}: {_state(one.recurring)}, {one.recurring.schedule}")
        age = f", {one.age.days} days old" if one.age is not None else ""
        say(f"  version  {one.version}{age}")
        last = f"{one.last_state} {one.last_time:%Y-%m-%d %H:%M} UTC" if one.last_time else "no run yet"
        say(f"  last     {last}")
        for problem in one.problems:
            say(f"  problem  {problem}")
        if one.problems:
            say(f"  {connection.ui_link('recurring_run', one.id)}")
    with_problems = sum(bool(one.problems) for one in audits)
    say(f"recurring runs: {len(audits)}, with problems: {with_problems}")
    arguments.document = _schedules(connection, audits, zone)
    return 1 if with_problems else 0


ACTIONS: dict[str, Callable[..., int]] = {
    "add": _add,
    "list": _list,
    "pause": _pause,
    "resume": _resume,
    "remove": _remove,
    "audit": _audit,
}
