"""The log of a step as KFP's launcher left it in the store of its artifacts: it stays when the pods are gone."""

from typing import Any

from kfp.dsl.base_component import BaseComponent

from components.shared.core.errors import UserError
from runner.cluster.artifacts.left import Left
from runner.cluster.watch.view import View

NAME = "executor-logs"  # of the object, in a folder of the step's artifacts


def read_archived(view: View, run: Any, pipeline: BaseComponent, step: str) -> str | None:
    """Return the logs that the step's passes left; None if there are none, or they cannot be reached from here."""
    if not view.connection.kube or "artifacts" in view.refused:
        return None
    try:
        logs = Left(view.connection, pipeline, run).all(run.run_id, step, NAME)
    except UserError as error:
        view.refuse("artifacts", str(error))
        return None
    return "\n".join(log.decode(errors="replace").rstrip() for log in logs) or None
