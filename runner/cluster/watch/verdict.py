"""The verdict on a run's model, as its steps reported it: nobody else reaches one."""

import re
from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.log import read_event
from runner.cluster import run_state
from runner.cluster.connection import Connection
from runner.cluster.logs import read_log
from runner.cluster.rest import ApiError
from runner.cluster.run_state import Verdict
from runner.summary import Registered

# The address of what `evaluate` wrote, among the inputs that KFP prints into a later step's log, names the run.
ORIGIN = re.compile(r"/v2/artifacts/[^/\"]+/(?P<run>[0-9a-f-]{36})/evaluate/")
READERS = ("register", "export")  # the steps that read it


def find_verdict(connection: Connection, run: Any, pipeline: BaseComponent) -> Verdict:
    """Return the verdict as far as it is known: by the steps' events, else by which steps ran."""
    steps = run_state.steps(run, pipeline)
    logs = {name: read_log(connection, run, name) or "" for name in ("evaluate", *READERS) if _ran(steps[name].state)}
    origin, verdict = None, _last(logs.get("evaluate", ""), "verdict")
    if verdict is None and steps["evaluate"].state == "cached":
        origin, verdict = _verdict_of_origin(connection, logs)
    exported = steps["export"].state in ("done", "cached")
    passed_over = steps["evaluate"].state in ("done", "cached") and run_state.was_rejected(run)
    told = verdict or {}
    return Verdict(
        accuracy=told.get("accuracy"),
        accepted=told.get("accepted", True if exported else False if passed_over else None),
        reasons=told.get("reasons"),
        registered=_registered(_last(logs.get("register", ""), "registered")),
        from_run=origin,
    )


def _ran(state: str) -> bool:
    return state in ("done", "failed", run_state.UNKNOWN)


def _verdict_of_origin(connection: Connection, logs: dict[str, str]) -> tuple[str | None, dict[str, Any] | None]:
    """Return the run that a cached verdict is from, and the verdict that its log has."""
    found = next((found for name in READERS if (found := ORIGIN.search(logs.get(name, "")))), None)
    if not found:
        return None, None
    try:
        origin = connection.client.get_run(found["run"])
    except ApiError:  # deleted since
        return found["run"], None
    return found["run"], _last(read_log(connection, origin, "evaluate") or "", "verdict")


def _last(log: str, kind: str) -> dict[str, Any] | None:
    events = [event for line in log.splitlines() if (event := read_event(line)) and event.get("event") == kind]
    return events[-1] if events else None


def _registered(event: dict[str, Any] | None) -> Registered | None:
    if not event:
        return None
    return Registered(**{name: event[name] for name in ("name", "version", "is_champion", "reason")})
