"""Recurring runs in KFP, which can be made, paused and deleted there, but not changed."""

import json
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, tzinfo
from typing import Any

import kfp_server_api as api

from components.shared.core.errors import UserError
from runner.cluster.api import EXPERIMENT, find_or_create_experiment
from runner.cluster.connection import Connection
from runner.schedules.cron import Schedule

AT_ONCE = 10  # runs of one recurring run that KFP allows at the same time, at most
FOLLOWS_LATEST = ""  # the id of no version


@dataclass(frozen=True)
class Recurring:
    """What a recurring run is to be, or is."""

    name: str
    schedule: Schedule
    pipeline_id: str
    version_id: str  # FOLLOWS_LATEST takes, for every run, the version uploaded last
    parameters: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    max_concurrency: int = 1
    catch_up: bool = False
    enabled: bool = True


def read(item: Any) -> Recurring:
    """What KFP's `item` is."""
    trigger, reference = item.trigger or api.V2beta1Trigger(), item.pipeline_version_reference
    cron, periodic = trigger.cron_schedule, trigger.periodic_schedule
    return Recurring(
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


def differences(old: Recurring, new: Recurring) -> dict[str, tuple[Any, Any]]:
    """What differs, by name: the old value and the new one; parameters by their own names."""
    pairs = {f.name: (getattr(old, f.name), getattr(new, f.name)) for f in fields(old) if f.name != "parameters"}
    for name in sorted(old.parameters.keys() | new.parameters.keys()):
        pairs[f"parameter {name}"] = old.parameters.get(name), new.parameters.get(name)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def every(connection: Connection) -> list[Any]:
    """All recurring runs of the namespace, by name."""
    client = connection.client
    found = connection.paginate("recurring_runs", client.list_recurring_runs, namespace=connection.scope)
    return sorted(found, key=lambda item: (item.display_name, item.created_at))


def find(connection: Connection, name: str) -> Any:
    """The one recurring run of that name or id; UserError where there is none, or several have the name."""
    found = [item for item in every(connection) if name in (item.display_name, item.recurring_run_id)]
    if not found:
        raise UserError(f"no recurring run is called {name}; `python pipeline.py schedule list` shows them")
    if len(found) > 1:
        ids = ", ".join(item.recurring_run_id for item in found)
        raise UserError(f"{len(found)} recurring runs are called {name}; give the id of one: {ids}")
    return found[0]


def next_time(connection: Connection, item: Any, schedule: Schedule, zone: tzinfo) -> datetime | None:
    """When KFP's `item` with that schedule starts its next run; None where it starts none."""
    bounds = item.trigger and (item.trigger.cron_schedule or item.trigger.periodic_schedule)
    if not bounds or item.status != "ENABLED":
        return None
    start = bounds.start_time or item.created_at
    last = last_run(connection, item.recurring_run_id) if schedule.seconds else None
    time = schedule.after(max(start, datetime.now(UTC)), last.created_at if last else start, zone)
    return None if bounds.end_time and time > bounds.end_time else time


def last_run(connection: Connection, recurring_run_id: str) -> Any:
    """The run that a recurring run started last; None where there is none."""
    predicate = {"operation": "EQUALS", "key": "recurring_run_id", "string_value": recurring_run_id}
    page = connection.client.list_runs(
        page_size=1,
        sort_by="created_at desc",
        namespace=connection.scope,
        filter=json.dumps({"predicates": [predicate]}),
    )
    return page.runs[0] if page.runs else None


def create(connection: Connection, wanted: Recurring) -> str:
    """Make a recurring run and return its id."""
    cron, seconds = wanted.schedule.cron, wanted.schedule.seconds
    # kfp.Client's own method takes no pipeline without a version, and so cannot follow the latest.
    fresh = api.V2beta1RecurringRun(
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
    made = connection.client.recurring_runs.recurring_run_service_create_recurring_run(recurring_run=fresh)
    return str(made.recurring_run_id)


def remove(connection: Connection, recurring_run_id: str) -> None:
    """Delete a recurring run; a run of it that is under way goes on."""
    # Without this, Kubernetes ends the workflows of a recurring run with it (kubeflow/pipelines#12574).
    connection.client.recurring_runs.recurring_run_service_delete_recurring_run(
        recurring_run_id, propagation_policy="ORPHAN"
    )
