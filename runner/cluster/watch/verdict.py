"""The verdict on a run's model, as its steps reported it: nobody else reaches one."""

from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.log import read_event
from runner.cluster import run_state
from runner.cluster.logs import read_log
from runner.cluster.run_state import Verdict
from runner.cluster.watch.origin import find_origin
from runner.cluster.watch.view import View
from runner.summary import Registered


def find_verdict(view: View, run: Any, pipeline: BaseComponent) -> Verdict:
    """Return the verdict as far as it is known, by the steps' events."""
    steps = run_state.steps(run, pipeline)
    logs = {
        name: read_log(view.connection, run, name) or "" for name in ("evaluate", "register") if _ran(steps[name].state)
    }
    origin, verdict = None, _last(logs.get("evaluate", ""), "verdict")
    if verdict is None and steps["evaluate"].state == "cached":
        origin, verdict = _verdict_of_origin(view, run, pipeline)
    told = verdict or _last(logs.get("register", ""), "verdict") or {}  # `register` is never cached, and repeats it
    return Verdict(
        accuracy=told.get("accuracy"),
        accepted=told.get("accepted"),
        reasons=told.get("reasons"),
        registered=_registered(_last(logs.get("register", ""), "registered")),
        from_run=origin,
    )


def _ran(state: str) -> bool:
    return state in ("done", "failed", run_state.UNKNOWN)


def _verdict_of_origin(view: View, run: Any, pipeline: BaseComponent) -> tuple[str | None, dict[str, Any] | None]:
    """Return the run that a cached verdict is from, and the verdict that its log has."""
    origin = find_origin(view, run, pipeline, "evaluate")
    if origin is None:
        return None, None
    return origin.run_id, _last(read_log(view.connection, origin, "evaluate") or "", "verdict")


def _last(log: str, kind: str) -> dict[str, Any] | None:
    events = [event for line in log.splitlines() if (event := read_event(line)) and event.get("event") == kind]
    return events[-1] if events else None


def _registered(event: dict[str, Any] | None) -> Registered | None:
    if not event:
        return None
    return Registered(**{name: event[name] for name in ("name", "version", "is_champion", "reason")})
