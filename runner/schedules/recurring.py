"""Recurring runs in KFP, which can be created, paused and deleted there, but not changed."""

import json
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, tzinfo
from itertools import islice, takewhile
from typing import Any

import kfp_server_api as api

from components.shared.core.errors import UserError
from components.shared.core.printable import say
from runner.cluster.api import find_or_create_experiment, list_recurring_runs
from runner.cluster.connection import Connection
from runner.parameters import flat
from runner.schedules.cron import Schedule
from runner.verbs.options import EXPERIMENT

MAX_COUNTED = 100  # missed runs
FOLLOWS_LATEST = ""  # in place of a version's id


@dataclass(frozen=True)
class RecurringRun:
    """A recurring run, as it should be or as it is in KFP."""

    name: str
    schedule: Schedule
    pipeline_id: str | None  # None before the first upload
    version_id: str | None  # FOLLOWS_LATEST: every run uses the latest version; None: not uploaded yet
    parameters: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    max_concurrency: int = 1
    catch_up: bool = False
    enabled: bool = True


def read(item: Any) -> RecurringRun:
    """Return KFP's `item` as a RecurringRun."""
    trigger, reference = item.trigger or api.V2beta1Trigger(), item.pipeline_version_reference
    cron, periodic = trigger.cron_schedule, trigger.periodic_schedule
    return RecurringRun(
        name=item.display_name,
        schedule=Schedule(cron.cron if cron else "", int(periodic.interval_second) if periodic else 0),
        pipeline_id=(reference and reference.pipeline_id) or "",
        version_id=(reference and reference.pipeline_version_id) or FOLLOWS_LATEST,
        parameters=(item.runtime_config and item.runtime_config.parameters) or {},
        description=item.description or "",
        max_concurrency=int(item.max_concurrency or 1),
        catch_up=not item.no_catchup,
        enabled=item.status == "ENABLED",
    )


def differences(actual: RecurringRun, wanted: RecurringRun) -> dict[str, tuple[Any, Any]]:
    """Return the actual and the wanted value of each field that differs; parameters have entries of their own."""
    names = [one.name for one in fields(actual) if one.name != "parameters"]
    pairs = {name: (getattr(actual, name), getattr(wanted, name)) for name in names}
    found, named = flat(actual.parameters), flat(wanted.parameters)
    for name in sorted(found.keys() | named.keys()):
        pairs[f"parameter {name}"] = found.get(name), named.get(name)
    if found == named and actual.parameters != wanted.parameters:
        pairs["inputs"] = "of an earlier version", "of this one"
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def find(connection: Connection, name: str) -> Any:
    """Return the recurring run of that name or id. Raises UserError if there is none, or several have the name."""
    found = [item for item in list_recurring_runs(connection) if name in (item.display_name, item.recurring_run_id)]
    if not found:
        raise UserError(f"no recurring run is called {name}", "list them with `python pipeline.py schedule list`")
    if len(found) > 1:
        ids = ", ".join(item.recurring_run_id for item in found)
        raise UserError(f"{len(found)} recurring runs are called {name}", f"give the id of one: {ids}")
    return found[0]


def next_time(connection: Connection, item: Any, schedule: Schedule, zone: tzinfo) -> datetime | None:
    """Return when KFP's `item` with that schedule starts its next run, or None if it starts none."""
    bounds = item.trigger and (item.trigger.cron_schedule or item.trigger.periodic_schedule)
    if not bounds or item.status != "ENABLED":
        return None
    start = bounds.start_time or item.created_at
    last = last_run(connection, item.recurring_run_id) if schedule.seconds else None
    time = schedule.after(max(start, datetime.now(UTC)), last.created_at if last else start, zone)
    return None if bounds.end_time and time > bounds.end_time else time


def count_missed(connection: Connection, item: Any, schedule: Schedule, zone: tzinfo) -> int:
    """Return how many times of KFP's `item`, up to MAX_COUNTED, have passed since its last run or, without one, its
    start."""
    bounds = item.trigger.cron_schedule or item.trigger.periodic_schedule
    last = last_run(connection, item.recurring_run_id)
    since = max(filter(None, [last.created_at if last else item.created_at, bounds.start_time]))
    until = min(filter(None, [datetime.now(UTC), bounds.end_time]))
    past = takewhile(lambda time: time <= until, schedule.times(since, zone))
    return len(list(islice(past, MAX_COUNTED)))


def print_next_times(schedule: Schedule, zone: tzinfo) -> None:
    """Print the next three times, in UTC and in the local time zone."""
    for time in islice(schedule.times(datetime.now(UTC), zone), 3):
        say(f"  next {time:%Y-%m-%d %H:%M} UTC, here {time.astimezone():%Y-%m-%d %H:%M %Z}")


def last_run(connection: Connection, recurring_run_id: str) -> Any:
    """Return the last run that a recurring run started, or None if there is none."""
    predicate = {"operation": "EQUALS", "key": "recurring_run_id", "string_value": recurring_run_id}
    page = connection.client.list_runs(
        page_size=1,
        sort_by="created_at desc",
        namespace=connection.scope,
        filter=json.dumps({"predicates": [predicate]}),
    )
    return page.runs[0] if page.runs else None


def create(connection: Connection, wanted: RecurringRun) -> str:
    """Create a recurring run and return its id."""
    assert wanted.pipeline_id and wanted.version_id is not None
    cron, seconds = wanted.schedule.cron, wanted.schedule.seconds
    # kfp.Client's own method requires a version, and so cannot follow the latest one.
    body = api.V2beta1RecurringRun(
        display_name=wanted.name,
        description=wanted.description,
        experiment_id=find_or_create_experiment(connection, EXPERIMENT),
        pipeline_version_reference=api.V2beta1PipelineVersionReference(
            pipeline_id=wanted.pipeline_id, pipeline_version_id=wanted.version_id or None
        ),
        runtime_config=api.V2beta1RuntimeConfig(parameters=wanted.parameters),
        trigger=api.V2beta1Trigger(
            cron_schedule=api.V2beta1CronSchedule(cron=cron) if cron else None,
            periodic_schedule=api.V2beta1PeriodicSchedule(interval_second=str(seconds)) if seconds else None,
        ),
        mode="ENABLE" if wanted.enabled else "DISABLE",
        no_catchup=not wanted.catch_up,
        max_concurrency=str(wanted.max_concurrency),
    )
    created = connection.client.recurring_runs.recurring_run_service_create_recurring_run(recurring_run=body)
    return str(created.recurring_run_id)
