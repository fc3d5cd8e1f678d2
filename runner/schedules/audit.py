"""What is wrong with the recurring runs of a namespace."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice, takewhile
from typing import Any

from components.shared.core.errors import UserError
from runner.cluster import run_state
from runner.cluster.connection import Connection
from runner.cluster.rest import ApiError
from runner.schedules import recurring
from runner.schedules.cron import Schedule, parse_kfp
from runner.schedules.recurring import FOLLOWS_LATEST, Recurring, last_run

LATE = timedelta(minutes=10)  # KFP's scheduler is not punctual
COUNTED = 100  # missed runs, then it is "or more"


@dataclass(frozen=True)
class Audit:
    """What is known of one recurring run."""

    id: str
    recurring: Recurring
    version: str  # that the next run takes, in words
    age: timedelta | None  # of the version
    last_state: str | None
    last_time: datetime | None
    wrong: list[str]


def audit(connection: Connection, zone: tzinfo) -> Iterator[Audit]:
    """Every recurring run of the namespace, one after the other; their times are those of `zone`."""
    versions: dict[str, list[Any]] = {}
    now = datetime.now(UTC)
    for item in recurring.every(connection):
        found = recurring.read(item)
        if found.pipeline_id and found.pipeline_id not in versions:
            versions[found.pipeline_id] = _versions(connection, found.pipeline_id)
        known = versions.get(found.pipeline_id, [])
        newest = known[0] if known else None
        pinned = next((version for version in known if version.pipeline_version_id == found.version_id), None)
        used = newest if found.version_id == FOLLOWS_LATEST else pinned
        last = last_run(connection, item.recurring_run_id)
        yield Audit(
            id=item.recurring_run_id,
            recurring=found,
            version=_version(found, used),
            age=now - used.created_at if used else None,
            last_state=run_state.state(last) if last else None,
            last_time=last.created_at if last else None,
            wrong=[
                *(_wrong_version(used, newest) if found.pipeline_id else []),
                *_wrong_schedule(found, last.created_at if last else item.created_at, now, zone),
                *(["its last run failed; see `python pipeline.py logs`"] if last and last.state == "FAILED" else []),
            ],
        )


def _versions(connection: Connection, pipeline_id: str) -> list[Any]:
    """The versions of a pipeline, newest first; none where the pipeline is gone."""
    method = connection.client.list_pipeline_versions
    try:
        return list(
            connection.paginate("pipeline_versions", method, pipeline_id=pipeline_id, sort_by="created_at desc")
        )
    except ApiError as error:
        if error.status != 404:
            raise
        return []


def _version(found: Recurring, used: Any) -> str:
    if not found.pipeline_id:
        return "a pipeline given with it"
    if not used:
        return "none"
    return f"{'latest, now ' if found.version_id == FOLLOWS_LATEST else ''}{used.display_name}"


def _wrong_version(used: Any, newest: Any) -> Iterator[str]:
    if not used:
        yield "its version is deleted, so each run fails; replace it"
        return
    old, new = _images(used), _images(newest)
    if old - new:
        yield (
            f"old image: it runs {', '.join(sorted(old - new))}, the newest version, {newest.display_name}, runs "
            f"{', '.join(sorted(new))}; replace it, or let it follow the latest"
        )


def _images(version: Any) -> set[str]:
    spec = version.pipeline_spec.get("pipeline_spec", version.pipeline_spec)
    executors = spec.get("deploymentSpec", {}).get("executors", {}).values()  # which a pipeline of KFP 1 has not
    return {executor["container"]["image"] for executor in executors if "container" in executor}


def _wrong_schedule(found: Recurring, since: datetime, now: datetime, zone: tzinfo) -> Iterator[str]:
    """What is wrong with the times of a recurring run; `since` is the last time at which all was well."""
    if found.catch_up:
        yield "catch-up is on: after a pause, every time missed is run; replace it"
    schedule = found.schedule
    if schedule.cron:
        try:
            schedule = parse_kfp(schedule.cron)
        except UserError as error:
            yield str(error)
            return
    missed = _missed(schedule, since, now, zone) if found.enabled else 0
    if missed:
        many = f"{missed} or more" if missed == COUNTED else missed
        yield (
            f"missed {many} {'run' if missed == 1 else 'runs'} since {since:%Y-%m-%d %H:%M} UTC; "
            "see whether an earlier run still goes on, and the log of deployment ml-pipeline-scheduledworkflow"
        )


def _missed(schedule: Schedule, since: datetime, now: datetime, zone: tzinfo) -> int:
    past = takewhile(lambda time: time < now - LATE, schedule.times(since, zone))
    return len(list(islice(past, COUNTED)))
