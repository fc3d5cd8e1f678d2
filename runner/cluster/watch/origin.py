"""The run that a cached step came from, by the addresses of what it made there.

KFP's API does not tell it. The address of an artifact has the run that made it, and the steps that read the artifact
get its address. If all of these were cached too, they got it in the run that they are from. Of an artifact that no step
has read it is not known.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from kfp.dsl.base_component import BaseComponent

from runner.cluster import run_state
from runner.cluster.logs import read_log
from runner.cluster.rest import ApiError
from runner.cluster.watch.view import View


def find_origin(view: View, run: Any, pipeline: BaseComponent, step: str) -> Any:
    """Return the run in which a step that was cached ran; None if it is not known, or was deleted."""
    found = origin_id(view, run, pipeline, step)
    return found and get_run(view, found)


def origin_id(view: View, run: Any, pipeline: BaseComponent, step: str) -> str | None:
    """Return the id of the run in which a step that was cached ran; None if it is not known."""
    texts = list(_texts(view, run, pipeline))
    if found := _run_in(texts, run, pipeline, step):
        return found
    states = run_state.steps(run, pipeline)
    for reader in [name for name, one in states.items() if one.state == "cached" and name != step]:
        earlier = _run_in(texts, run, pipeline, reader)
        source = earlier and get_run(view, earlier)
        log = read_log(view.connection, source, reader) if source else None
        if log and (found := _run_in([log], run, pipeline, step)):
            return found
    return None


def _run_in(texts: list[str], run: Any, pipeline: BaseComponent, step: str) -> str | None:
    """Return the other run of which a text has the address of what a step made; None if there is none, or several."""
    address = re.compile(rf"/{re.escape(str(pipeline.name))}/([0-9a-f]{{8}}-[0-9a-f-]{{27}})/{re.escape(step)}/")
    found = (set(address.findall(text)) - {run.run_id} for text in texts)
    return next((str(one.pop()) for one in found if len(one) == 1), None)


def _texts(view: View, run: Any, pipeline: BaseComponent) -> Iterator[str]:
    """Yield what may have the addresses of the inputs of steps: the pods' commands, and the logs of steps that ran."""
    yield from (json.dumps(container.command) for pod in view.pods() for container in pod.spec.containers)
    for name, step in run_state.steps(run, pipeline).items():
        if step.state not in ("cached", "skipped"):
            yield read_log(view.connection, run, name) or ""


def get_run(view: View, run_id: str) -> Any:
    """Return a run; None if it was deleted."""
    try:
        return view.connection.client.get_run(run_id)
    except ApiError as error:
        if error.status != 404:
            raise
        return None
