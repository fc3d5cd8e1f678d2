"""Find the problems of the recurring runs of a namespace."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice, takewhile
from typing import Any

from components.shared.core.errors import UserError
from runner.cluster import run_state
from runner.cluster.api import list_recurring_runs
from runner.cluster.connection import Connection
from runner.cluster.rest import ApiError
from runner.schedules import recurring
from runner.schedules.cron import Schedule, parse_kfp
from runner.schedules.recurring import FOLLOWS_LATEST, MAX_COUNTED, RecurringRun, last_run

TOLERANCE = timedelta(minutes=10)  # KFP's scheduler is not punctual


@dataclass(frozen=True)
class Audit:
    """What is known about one recurring run."""

    id: str
    item: Any  # KFP's
    recurring: RecurringRun
    version: str  # of the next run, in words
    age: timedelta | None  # of the version
    last_state: str | None
    last_time: datetime | None
    problems: list[str]


def audit(connection: Connection, zone: tzinfo) -> Iterator[Audit]:
    """Yield the audit of every recurring run of the namespace; KFP reads crontabs in time zone `zone`."""
    versions: dict[str, list[Any]] = {}
    for item in list_recurring_runs(connection):
        pipeline_id = recurring.read(item).pipeline_id or ""
        if pipeline_id and pipeline_id not in versions:
            versions[pipeline_id] = _list_versions(connection, pipeline_id)
        yield _audit_one(item, versions.get(pipeline_id, []), last_run(connection, item.recurring_run_id), zone)


def _audit_one(item: Any, versions: list[Any], last: Any, zone: tzinfo) -> Audit:
    """Return the audit of KFP's `item`, with the versions of its pipeline, newest first, and its last run."""
    found, now = recurring.read(item), datetime.now(UTC)
    newest = versions[0] if versions else None
    pinned = next((version for version in versions if version.pipeline_version_id == found.version_id), None)
    used = newest if found.version_id == FOLLOWS_LATEST else pinned
    return Audit(
        id=item.recurring_run_id,
        item=item,
        recurring=found,
        version=_describe_version(found, used),
        age=now - used.created_at if used else None,
        last_state=run_state.state(last) if last else None,
        last_time=last.created_at if last else None,
        problems=[
            *(_version_problems(used, newest) if found.pipeline_id else []),
            *_schedule_problems(found, last.created_at if last else item.created_at, now, zone),
            *(["its last run failed; see `python pipeline.py logs`"] if last and last.state == "FAILED" else []),
        ],
    )


def _list_versions(connection: Connection, pipeline_id: str) -> list[Any]:
    """Return the versions of a pipeline, newest first; none if the pipeline no longer exists."""
    method = connection.client.list_pipeline_versions
    try:
        return list(
            connection.paginate("pipeline_versions", method, pipeline_id=pipeline_id, sort_by="created_at desc")
        )
    except ApiError as error:
        if error.status != 404:
            raise
        return []


def _describe_version(found: RecurringRun, used: Any) -> str:
    if not found.pipeline_id:
        return "a pipeline of its own"
    if not used:
        return "none"
    return f"{'latest, now ' if found.version_id == FOLLOWS_LATEST else ''}{used.display_name}"


def _version_problems(used: Any, newest: Any) -> Iterator[str]:
    if not used:
        yield "its version was deleted, so each run fails; replace it"
        return
    old, new = _images(used), _images(newest)
    if old - new:
        yield (
            f"old image: it runs {', '.join(sorted(old - new))}, the newest version, {newest.display_name}, runs "
            f"{', '.join(sorted(new))}; replace it, or let it follow the latest"
        )


def _images(version: Any) -> set[str]:
    spec = version.pipeline_spec.get("pipeline_spec", version.pipeline_spec)
    executors = spec.get("deploymentSpec", {}).get("executors", {}).values()  # absent from a pipeline of KFP 1
    return {executor["container"]["image"] for executor in executors if "container" in executor}


def _schedule_problems(found: RecurringRun, since: datetime, now: datetime, zone: tzinfo) -> Iterator[str]:
    """Yield the problems of a recurring run's times; `since` is the last time at which it was on schedule."""
    if found.catch_up:
        yield "catch-up is on: after a pause, every missed time is run; replace it"
    schedule = found.schedule
    if schedule.cron:
        try:
            schedule = parse_kfp(schedule.cron)
        except UserError as error:
            yield str(error)
            return
    missed = _count_missed(schedule, since, now, zone) if found.enabled else 0
    if missed:
        count = f"{missed} or more" if missed == MAX_COUNTED else missed
        yield (
            f"missed {count} {'run' if missed == 1 else 'runs'} since {since:%Y-%m-%d %H:%M} UTC; "
            "check whether an earlier run is still active, and the log of deployment ml-pipeline-scheduledworkflow"
        )


def _count_missed(schedule: Schedule, since: datetime, now: datetime, zone: tzinfo) -> int:
    past = takewhile(lambda time: time < now - TOLERANCE, schedule.times(since, zone))
    return len(list(islice(past, MAX_COUNTED)))
