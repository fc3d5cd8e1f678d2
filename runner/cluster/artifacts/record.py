"""The record that step finish left in the store of a run: of one that was stopped it may say that it failed.

KFP tells the step only whether the other steps succeeded, and the step's pod may not be allowed to ask Argo for more.
"""

from contextlib import suppress
from typing import Any

from components.finish import CANCELED, FAILED, RecordDocument
from components.shared.core.errors import UserError
from components.shared.storage.errors import Conflict, NoSuchObject
from runner.cluster import run_state
from runner.cluster.connection import Connection
from runner.cluster.run_facts import objects_of, parameters_of
from runner.cluster.store import steps_store

ATTEMPTS = 2  # of a request: a verb that tells of the run does not wait for the store


def correct_record(connection: Connection, run: Any) -> None:
    """Mark a run that was stopped as canceled in its record, if it has one. Raises UserError if it is out of reach."""
    store = parameters_of(run).get("store")
    if not store or not run_state.was_stopped(run):
        return
    if not connection.kube:
        raise UserError("only KFP's API was reached", "give --context too")
    name = f"runs/{run.run_id}.json"
    opening = steps_store(connection.kube, connection.namespace, store, *objects_of(run), attempts=ATTEMPTS)
    with opening as opened, suppress(NoSuchObject, Conflict):  # a conflict: another verb corrects it, too
        content, etag = opened.get_bytes(name)
        record = RecordDocument.parse(content, opened.uri(name))
        if record.state == FAILED:
            opened.put_bytes(record.model_copy(update={"state": CANCELED}).to_json(), name, if_match=etag)
